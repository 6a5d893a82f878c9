/**
 * Qwen3-Coder's calls: `<function=f><parameter=p>value</parameter></function>`, with a line feed around each value.
 * A value is text or JSON by its schema, and becomes a member of the arguments' JSON while it streams.
 */
import { argumentTypes, type Tool } from '../conversation.ts';
import { partialMatchLength } from '../partialMatch.ts';
import type { CallProgress, CallReader } from './toolCallText.ts';

const valueEnd = '</parameter>';
const functionEnd = '</function>';

export class XmlCallReader implements CallReader {
  readonly #open: string;
  readonly #close: string;
  readonly #tools: readonly Tool[];
  /** All of the call, in case it is none. */
  #raw = '';
  #held = '';
  #state: 'head' | 'members' | 'value' | 'tail' = 'head';
  #types: ReturnType<typeof argumentTypes> = {};
  #member: { readonly isText: boolean; begun: boolean } = { isText: true, begun: false };
  #members = 0;

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
    return this.#state === 'tail' ? { rest: this.#held } : { broken: this.#open + this.#raw };
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
    if (!match?.[1]) return isBeginning(begun, '<function=') && !match ? undefined : this.#broken();
    this.#held = begun.slice(match[0].length);
    this.#state = 'members';
    const name = match[1].trim();
    const tool = this.#tools.find((known) => known.name === name);
    if (tool) this.#types = argumentTypes(tool);
    return { name, arguments: '{' };
  }

  #readMember(): CallProgress | undefined {
    const begun = this.#held.trimStart();
    if (begun.startsWith(functionEnd)) {
      this.#held = begun.slice(functionEnd.length);
      this.#state = 'tail';
      return { arguments: '}' };
    }
    const match = /^<parameter=([^>\n]*)>\n?/.exec(begun);
    // The line feed behind the tag belongs to it.
    if (!match || match[0].length === begun.length) {
      const possible = [functionEnd, '<parameter='].some((tag) => isBeginning(begun, tag));
      return possible && !/^<parameter=[^>]*\n/.test(begun) ? undefined : this.#broken();
    }
    this.#held = begun.slice(match[0].length);
    this.#state = 'value';
    const name = (match[1] ?? '').trim();
    this.#member = { isText: this.#types[name]?.isText ?? true, begun: false };
    return { arguments: `${this.#members++ > 0 ? ', ' : ''}${JSON.stringify(name)}: ` };
  }

  #readText(): CallProgress | undefined {
    const held = this.#held;
    const end = held.indexOf(valueEnd);
    const kept = end < 0 ? partialMatchLength(held, [`\n${valueEnd}`, valueEnd]) : 0;
    const text = end < 0 ? held.slice(0, held.length - kept) : held.slice(0, end).replace(/\n$/, '');
    if (end < 0 && !isWhole(text)) return undefined;
    const quote = this.#member.begun ? '' : '"';
    this.#member.begun = true;
    const inside = JSON.stringify(text).slice(1, -1);
    if (end < 0) {
      this.#held = held.slice(text.length);
      return text === '' ? (quote === '' ? undefined : { arguments: quote }) : { arguments: quote + inside };
    }
    this.#endValue(end);
    return { arguments: `${quote}${inside}"` };
  }

  #readJson(): CallProgress | undefined {
    const end = this.#held.indexOf(valueEnd);
    if (end < 0) return undefined;
    const text = this.#held.slice(0, end).replace(/\n$/, '');
    this.#endValue(end);
    return { arguments: jsonOf(text) };
  }

  #endValue(end: number): void {
    this.#held = this.#held.slice(end + valueEnd.length);
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

/** Whether one of `text` and `tag` begins the other. */
function isBeginning(text: string, tag: string): boolean {
  return text.startsWith(tag) || tag.startsWith(text);
}

/** Half a surrogate pair would be escaped by itself. */
function isWhole(text: string): boolean {
  return text.isWellFormed();
}

/** A value that is no text: JSON as it stands, Python's spelling of its words, or after all a text. */
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
