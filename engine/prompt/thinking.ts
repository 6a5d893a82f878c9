/** Telling what a model thinks from what it answers, while it streams. */
import { type OutputPiece, piece } from './output.ts';
import { partialMatchLength } from './stopStrings.ts';

const open = '<think>';
const close = '</think>';

/**
 * Splits `<think>…</think>` from the answer after it. Thinking is only looked for where the output starts, so an
 * answer may talk about the tags. Blanks around both are dropped, as the templates put line feeds there.
 */
export class ThinkingSplitter {
  #state: 'start' | 'thinking' | 'thought' | 'text';
  /** Not yet decided; in `thinking`, blanks and what may become the closing tag. */
  #held = '';
  #begun = false;

  /** @param insideThinking the prompt ended with the opening tag. */
  constructor(insideThinking = false) {
    this.#state = insideThinking ? 'thinking' : 'start';
  }

  get isThinking(): boolean {
    return this.#state === 'thinking';
  }

  push(text: string): OutputPiece[] {
    this.#held += text;
    const pieces: OutputPiece[] = [];
    while (this.#step(pieces)) {}
    return pieces;
  }

  end(): OutputPiece[] {
    const rest = this.#held;
    this.#held = '';
    if (this.#state === 'thinking') return piece('thinking', rest.trimEnd());
    return this.#state === 'thought' ? [] : piece('text', rest);
  }

  /** Whether another state was reached, which has to look at what is left. */
  #step(pieces: OutputPiece[]): boolean {
    switch (this.#state) {
      case 'start':
        return this.#start();
      case 'thinking':
        return this.#think(pieces);
      case 'thought':
        return this.#skipBlanks();
      case 'text':
        pieces.push(...piece('text', this.#held));
        this.#held = '';
        return false;
    }
  }

  #start(): boolean {
    const begin = this.#held.trimStart();
    if (begin.startsWith(open)) {
      this.#held = begin.slice(open.length);
      this.#state = 'thinking';
      return true;
    }
    if (open.startsWith(begin)) return false;
    this.#state = 'text';
    return true;
  }

  #think(pieces: OutputPiece[]): boolean {
    if (!this.#begun) this.#held = this.#held.trimStart();
    this.#begun ||= this.#held !== '';
    const end = this.#held.indexOf(close);
    const held = this.#held;
    const shown = end >= 0 ? held.slice(0, end) : held.slice(0, held.length - partialMatchLength(held, [close]));
    pieces.push(...piece('thinking', shown.trimEnd()));
    this.#held = end >= 0 ? held.slice(end + close.length) : held.slice(shown.trimEnd().length);
    if (end >= 0) this.#state = 'thought';
    return end >= 0;
  }

  #skipBlanks(): boolean {
    this.#held = this.#held.trimStart();
    if (this.#held === '') return false;
    this.#state = 'text';
    return true;
  }
}
