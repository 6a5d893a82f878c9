/** Tool calls that are written as text: `<tool_call>{"name": …}</tool_call>` and similar forms. */

import { type Tokenizer, TokenTextStream } from '../../tokenizer/tokenizer.ts';
import { type OutputParser, type OutputPiece, piece, type Tool } from '../conversation.ts';
import type { ToolSyntax } from '../formats/toolSyntax.ts';
import { partialMatchLength } from '../stopStrings.ts';
import { ThinkingSplitter } from '../thinking.ts';
import { JsonCallReader } from './jsonCall.ts';
import { XmlCallReader } from './xmlCall.ts';

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
      return this.#call === undefined;
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

  /** XML calls often lack their opening tag; the name of an offered tool identifies them. */
  #bareOpenings(): string[] {
    return this.#syntax.kind === 'xml' ? this.#tools.map(({ name }) => `<function=${name}>`) : [];
  }

  #mayOpen(text: string): number {
    const { open } = this.#syntax;
    return open === '' ? 0 : partialMatchLength(text, [open, ...this.#bareOpenings()]);
  }

  #reader(open: string): CallReader {
    const { close, kind } = this.#syntax;
    return kind === 'xml' ? new XmlCallReader(open, close, this.#tools) : new JsonCallReader(open, close, this.#tools);
  }

  #follow(progress: CallProgress, pieces: OutputPiece[]): void {
    const call = this.#call;
    if (!call) return;
    const { name, arguments: characters = '', rest, broken } = progress;
    if (name !== undefined) {
      call.name = name;
      this.#calls++;
      this.#blanks = '';
    }
    if (call.name !== undefined && (name !== undefined || characters !== '')) {
      pieces.push({ kind: 'tool-call', index: call.index, name: call.name, text: characters });
    }
    if (rest === undefined && broken === undefined) return;
    this.#call = undefined;
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

  constructor(tokenizer: Tokenizer, insideThinking: boolean, calls?: ToolCallSplitter) {
    this.#text = new TokenTextStream(tokenizer);
    this.#thinking = new ThinkingSplitter(insideThinking);
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
