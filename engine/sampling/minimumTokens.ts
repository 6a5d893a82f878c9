/** Keeps an answer from ending by itself before it has so many tokens. A grammar, or a plan that forbids something, decides instead. */
import { free, type LogitsProcessor, type NextTokens } from './logitsProcessor.ts';

export class MinimumTokens implements LogitsProcessor {
  readonly #endIds: readonly number[];
  #left: number;

  constructor(minTokens: number, endIds: Iterable<number>) {
    this.#left = minTokens;
    this.#endIds = [...endIds];
  }

  next(): NextTokens {
    return this.#left > 0 ? { kind: 'free', tokens: this.#left, forbidden: this.#endIds } : free;
  }

  take(): void {
    this.#left--;
  }
}
