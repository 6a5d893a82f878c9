/** Keeps an answer from ending by itself before it has so many tokens. A grammar that applies meanwhile decides instead. */
import type { Steer } from './logitsProcessor.ts';

export class MinimumTokens implements Steer {
  readonly #mask: Int32Array;
  #left: number;

  constructor(minTokens: number, endIds: Iterable<number>, vocabularySize: number) {
    this.#left = minTokens;
    this.#mask = new Int32Array(Math.ceil(vocabularySize / 32)).fill(-1);
    for (const id of endIds) this.#mask[id >> 5] = (this.#mask[id >> 5] ?? 0) & ~(1 << (id & 31));
  }

  forced(): undefined {
    return undefined;
  }

  allowed(): Int32Array | undefined {
    return this.#left > 0 ? this.#mask : undefined;
  }

  take(): void {
    this.#left--;
  }
}
