/** How keys and values of a range lie in memory for ggml's kernels: a row a token, keys before values. */
import type { LayerRange, LayerRanges, NewRange } from '../processor/layerRanges.ts';
import { bytesOf, type LayerCacheSpec, type TokenRange } from '../processor/messages.ts';

export type SequenceCache = LayerRanges<GgmlRange>;

/** ggml asks for buffers at multiples of this. */
const alignment = 64;

/** Zeroed memory at an aligned address, for `addressOf`. */
function alignedMemory(byteLength: number, addressOf: (bytes: Uint8Array) => bigint): Uint8Array {
  const bytes = new Uint8Array(byteLength + alignment);
  const beyond = Number(addressOf(bytes) % BigInt(alignment));
  return bytes.subarray(alignment - beyond, alignment - beyond + byteLength);
}

/** Keys `[columns, kvHeads · keyDim]`, then values `[columns, kvHeads · valueDim]`; the first row is of token `first`. */
export class GgmlRange implements LayerRange<GgmlRange> {
  readonly first: number;
  readonly columns: number;
  readonly keys: Uint8Array;
  readonly values: Uint8Array;
  refCount = 0;
  readonly #spec: LayerCacheSpec;

  constructor(spec: LayerCacheSpec, { first, columns }: TokenRange, memory: Uint8Array) {
    this.#spec = spec;
    this.first = first;
    this.columns = columns;
    const keyBytes = columns * keyRowBytes(spec);
    this.keys = memory.subarray(0, keyBytes);
    this.values = memory.subarray(keyBytes);
  }

  copy(source: GgmlRange, first: number, count: number): void {
    for (const [own, others] of [
      [this.keys, source.keys],
      [this.values, source.values],
    ] as const) {
      const [rowBytes, sourceRowBytes] = [own.byteLength / this.columns, others.byteLength / source.columns];
      own.set(others.subarray(first * sourceRowBytes, (first + count) * rowBytes));
    }
  }

  save(columns: number, count: number, bytes: Uint8Array): void {
    new GgmlRange(this.#spec, { first: this.first, columns }, bytes).copy(this, 0, count);
  }
}

export const keyRowBytes = ({ type, keyValueHeads, keyDim }: LayerCacheSpec): number =>
  keyValueHeads * keyDim * (type === 'float16' ? 2 : 4);

export const newGgmlRange =
  (addressOf: (bytes: Uint8Array) => bigint): NewRange<GgmlRange> =>
  (spec, range, saved) => {
    const made = new GgmlRange(spec, range, alignedMemory(bytesOf(spec) * range.columns, addressOf));
    if (saved) made.copy(new GgmlRange(spec, range, saved), 0, range.columns);
    return made;
  };
