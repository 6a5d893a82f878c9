/** How models write calls whose arguments stand between tags. */
import type { Tool } from '../conversation.ts';
import type { ToolSyntax } from '../formats/chatTemplate.ts';

export interface CallForm {
  /** Matches up to the first argument. Group 1: the tool's name. */
  readonly head: RegExp;
  /** Whether text that `head` doesn't match yet may become a call. */
  mayBegin(text: string, tools: readonly Tool[]): boolean;
  /** Text from which a call to the tool is recognised where its opening tag is missing. */
  openings(name: string): readonly string[];
  /** Matches an argument up to its value. Group 1: its name. */
  readonly member: RegExp;
  /** Beginning of every argument. */
  readonly memberStart: string;
  /** Matches what begins as an argument and can't become one. */
  readonly notMember: RegExp;
  /** An argument up to its value, as it ends the value before that lacks its closing tag. */
  memberHead(name: string): string;
  readonly valueEnd: string;
  /** The tag that ends a call, before the closing tag; empty: none. */
  readonly functionEnd: string;
  /** Beginning of the next call. */
  readonly functionStart: string;
  /** Each value stands on lines of its own, between line feeds that belong to the tags. */
  readonly onLines: boolean;
  /** Whether an argument that the schema doesn't name is text. */
  readonly unknownIsText: boolean;
}

const beginsWith = (start: string) => (text: string) => text.startsWith(start) || start.startsWith(text);

/** `<function=f>`, then `<parameter=p>`, its value and `</parameter>` for each argument, then `</function>`. */
const xml: CallForm = {
  head: /^<function=([^>\n]*)>/,
  mayBegin: beginsWith('<function='),
  openings: (name) => [`<function=${name}>`],
  member: /^<parameter=([^>\n]*)>\n?/,
  memberStart: '<parameter=',
  notMember: /^<parameter=[^>]*\n/,
  memberHead: (name) => `<parameter=${name}>`,
  valueEnd: '</parameter>',
  functionEnd: '</function>',
  functionStart: '<function=',
  onLines: true,
  unknownIsText: true,
};

/** MiniMax's: `<invoke name="f">`, then `<parameter name="p">value</parameter>` for each argument, then `</invoke>`. */
const invoke: CallForm = {
  head: /^<invoke name="([^">\n]*)">/,
  mayBegin: beginsWith('<invoke name="'),
  openings: (name) => [`<invoke name="${name}">`],
  member: /^<parameter name="([^">\n]*)">/,
  memberStart: '<parameter name="',
  notMember: /^<parameter name="[^>]*\n/,
  memberHead: (name) => `<parameter name="${name}">`,
  valueEnd: '</parameter>',
  functionEnd: '</invoke>',
  functionStart: '<invoke name="',
  onLines: false,
  unknownIsText: true,
};

/** GLM's: the name, then `<arg_key>p</arg_key>` and `<arg_value>value</arg_value>` for each argument. */
const keyed: CallForm = {
  head: /^(.*?)(?=\n|<arg_key>|<\/tool_call>)/,
  mayBegin: (text, tools) => tools.some(({ name }) => beginsWith(name)(text)),
  openings: (name) => [`${name}\n<arg_key>`, `${name}<arg_key>`],
  member: /^<arg_key>([^<\n]*)(?:<\/arg_key>)?\s*<arg_value>/,
  memberStart: '<arg_key>',
  notMember: /^<arg_key>[^<]*(?:\n|<\/arg_key>)\s*[^<\s]/,
  memberHead: (name) => `<arg_key>${name}</arg_key>`,
  valueEnd: '</arg_value>',
  functionEnd: '',
  functionStart: '<tool_call>',
  onLines: false,
  unknownIsText: false,
};

const forms = { xml, invoke, keyed };

/** Undefined if the arguments are one JSON object. */
export const callFormOf = (kind: ToolSyntax['kind']): CallForm | undefined =>
  kind === 'xml' || kind === 'invoke' || kind === 'keyed' ? forms[kind] : undefined;
