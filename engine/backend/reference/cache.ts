/** The KV cache of a sequence: keys and values of every layer in f32, rounded to `q8` or f16 if that precision is chosen. */
import { float16Bits, float16Values, roundToEven } from '../../formats/tensor.ts';
import {
  checkShape,
  piecesFor,
  type Sequence,
  type SequenceSerializer,
  type SequenceShape,
} from '../../kv/blockCache.ts';
import { type AttentionSpec, cacheRowOf, convolutionChannels, type DecoderSpec } from '../../model/spec/spec.ts';
import type { CachePrecision } from '../../protocol/models.ts';
import type { Decoder } from '../backend.ts';

/** One row a token. Grows by doubling. */
export class TokenRows {
  readonly width: number;
  values: Float32Array;
  readonly #round: (rows: Float32Array) => Float32Array;

  constructor(width: number, values = new Float32Array(0), round = (rows: Float32Array) => rows) {
    this.width = width;
    this.values = values;
    this.#round = round;
  }

  /** Writes whole rows from token `start` on. `rows`: `[tokens, width]` f32 */
  write(start: number, rows: Float32Array): void {
    const end = start * this.width + rows.length;
    if (end > this.values.length) {
      const grown = new Float32Array(Math.max(end, 2 * this.values.length));
      grown.set(this.values);
      this.values = grown;
    }
    this.values.set(this.#round(rows), start * this.width);
  }

  copy(tokens: number): TokenRows {
    return new TokenRows(this.width, this.values.slice(0, tokens * this.width), this.#round);
  }
}

const roundHalves = (values: Float32Array): Float32Array =>
  values.map((value) => float16Values[float16Bits(value)] ?? Number.NaN);

/** Rounds each value to a multiple of its block's largest magnitude / 127, in f32 as a GPU computes it. */
export function roundBlocks(values: Float32Array, block: number): Float32Array {
  const rounded = new Float32Array(values.length);
  for (let start = 0; start < values.length; start += block) {
    const own = values.subarray(start, start + block);
    const largest = own.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const up = largest > 1e-30 ? Math.fround(127 / largest) : 0;
    const scale = Math.fround(largest / 127);
    for (const [i, value] of own.entries()) rounded[start + i] = roundToEven(Math.fround(value * up)) * scale;
  }
  return rounded;
}

/**
 * Grouped-query attention: keys after RoPE `[tokens, kvHeads, headDim]` and values likewise. Latent attention: as keys
 * the shared rotated key `[tokens, ropeHeadDim]`, as values the normalised latents `[tokens, keyValueRank]`. Gated delta
 * net: as keys the convolution's inputs `[tokens, channels]`, as values beta and decay `[tokens, 2 · valueHeads]`, so that its
 * state can be computed at any length. Never rounded.
 */
export interface LayerCache {
  readonly keys: TokenRows;
  readonly values: TokenRows;
  /** The state of a gated delta net after some tokens, so that it need not be recomputed from the first token. */
  state?: DeltaState;
}

export interface DeltaState {
  readonly length: number;
  /** `[valueHeads, keyHeadDim, valueHeadDim]` */
  readonly values: Float64Array;
}

function emptyCache(attention: AttentionSpec, precision: CachePrecision): LayerCache {
  if (attention.kind === 'gated-delta') {
    return {
      keys: new TokenRows(convolutionChannels(attention)),
      values: new TokenRows(2 * attention.numValueHeads),
    };
  }
  const { block } = cacheRowOf(attention);
  const round = {
    f32: undefined,
    f16: roundHalves,
    q8: (values: Float32Array) => roundBlocks(values, block),
  }[precision];
  const rows = (width: number) => new TokenRows(width, undefined, round);
  if (attention.kind === 'latent') return { keys: rows(attention.ropeHeadDim), values: rows(attention.keyValueRank) };
  const width = attention.numKeyValueHeads * attention.headDim;
  return { keys: rows(width), values: rows(width) };
}

export class ReferenceSequence implements Sequence {
  readonly layers: readonly LayerCache[];
  readonly owner: Set<ReferenceSequence>;
  length: number;

  /** `owner`: the live sequences of the decoder. */
  constructor(owner: Set<ReferenceSequence>, layers: readonly LayerCache[], length: number) {
    this.owner = owner;
    this.layers = layers;
    this.length = length;
    owner.add(this);
  }

  static empty(owner: Set<ReferenceSequence>, spec: DecoderSpec, precision: CachePrecision = 'f32'): ReferenceSequence {
    return new ReferenceSequence(
      owner,
      spec.layers.map((layer) => emptyCache(layer.attention, precision)),
      0,
    );
  }

  /** Can truncate to any length: keys outside a sliding window stay cached too. */
  truncate(length: number): number {
    if (!Number.isInteger(length) || length < 0) throw new RangeError(`A sequence can't have ${length} tokens.`);
    this.length = this.reachable(length);
    return this.length;
  }

  reachable(length: number): number {
    return Math.min(this.length, length);
  }

  setCheckpoints(): void {}

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

  /** Keys, then values, of every layer: `[tokens, width]` each */
  get rows(): TokenRows[] {
    return this.layers.flatMap(({ keys, values }) => [keys, values]);
  }

  get bytes(): number {
    return this.layers.reduce((sum, { keys, values }) => sum + keys.values.byteLength + values.values.byteLength, 0);
  }
}

// Export and import: for every layer the keys, then the values, `[tokens, width]` f32.

export class ReferenceSerializer implements SequenceSerializer {
  readonly format: string;
  readonly #decoder: Pick<Decoder, 'contextTokens' | 'createSequence'>;
  readonly #canAllocate: (tokens: number) => boolean;

  constructor(
    decoder: Pick<Decoder, 'contextTokens' | 'createSequence'>,
    format: string,
    canAllocate: (tokens: number) => boolean,
  ) {
    this.format = format;
    this.#decoder = decoder;
    this.#canAllocate = canAllocate;
  }

  shapeOf({ length }: Sequence): SequenceShape {
    return { tokens: length, ranges: [[0, length]] };
  }

  pieceBytes(shape: SequenceShape): number[] {
    checkShape(shape, this.#decoder.contextTokens, [undefined]);
    const empty = this.#create();
    empty.dispose();
    return empty.rows.map(({ width }) => 4 * width * shape.tokens);
  }

  async *save(sequence: Sequence): AsyncGenerator<Uint8Array> {
    if (!(sequence instanceof ReferenceSequence)) throw new Error('The sequence belongs to another decoder.');
    for (const { values, width } of sequence.rows) {
      yield new Uint8Array(values.buffer, values.byteOffset, 4 * width * sequence.length);
    }
  }

  canAllocate({ tokens }: SequenceShape): boolean {
    return this.#canAllocate(tokens);
  }

  async restore(shape: SequenceShape, pieces: AsyncIterable<Uint8Array>): Promise<Sequence> {
    const sizes = this.pieceBytes(shape);
    const sequence = this.#create();
    try {
      for await (const [index, piece] of piecesFor(sizes, pieces)) sequence.rows[index]?.write(0, floatsOf(piece));
      sequence.length = shape.tokens;
      return sequence;
    } catch (error) {
      sequence.dispose();
      throw error;
    }
  }

  #create(): ReferenceSequence {
    const sequence = this.#decoder.createSequence();
    if (!(sequence instanceof ReferenceSequence)) throw new Error('The decoder belongs to another backend.');
    return sequence;
  }
}

/** Views the bytes as f32; copies only if they aren't 4-byte aligned. */
function floatsOf(bytes: Uint8Array): Float32Array {
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  return new Float32Array(buffer, byteOffset, byteLength / 4);
}
