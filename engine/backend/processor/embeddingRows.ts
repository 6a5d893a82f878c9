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
  readonly #recent: RecentRows;

  constructor(spec: EmbeddingSpec, embedding: Weight) {
    this.#spec = spec;
    this.#embedding = embedding;
    this.#recent = new RecentRows(spec.hiddenSize);
  }

  /** `[tokens, hidden]` f32 */
  async of(tokens: readonly number[]): Promise<Float32Array> {
    const { hiddenSize } = this.#spec;
    const rows = new Map<number, Float32Array>();
    for (const token of tokens) {
      const row = this.#recent.get(token);
      if (row) rows.set(token, row);
    }
    const missing = [...new Set(tokens)].filter((token) => !rows.has(token));
    if (missing.length > 0) {
      const read = await embed(this.#spec, this.#embedding, missing);
      for (const [i, token] of missing.entries()) rows.set(token, read.slice(i * hiddenSize, (i + 1) * hiddenSize));
    }
    for (const [token, row] of rows) this.#recent.keep(token, row);
    const states = new Float32Array(tokens.length * hiddenSize);
    for (const [i, token] of tokens.entries()) states.set(rows.get(token) ?? [], i * hiddenSize);
    return states;
  }
}

/** `[hidden]` by token, as many as fit `keptBytes`. */
export class RecentRows {
  readonly #most: number;
  /** The least recently used first. */
  readonly #rows = new Map<number, Float32Array>();

  constructor(hiddenSize: number) {
    this.#most = Math.floor(keptBytes / (4 * hiddenSize));
  }

  get(token: number): Float32Array | undefined {
    const row = this.#rows.get(token);
    if (row) this.keep(token, row);
    return row;
  }

  keep(token: number, row: Float32Array): void {
    this.#rows.delete(token);
    this.#rows.set(token, row);
    if (this.#rows.size <= this.#most) return;
    const [oldest] = this.#rows.keys();
    if (oldest !== undefined) this.#rows.delete(oldest);
  }
}
