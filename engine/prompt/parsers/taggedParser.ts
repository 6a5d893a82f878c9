/** Reads output whose thinking and calls are text between tags. */

import type { Tokenizer } from '../../tokenizer/tokenizer.ts';
import { TokenTextStream } from '../../tokenizer/utf8Stream.ts';
import type { OutputParser, OutputPiece } from '../output.ts';
import { ThinkingSplitter } from '../thinking.ts';
import type { ToolCallSplitter } from './toolCallText.ts';

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
