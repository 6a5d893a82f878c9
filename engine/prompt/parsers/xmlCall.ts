/**
 * Calls whose arguments stand between tags.
 *
 * Qwen3-Coder's calls: `<function=f><parameter=p>value</parameter></function>`, with a line feed around each value.
 * The schema says whether a value is text or JSON. Each value is streamed as a member of the arguments' JSON.
 *
 * About one call in five lacks a tag. A value without its closing tag ends at the next parameter of the tool, at the end
 * of the call, or at the function's closing tag if only the end of the call follows. A function without its closing tag
 * ends with the call.
 */
import { argumentTypes, type Tool } from '../conversation.ts';
import { partialMatchLength } from '../thinking.ts';
import type { CallProgress, CallReader } from './toolCallText.ts';

const valueEnd = '</parameter>';
const parameterStart = '<parameter=';
const functionStart = '<function=';
const functionEnd = '</function>';

export class XmlCallReader implements CallReader {
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
  constructor(open: string, close: string, tools: readonly Tool[]) {
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
    if (this.#state === 'value' && functionEndsIn(this.#held)) {
      const text = this.#held.slice(0, this.#held.lastIndexOf(`\n${functionEnd}`));
      return { ...before, arguments: `${read}${this.#lastPiece(text)}}`, rest: '' };
    }
    if (this.#state === 'members' && this.#held.trim() === '' && this.#hasRequired()) {
      return { ...before, arguments: `${read}}`, rest: '' };
    }
    // The output was cut off. Its pieces were already delivered, so they are not repeated as text.
    return this.#state === 'head' ? { broken: this.#open + this.#raw } : { ...before, rest: '' };
  }

  /** Only then is a call complete that breaks off between two values. */
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
    const match = /^<function=([^>\n]*)>/.exec(begun);
    if (!match?.[1]) return isBeginning(begun, functionStart) && !match ? undefined : this.#broken();
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
    const begun = this.#held.trimStart();
    if (begun.startsWith(functionEnd)) {
      this.#held = begun.slice(functionEnd.length);
      this.#state = 'tail';
      return { arguments: '}' };
    }
    if (this.#close !== '' && begun.startsWith(this.#close)) {
      this.#held = begun;
      this.#state = 'tail';
      return { arguments: '}' };
    }
    const match = /^<parameter=([^>\n]*)>\n?/.exec(begun);
    // The line feed after the tag belongs to the tag.
    if (!match || match[0].length === begun.length) {
      const possible = [functionEnd, parameterStart, this.#close].some((tag) => isBeginning(begun, tag));
      return possible && !/^<parameter=[^>]*\n/.test(begun) ? undefined : this.#broken();
    }
    this.#held = begun.slice(match[0].length);
    this.#state = 'value';
    const name = (match[1] ?? '').trim();
    this.#member = { isText: this.#types[name]?.isText ?? true, begun: false };
    const comma = this.#members.size > 0 ? ', ' : '';
    this.#members.add(name);
    return { arguments: `${comma}${JSON.stringify(name)}: ` };
  }

  #readText(): CallProgress | undefined {
    const held = this.#held;
    const end = this.#findEnd();
    if (end?.at !== undefined) {
      this.#endValue(end.at, end.skip);
      return { arguments: this.#lastPiece(held.slice(0, end.at)) };
    }
    const marks = [`\n${valueEnd}`, valueEnd, `\n${functionEnd}`, ...this.#otherEnds()];
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

  /** Ends a value that lacks its closing tag. */
  #otherEnds(): string[] {
    const others = Object.keys(this.#types).filter((name) => !this.#members.has(name));
    const close = this.#close === '' ? [] : [`\n${this.#close}`];
    return [...others.map((name) => `\n${parameterStart}${name}>`), ...close];
  }

  /** Where the value ends, or the position from which more text is needed to decide. */
  #findEnd(): { at: number; skip: number; undecided?: never } | { undecided: number; at?: never } | undefined {
    const held = this.#held;
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
    const at = held.charAt(own - 1) === '\n' ? own - 1 : own;
    return { at, skip: own - at + valueEnd.length };
  }

  /** A function's closing tag counts only if the end of the call or another function follows. */
  #functionEnding(before: string): { at: number; skip: number } | { undecided: number } | undefined {
    const mark = `\n${functionEnd}`;
    for (let at = before.indexOf(mark); at >= 0; at = before.indexOf(mark, at + 1)) {
      const rest = this.#held.slice(at + mark.length).trimStart();
      const follows = [this.#close, functionStart].filter((tag) => tag !== '');
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

const keyStart = '<arg_key>';
const member = /^<arg_key>([^<]*)<\/arg_key>\s*<arg_value>([\s\S]*?)<\/arg_value>/;

/**
 * GLM's calls: `<tool_call>f`, then `<arg_key>p</arg_key>` and `<arg_value>value</arg_value>` for each argument. A value is
 * given once it is whole.
 */
export class KeyedCallReader implements CallReader {
  readonly #open: string;
  readonly #close: string;
  readonly #tools: readonly Tool[];
  #raw = '';
  #held = '';
  #tool: Tool | undefined;
  readonly #members = new Set<string>();

  constructor(open: string, close: string, tools: readonly Tool[]) {
    this.#open = open;
    this.#close = close;
    this.#tools = tools;
  }

  push(text: string): CallProgress {
    this.#raw += text;
    this.#held += text;
    const head = this.#tool ? {} : this.#readHead();
    const tool = this.#tool;
    if (!tool) return head;
    let read = head.arguments ?? '';
    for (;;) {
      const begun = this.#held.trimStart();
      if (begun.startsWith(this.#close)) {
        return { ...head, arguments: `${read}}`, rest: begun.slice(this.#close.length) };
      }
      const [whole, key = '', value = ''] = member.exec(begun) ?? [];
      if (whole === undefined) {
        const possible = isBeginning(begun, keyStart) || this.#close.startsWith(begun);
        return possible ? { ...head, arguments: read } : { ...head, arguments: read, ...this.#broken() };
      }
      read += this.#member(tool, key.trim(), value);
      this.#held = begun.slice(whole.length);
    }
  }

  end(): CallProgress {
    const before = this.push('');
    if (before.rest !== undefined || before.broken !== undefined) return before;
    if (!this.#tool) return { broken: this.#open + this.#raw };
    const required: unknown = this.#tool.parameters['required'];
    const isWhole =
      this.#held.trim() === '' && Array.isArray(required) && required.every((name) => this.#members.has(name));
    return { ...before, arguments: `${before.arguments ?? ''}${isWhole ? '}' : ''}`, rest: '' };
  }

  #readHead(): CallProgress {
    const begun = this.#held.trimStart();
    const end = begun.search(/\n|<arg_key>|<\/tool_call>/);
    const name = (end < 0 ? begun : begun.slice(0, end)).trim();
    const possible = this.#tools.some((tool) => (end < 0 ? isBeginning(tool.name, name) : tool.name === name));
    if (!possible) return this.#broken();
    if (end < 0) return {};
    this.#tool = this.#tools.find((tool) => tool.name === name);
    this.#held = begun.slice(end);
    return { name, arguments: '{' };
  }

  #member(tool: Tool, name: string, value: string): string {
    const comma = this.#members.size > 0 ? ', ' : '';
    this.#members.add(name);
    const isText = argumentTypes(tool)[name]?.isText ?? true;
    return `${comma}${JSON.stringify(name)}: ${isText ? JSON.stringify(value) : jsonOf(value)}`;
  }

  #broken(): CallProgress {
    const read = this.#raw.length - this.#held.length;
    return { broken: this.#open + this.#raw.slice(0, read), rest: this.#held };
  }
}

/** Whether the text ends with a function's closing tag on its own line. */
function functionEndsIn(text: string): boolean {
  return text.trimEnd().endsWith(`\n${functionEnd}`);
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
