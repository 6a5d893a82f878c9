/** Hidden states that enter the first layer, from the rows of an embedding that stays in the file. */
import type { DecoderSpec } from '../../model/spec/spec.ts';
import type { Weight } from '../../model/weights/weights.ts';
import { embed } from '../reference/forward.ts';

/** Most of a text's tokens occur in it more than once, and a read took 0.1 ms where a small model's token takes 3. */
const keptBytes = 4 * 2 ** 20;

type EmbeddingSpec = Pick<DecoderSpec, 'hiddenSize' | 'embeddingScale'>;

export class EmbeddingRows {
  readonly #spec: EmbeddingSpec;
  readonly #embedding: Weight;
  /** `[hidden]` by token, the least recently used first. */
  readonly #kept = new Map<number, Float32Array>();

  constructor(spec: EmbeddingSpec, embedding: Weight) {
    this.#spec = spec;
    this.#embedding = embedding;
  }

  /** `[tokens, hidden]` f32 */
  async of(tokens: readonly number[]): Promise<Float32Array> {
    const { hiddenSize } = this.#spec;
    const rows = new Map<number, Float32Array>();
    for (const token of tokens) {
      const row = this.#kept.get(token);
      if (row) rows.set(token, row);
    }
    const missing = [...new Set(tokens)].filter((token) => !rows.has(token));
    if (missing.length > 0) {
      const read = await embed(this.#spec, this.#embedding, missing);
      for (const [i, token] of missing.entries()) rows.set(token, read.slice(i * hiddenSize, (i + 1) * hiddenSize));
    }
    this.#keep(rows);
    const states = new Float32Array(tokens.length * hiddenSize);
    for (const [i, token] of tokens.entries()) states.set(rows.get(token) ?? [], i * hiddenSize);
    return states;
  }

  #keep(rows: ReadonlyMap<number, Float32Array>): void {
    for (const [token, row] of rows) {
      this.#kept.delete(token);
      this.#kept.set(token, row);
    }
    const most = Math.floor(keptBytes / (4 * this.#spec.hiddenSize));
    for (const token of this.#kept.keys()) {
      if (this.#kept.size <= most) break;
      this.#kept.delete(token);
    }
  }
}
