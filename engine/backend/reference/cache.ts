/** What a sequence remembers: for every layer the keys and values of its tokens, in f32. */

import type { AttentionSpec, DecoderSpec } from '../../model/spec.ts';
import type { Sequence } from '../backend.ts';

/** One row a token; grows by doubling. */
export class TokenRows {
  readonly width: number;
  values: Float32Array;

  constructor(width: number, values = new Float32Array(0)) {
    this.width = width;
    this.values = values;
  }

  /** Writes whole rows from token `start` on. */
  write(start: number, rows: Float32Array): void {
    const end = start * this.width + rows.length;
    if (end > this.values.length) {
      const grown = new Float32Array(Math.max(end, 2 * this.values.length));
      grown.set(this.values);
      this.values = grown;
    }
    this.values.set(rows, start * this.width);
  }

  copy(tokens: number): TokenRows {
    return new TokenRows(this.width, this.values.slice(0, tokens * this.width));
  }
}

/**
 * Grouped-query attention: rotated keys `[tokens, kvHeads, headDim]` and values alike. Latent attention: the one rotated key
 * `[tokens, ropeHeadDim]`, and as its values the normalised latents `[tokens, keyValueRank]`.
 */
export interface LayerCache {
  readonly keys: TokenRows;
  readonly values: TokenRows;
}

function emptyCache(attention: AttentionSpec): LayerCache {
  if (attention.kind === 'latent') {
    return { keys: new TokenRows(attention.ropeHeadDim), values: new TokenRows(attention.keyValueRank) };
  }
  const width = attention.numKeyValueHeads * attention.headDim;
  return { keys: new TokenRows(width), values: new TokenRows(width) };
}

export class ReferenceSequence implements Sequence {
  readonly layers: readonly LayerCache[];
  readonly owner: Set<ReferenceSequence>;
  length: number;

  /** `owner`: the live sequences of the decoder that made this one. */
  constructor(owner: Set<ReferenceSequence>, layers: readonly LayerCache[], length: number) {
    this.owner = owner;
    this.layers = layers;
    this.length = length;
    owner.add(this);
  }

  static empty(owner: Set<ReferenceSequence>, spec: DecoderSpec): ReferenceSequence {
    return new ReferenceSequence(
      owner,
      spec.layers.map((layer) => emptyCache(layer.attention)),
      0,
    );
  }

  /** Every key is kept, outside the window too, so any length can be gone back to. */
  truncate(length: number): number {
    if (!Number.isInteger(length) || length < 0) throw new RangeError(`a sequence cannot have ${length} tokens`);
    this.length = Math.min(this.length, length);
    return this.length;
  }

  fork(): ReferenceSequence {
    const layers = this.layers.map(({ keys, values }) => ({
      keys: keys.copy(this.length),
      values: values.copy(this.length),
    }));
    return new ReferenceSequence(this.owner, layers, this.length);
  }

  dispose(): void {
    this.owner.delete(this);
  }

  /** Keys, then values, of every layer. `[tokens, width]` each */
  get rows(): TokenRows[] {
    return this.layers.flatMap(({ keys, values }) => [keys, values]);
  }

  get bytes(): number {
    return this.layers.reduce((sum, { keys, values }) => sum + keys.values.byteLength + values.values.byteLength, 0);
  }
}
