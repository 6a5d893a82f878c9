/**
 * Parses calls with arguments between tags: Qwen3-Coder's, MiniMax's and GLM's.
 *
 * The schema says whether a value is text or JSON. Each value is streamed as a member of the arguments' JSON.
 *
 * About one of Qwen3-Coder's calls in five lacks a tag. A value without its closing tag ends at the next parameter of
 * the tool, at the end of the call on a separate line, or at the function's closing tag if only the end of the call
 * follows. A function without its closing tag ends with the call, or where another begins.
 */
import { argumentTypes, type Tool } from '../conversation.ts';
import type { ToolSyntax } from '../formats/chatTemplate.ts';
import { partialMatchLength } from '../thinking.ts';
import type { CallProgress, CallReader } from './toolCallText.ts';

/** How one of these formats writes a call. */
export interface CallForm {
  /** Matches up to the first argument. Group 1: the tool's name. */
  readonly head: RegExp;
  /** Whether text that `head` doesn't match yet may become a call. */
  mayBegin(text: string, tools: readonly Tool[]): boolean;
  /** Texts that identify a call to the tool if its opening tag is missing. */
  openings(name: string): readonly string[];
  /** Matches an argument up to its value. Group 1: its name. */
  readonly member: RegExp;
  /** Beginning of every argument. */
  readonly memberStart: string;
  /** Matches text that begins like an argument but can't become one. */
  readonly notMember: RegExp;
  /** An argument up to its value. It ends a previous value that lacks its closing tag. */
  memberHead(name: string): string;
  readonly valueEnd: string;
  /** The tag that ends a call, before the closing tag; empty: none. */
  readonly functionEnd: string;
  /** Beginning of the next call. */
  readonly functionStart: string;
  /** Each value is on separate lines; the line feeds around it belong to the tags. */
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

export class XmlCallReader implements CallReader {
  readonly #form: CallForm;
  readonly #open: string;
  readonly #close: string;
  readonly #tools: readonly Tool[];
  /** The whole text, in case it isn't a call. */
  #raw = '';
  #held = '';
  #state: 'head' | 'members' | 'value' | 'tail' = 'head';
  #types: ReturnType<typeof argumentTypes> = {};
  #member: { readonly isText: boolean; begun: boolean } = { isText: true, begun: false };
  readonly #members = new Set<string>();
  #tool: Tool | undefined;

  /** `open`: empty if the call had no opening tag. */
  constructor(form: CallForm, open: string, close: string, tools: readonly Tool[]) {
    this.#form = form;
    this.#open = open;
    this.#close = close;
    this.#tools = tools;
  }

  push(text: string): CallProgress {
    this.#raw += text;
    this.#held += text;
    let progress: CallProgress = {};
    for (;;) {
      const step = this.#step();
      if (step === undefined) return progress;
      progress = { ...progress, ...step, arguments: (progress.arguments ?? '') + (step.arguments ?? '') };
      if (step.rest !== undefined || step.broken !== undefined) return progress;
    }
  }

  end(): CallProgress {
    const before = this.push('');
    if (before.rest !== undefined || before.broken !== undefined) return before;
    const { arguments: read = '' } = before;
    if (this.#state === 'tail') return { ...before, rest: this.#held };
    const whole = this.#state === 'value' ? this.#beforeEnding() : undefined;
    if (whole !== undefined) return { ...before, arguments: `${read}${this.#lastPiece(whole)}}`, rest: '' };
    if (this.#state === 'members' && this.#held.trim() === '' && this.#hasRequired()) {
      return { ...before, arguments: `${read}}`, rest: '' };
    }
    // The output was cut off. Its pieces were already delivered, so they are not repeated as text.
    return this.#state === 'head' ? { broken: this.#open + this.#raw } : { ...before, rest: '' };
  }

  /**
   * Whether the call has all required arguments. Only then does a call that ends between two values count as complete.
   */
  #hasRequired(): boolean {
    const required: unknown = this.#tool?.parameters['required'];
    return this.#members.size > 0 && Array.isArray(required) && required.every((name) => this.#members.has(name));
  }

  /** `undefined`: more text is needed. */
  #step(): CallProgress | undefined {
    switch (this.#state) {
      case 'head':
        return this.#readHead();
      case 'members':
        return this.#readMember();
      case 'value':
        return this.#member.isText ? this.#readText() : this.#readJson();
      case 'tail':
        return this.#readTail();
    }
  }

  #readHead(): CallProgress | undefined {
    const begun = this.#held.trimStart();
    const match = this.#form.head.exec(begun);
    if (!match?.[1]) return this.#form.mayBegin(begun, this.#tools) && !match ? undefined : this.#broken();
    const name = match[1].trim();
    const tool = this.#tools.find((known) => known.name === name);
    if (!tool) return this.#broken();
    this.#held = begun.slice(match[0].length);
    this.#state = 'members';
    this.#tool = tool;
    this.#types = argumentTypes(tool);
    return { name, arguments: '{' };
  }

  #readMember(): CallProgress | undefined {
    const { functionEnd, member, memberStart, notMember, onLines, unknownIsText } = this.#form;
    const begun = this.#held.trimStart();
    if (functionEnd !== '' && begun.startsWith(functionEnd)) {
      this.#held = begun.slice(functionEnd.length);
      this.#state = 'tail';
      return { arguments: '}' };
    }
    if (this.#close !== '' && begun.startsWith(this.#close)) {
      this.#held = begun;
      this.#state = 'tail';
      return { arguments: '}' };
    }
    const match = member.exec(begun);
    // The line feed after the tag belongs to the tag.
    if (!match || (onLines && match[0].length === begun.length)) {
      const next = this.#nextCalls();
      if (next.some((mark) => begun.startsWith(mark))) return { arguments: '}', rest: begun };
      const possible = [functionEnd, memberStart, this.#close].some((tag) => tag !== '' && isBeginning(begun, tag));
      return (possible && !notMember.test(begun)) || next.some((mark) => mark.startsWith(begun))
        ? undefined
        : this.#broken();
    }
    this.#held = begun.slice(match[0].length);
    this.#state = 'value';
    const name = (match[1] ?? '').trim();
    this.#member = { isText: this.#types[name]?.isText ?? unknownIsText, begun: false };
    const comma = this.#members.size > 0 ? ', ' : '';
    this.#members.add(name);
    return { arguments: `${comma}${JSON.stringify(name)}: ` };
  }

  /** Texts that begin another call and so end this one, if it is complete. */
  #nextCalls(): string[] {
    if (!this.#hasRequired()) return [];
    return [this.#form.functionStart, ...this.#tools.flatMap(({ name }) => this.#form.openings(name))];
  }

  #readText(): CallProgress | undefined {
    const held = this.#held;
    const end = this.#findEnd();
    if (end?.at !== undefined) {
      this.#endValue(end.at, end.skip);
      return { arguments: this.#lastPiece(held.slice(0, end.at)) };
    }
    const { valueEnd } = this.#form;
    const marks = [`\n${valueEnd}`, valueEnd, ...this.#endings(), ...this.#otherEnds()];
    const text = held.slice(0, end?.undecided ?? held.length - partialMatchLength(held, marks));
    if (!isWhole(text)) return undefined;
    const quote = this.#member.begun ? '' : '"';
    this.#member.begun = true;
    this.#held = held.slice(text.length);
    return text + quote === '' ? undefined : { arguments: quote + JSON.stringify(text).slice(1, -1) };
  }

  #readJson(): CallProgress | undefined {
    const held = this.#held;
    const end = this.#findEnd();
    if (end?.at === undefined) return undefined;
    this.#endValue(end.at, end.skip);
    return { arguments: this.#lastPiece(held.slice(0, end.at)) };
  }

  /** The rest of a value with a known end. */
  #lastPiece(text: string): string {
    if (!this.#member.isText) return jsonOf(text);
    return `${this.#member.begun ? '' : '"'}${JSON.stringify(text).slice(1, -1)}"`;
  }

  /** Texts that end a value without its closing tag. */
  #otherEnds(): string[] {
    const { onLines, memberHead } = this.#form;
    const others = Object.keys(this.#types).filter((name) => !this.#members.has(name));
    const heads = others.map(memberHead).flatMap((head) => (onLines ? [`\n${head}`] : [`\n${head}`, head]));
    return this.#close === '' ? heads : [...heads, `\n${this.#close}`];
  }

  /** Tags that end the value and the call if only the end of the call, or another call, follows. */
  #endings(): string[] {
    const tag = this.#form.functionEnd === '' ? this.#close : this.#form.functionEnd;
    return this.#form.onLines ? [`\n${tag}`] : [`\n${tag}`, tag];
  }

  /** The value, if the output ends with such a tag. */
  #beforeEnding(): string | undefined {
    const held = this.#held.trimEnd();
    const ending = this.#endings().find((tag) => held.endsWith(tag));
    return ending === undefined ? undefined : held.slice(0, -ending.length);
  }

  /** Where the value ends, or the position from which more text is needed to decide. */
  #findEnd(): { at: number; skip: number; undecided?: never } | { undecided: number; at?: never } | undefined {
    const held = this.#held;
    const { valueEnd, onLines } = this.#form;
    const own = held.indexOf(valueEnd);
    const others = this.#otherEnds()
      .map((mark) => held.indexOf(mark))
      .filter((at) => at >= 0);
    const other = others.length === 0 ? undefined : Math.min(...others);
    const first = Math.min(own < 0 ? held.length : own, other ?? held.length);
    const ending = this.#functionEnding(held.slice(0, first));
    if (ending !== undefined) return ending;
    if (other === first) return { at: other, skip: 0 };
    if (own < 0) return undefined;
    const at = onLines && held.charAt(own - 1) === '\n' ? own - 1 : own;
    return { at, skip: own - at + valueEnd.length };
  }

  /** The first of `#endings` that ends the value. */
  #functionEnding(before: string): { at: number; skip: number } | { undecided: number } | undefined {
    const { functionEnd, functionStart } = this.#form;
    const follows = (functionEnd === '' ? [functionStart] : [this.#close, functionStart]).filter((tag) => tag !== '');
    const found = this.#endings().flatMap((mark) =>
      placesOf(mark, before).map((at) => ({ at, rest: this.#held.slice(at + mark.length).trimStart() })),
    );
    for (const { at, rest } of found.sort((a, b) => a.at - b.at)) {
      if (follows.some((tag) => rest.startsWith(tag))) return { at, skip: 0 };
      if (follows.some((tag) => tag.startsWith(rest))) return { undecided: at };
    }
    return undefined;
  }

  #endValue(end: number, skip: number): void {
    this.#held = this.#held.slice(end + skip);
    this.#state = 'members';
  }

  #readTail(): CallProgress | undefined {
    const tail = this.#held.trimStart();
    if (tail.startsWith(this.#close)) return { rest: tail.slice(this.#close.length) };
    return this.#close.startsWith(tail) ? undefined : { rest: this.#held };
  }

  #broken(): CallProgress {
    const read = this.#raw.length - this.#held.length;
    return { broken: this.#open + this.#raw.slice(0, read), rest: this.#held };
  }
}

function placesOf(mark: string, text: string): number[] {
  const places: number[] = [];
  for (let at = text.indexOf(mark); at >= 0; at = text.indexOf(mark, at + 1)) places.push(at);
  return places;
}

/** Whether one of `text` and `tag` is a prefix of the other. */
function isBeginning(text: string, tag: string): boolean {
  return text.startsWith(tag) || tag.startsWith(text);
}

/** JSON would escape half a surrogate pair. */
function isWhole(text: string): boolean {
  return text.isWellFormed();
}

/** A value that isn't text by its schema: JSON, Python's `True`, `False` or `None`, or text after all. */
function jsonOf(text: string): string {
  const value = text.trim();
  const word = { True: 'true', False: 'false', None: 'null' }[value];
  if (word !== undefined) return word;
  try {
    JSON.parse(value);
    return value;
  } catch {
    return JSON.stringify(text);
  }
}
