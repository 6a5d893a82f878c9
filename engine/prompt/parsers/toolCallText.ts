/** Tool calls that are written as text: `<tool_call>{"name": …}</tool_call>` and similar forms. */
import { type Tokenizer, TokenTextStream } from '../../tokenizer/tokenizer.ts';
import { type OutputParser, type OutputPiece, piece, type Tool } from '../conversation.ts';
import type { ToolSyntax } from '../formats/chatTemplate.ts';
import { partialMatchLength, ThinkingSplitter, type ThinkingTags } from '../thinking.ts';
import { JsonObjectScanner, parseJson, wholeCall } from './callJson.ts';
import { MarkedCallReader } from './markedCall.ts';
import { callFormOf, XmlCallReader } from './xmlCall.ts';

/** Parses one call, starting after its opening tag. */
export interface CallReader {
  push(text: string): CallProgress;
  /** The output ends here. */
  end(): CallProgress;
}

export interface CallProgress {
  /** Given once, before any arguments. */
  readonly name?: string;
  readonly arguments?: string;
  /** The call has ended; this text follows it. */
  readonly rest?: string;
  /** Not a call: its text, followed by `rest`. Nothing more may be pushed. */
  readonly broken?: string;
  /** With `rest`: it begins with the next call of a list. */
  readonly more?: true;
}

/** Separates calls from the text of an answer. */
export class ToolCallSplitter {
  readonly #syntax: ToolSyntax;
  readonly #tools: readonly Tool[];
  #held = '';
  #call: { readonly reader: CallReader; readonly index: number; name?: string } | undefined;
  #calls = 0;
  /** Whitespace between an answer and its calls, and between calls, is framing. */
  #blanks = '';
  #said = false;

  constructor(syntax: ToolSyntax, tools: readonly Tool[]) {
    this.#syntax = syntax;
    this.#tools = tools;
  }

  push(text: string): OutputPiece[] {
    this.#held += text;
    const pieces: OutputPiece[] = [];
    while (this.#held !== '' && this.#step(pieces)) {}
    return pieces;
  }

  end(): OutputPiece[] {
    const pieces: OutputPiece[] = [];
    if (this.#call) this.#follow(this.#call.reader.end(), pieces);
    const rest = this.#held;
    this.#held = '';
    return [...pieces, ...this.#show(rest), ...(this.#calls === 0 ? piece('text', this.#blanks) : [])];
  }

  /** Whether the state changed, so that the remaining text must be parsed again. */
  #step(pieces: OutputPiece[]): boolean {
    const held = this.#held;
    if (this.#call) {
      this.#held = '';
      this.#follow(this.#call.reader.push(held), pieces);
      // Text held back now comes after the call.
      return true;
    }
    const open = this.#findOpening(held);
    if (open === undefined) {
      const kept = this.#mayOpen(held);
      this.#held = held.slice(held.length - kept);
      pieces.push(...this.#show(held.slice(0, held.length - kept)));
      return false;
    }
    pieces.push(...this.#show(held.slice(0, open.at)));
    this.#held = held.slice(open.end);
    this.#call = { reader: this.#reader(open.open), index: this.#calls };
    return true;
  }

  #findOpening(text: string): { at: number; end: number; open: string } | undefined {
    const { open } = this.#syntax;
    if (open !== '') {
      const found = [open, ...this.#bareOpenings()].flatMap((mark) => {
        const at = text.indexOf(mark);
        if (at < 0) return [];
        return [mark === open ? { at, end: at + open.length, open } : { at, end: at, open: '' }];
      });
      return found.sort((a, b) => a.at - b.at)[0];
    }
    // A bare call is the whole answer.
    const at = text.length - text.trimStart().length;
    return !this.#said && text[at] === '{' ? { at, end: at, open } : undefined;
  }

  /** Calls between tags often lack their opening tag; the name of an offered tool identifies them. */
  #bareOpenings(): string[] {
    const form = callFormOf(this.#syntax.kind);
    return form ? this.#tools.flatMap(({ name }) => form.openings(name)) : [];
  }

  #mayOpen(text: string): number {
    const { open } = this.#syntax;
    return open === '' ? 0 : partialMatchLength(text, [open, ...this.#bareOpenings()]);
  }

  #reader(open: string): CallReader {
    const { close, kind } = this.#syntax;
    if (kind === 'named' || kind === 'listed') return new MarkedCallReader(open, this.#tools);
    const form = callFormOf(kind);
    return form ? new XmlCallReader(form, open, close, this.#tools) : new JsonCallReader(open, close, this.#tools);
  }

  #follow(progress: CallProgress, pieces: OutputPiece[]): void {
    const call = this.#call;
    if (!call) return;
    const { name, arguments: characters = '', rest, broken, more } = progress;
    if (name !== undefined) {
      call.name = name;
      this.#calls++;
      this.#blanks = '';
    }
    if (call.name !== undefined && (name !== undefined || characters !== '')) {
      pieces.push({ kind: 'tool-call', index: call.index, name: call.name, text: characters });
    }
    if (rest === undefined && broken === undefined) return;
    this.#call = more && { reader: new MarkedCallReader(',', this.#tools, true), index: this.#calls };
    if (broken !== undefined) pieces.push(...this.#show(broken));
    this.#held = (rest ?? '') + this.#held;
  }

  #show(text: string): OutputPiece[] {
    const all = this.#blanks + text;
    const shown = all.trimEnd();
    this.#blanks = all.slice(shown.length);
    if (shown === '') return [];
    const first = this.#calls > 0 && !this.#said ? shown.trimStart() : shown;
    this.#said = true;
    return piece('text', first);
  }
}

// The parser of output with thinking and calls as text between tags.

export class TaggedParser implements OutputParser {
  readonly #text: TokenTextStream;
  readonly #thinking: ThinkingSplitter;
  readonly #calls: ToolCallSplitter | undefined;

  constructor(tokenizer: Tokenizer, insideThinking: boolean, calls?: ToolCallSplitter, tags?: ThinkingTags) {
    this.#text = new TokenTextStream(tokenizer);
    this.#thinking = new ThinkingSplitter(insideThinking, tags);
    this.#calls = calls;
  }

  get isThinking(): boolean {
    return this.#thinking.isThinking;
  }

  push(id: number): OutputPiece[] {
    return this.#findCalls(this.#thinking.push(this.#text.push(id)));
  }

  end(): OutputPiece[] {
    const rest = [...this.#thinking.push(this.#text.end()), ...this.#thinking.end()];
    return [...this.#findCalls(rest), ...(this.#calls?.end() ?? [])];
  }

  #findCalls(pieces: OutputPiece[]): OutputPiece[] {
    const calls = this.#calls;
    if (!calls) return pieces;
    return pieces.flatMap((piece) => (piece.kind === 'text' ? calls.push(piece.text) : [piece]));
  }
}

// `{"name": "f", "arguments": {…}}`, as Hermes, Qwen and (with `parameters`) Llama 3 write a call.

const head = /^\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)/;

class JsonCallReader implements CallReader {
  readonly #open: string;
  readonly #close: string;
  readonly #tools: readonly Tool[];
  readonly #scanner = new JsonObjectScanner();
  #state: 'head' | 'arguments' | 'tail' = 'head';
  #text = '';
  /** Number of characters of `#text` that are parsed. */
  #at = 0;

  /**
   * @param close empty: the call ends with its JSON.
   * @param tools a call to any other tool becomes text.
   */
  constructor(open: string, close: string, tools: readonly Tool[]) {
    this.#open = open;
    this.#close = close;
    this.#tools = tools;
  }

  push(text: string): CallProgress {
    this.#text += text;
    const started = this.#state === 'head' ? this.#readHead() : {};
    if (started.broken !== undefined || started.rest !== undefined) return started;
    const read = this.#state === 'arguments' ? this.#readArguments() : {};
    const ended = this.#state === 'tail' && read.broken === undefined ? this.#readTail() : {};
    return { ...started, ...read, ...ended };
  }

  end(): CallProgress {
    if (this.#state === 'tail') return { rest: restOf(this.#text.slice(this.#at)) };
    if (this.#state === 'head') return this.#whole(this.#text, '') ?? { broken: this.#open + this.#text };
    // The output was cut off. Its pieces were already delivered, so they are not repeated as text.
    return { rest: '' };
  }

  #readHead(): CallProgress {
    const match = head.exec(this.#text);
    const name = nameOf(match?.[1]);
    const isOffered = this.#isOffered(name);
    const end = this.#close === '' ? -1 : this.#text.indexOf(this.#close);
    if (match && name !== undefined && isOffered && (end < 0 || end >= match[0].length)) {
      this.#state = 'arguments';
      this.#at = match[0].length;
      return { name };
    }
    if (this.#close === '') return mayBeBareCall(this.#text) && (!match || isOffered) ? {} : { broken: this.#text };
    // Other key orders are parsed once the object is complete.
    if (end < 0) return {};
    const after = this.#text.slice(end + this.#close.length);
    const broken = this.#open + this.#text.slice(0, end + this.#close.length);
    return this.#whole(this.#text.slice(0, end), after) ?? { broken, rest: after };
  }

  #whole(text: string, rest: string): CallProgress | undefined {
    const call = wholeCall(text, rest);
    return this.#isOffered(call?.name) ? call : undefined;
  }

  #isOffered(name: string | undefined): boolean {
    return this.#tools.some((tool) => tool.name === name);
  }

  #readArguments(): CallProgress {
    const start = this.#at;
    while (this.#at < this.#text.length) {
      const state = this.#scanner.push(this.#text.charAt(this.#at));
      if (state === 'invalid') {
        const broken = this.#open + this.#text.slice(0, this.#at);
        return { arguments: this.#text.slice(start, this.#at), broken, rest: this.#text.slice(this.#at) };
      }
      this.#at++;
      if (state === 'more') continue;
      this.#state = 'tail';
      break;
    }
    return { arguments: this.#text.slice(start, this.#at) };
  }

  #readTail(): CallProgress {
    const tail = this.#text.slice(this.#at).trimStart();
    if (tail === '') return {};
    const inner = tail.slice(1).trimStart();
    if (tail.startsWith('}')) {
      if (inner.startsWith(this.#close)) return { rest: inner.slice(this.#close.length) };
      if (this.#close.startsWith(inner)) return {};
    }
    // The call itself is complete; text in place of its closing tag is text.
    return { rest: restOf(tail) };
  }
}

function restOf(tail: string): string {
  return tail.replace(/^\s*\}/, '');
}

function mayBeBareCall(text: string): boolean {
  const dense = text.replace(/\s+/g, '');
  return '{"name":"'.startsWith(dense) || dense.startsWith('{"name":"');
}

function nameOf(json: string | undefined): string | undefined {
  const name = json === undefined ? undefined : parseJson(json);
  return typeof name === 'string' ? name : undefined;
}
