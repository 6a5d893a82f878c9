/** A text that may not be written, however it is cut into tokens. */
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

/** By vocabulary: the search goes through all of it. */
const found = new WeakMap<Tokenizer, Map<string, readonly number[]>>();

export class ForbiddenText {
  readonly #tokenizer: Tokenizer;
  readonly #text: string;
  /** By the lengths of the text's beginnings that stand before. */
  readonly #completing = new Map<string, readonly number[]>();

  /** @param text ASCII, at least two characters */
  constructor(tokenizer: Tokenizer, text: string) {
    this.#tokenizer = tokenizer;
    this.#text = text;
  }

  /** Tokens with which the text would stand at the end of `before` or in the token itself; the same array for the same tokens. */
  completing(before: string): readonly number[] {
    const begun = Array.from({ length: this.#text.length - 1 }, (_, i) => i + 1).filter((length) =>
      before.endsWith(this.#text.slice(0, length)),
    );
    const known = this.#completing.get(begun.join());
    if (known) return known;
    const ids = [
      ...this.#holding('within', this.#text),
      ...begun.flatMap((length) => this.#holding('first', this.#text.slice(length))),
    ];
    this.#completing.set(begun.join(), ids);
    return ids;
  }

  #holding(where: 'within' | 'first', text: string): readonly number[] {
    const known = found.get(this.#tokenizer) ?? new Map<string, readonly number[]>();
    found.set(this.#tokenizer, known);
    const key = `${where} ${text}`;
    const ids = known.get(key) ?? this.#search(where, Buffer.from(text));
    known.set(key, ids);
    return ids;
  }

  #search(where: 'within' | 'first', text: Buffer): number[] {
    const ids: number[] = [];
    for (let id = 0; id < this.#tokenizer.vocabularySize; id++) {
      const { buffer, byteOffset, byteLength } = this.#tokenizer.bytesOf(id);
      if (byteLength < text.length) continue;
      const at = Buffer.from(buffer, byteOffset, byteLength).indexOf(text);
      if (where === 'within' ? at >= 0 : at === 0) ids.push(id);
    }
    return ids;
  }
}
