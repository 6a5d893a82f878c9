/**
 * The memory of one sequence's keys and values, on the thread: for each layer ranges of consecutive tokens, a row a token, keys before
 * values. Which tokens they hold is decided by the decoder (kv/blocks.ts). Forks share a range until one writes.
 */
import {
  bytesOf,
  type CacheLayout,
  type LayerCacheSpec,
  type TokenRange,
  type WindowGroup,
} from '../processor/messages.ts';

/** ggml asks for buffers at multiples of this. */
const alignment = 64;

/** Zeroed memory at an aligned address, for `addressOf`. */
function alignedMemory(byteLength: number, addressOf: (bytes: Uint8Array) => bigint): Uint8Array {
  const bytes = new Uint8Array(byteLength + alignment);
  const beyond = Number(addressOf(bytes) % BigInt(alignment));
  return bytes.subarray(alignment - beyond, alignment - beyond + byteLength);
}

/** Keys `[columns, kvHeads · keyDim]`, then values `[columns, kvHeads · valueDim]`; the first row is of token `first`. */
export class LayerRange {
  readonly first: number;
  readonly columns: number;
  readonly keys: Uint8Array;
  readonly values: Uint8Array;
  refCount = 0;

  constructor(spec: LayerCacheSpec, { first, columns }: TokenRange, memory: Uint8Array) {
    this.first = first;
    this.columns = columns;
    const keyBytes = columns * keyRowBytes(spec);
    this.keys = memory.subarray(0, keyBytes);
    this.values = memory.subarray(keyBytes);
  }

  /** Copies the rows of `count` tokens of `source`, from its `first` one on, to the beginning. */
  copy(source: LayerRange, first: number, count: number): void {
    for (const [own, others] of [
      [this.keys, source.keys],
      [this.values, source.values],
    ] as const) {
      const [rowBytes, sourceRowBytes] = [own.byteLength / this.columns, others.byteLength / source.columns];
      own.set(others.subarray(first * sourceRowBytes, (first + count) * rowBytes));
    }
  }
}

export const keyRowBytes = ({ type, keyValueHeads, keyDim }: LayerCacheSpec): number =>
  keyValueHeads * keyDim * (type === 'float16' ? 2 : 4);

export interface CacheShape {
  readonly windowGroups: readonly WindowGroup[];
  readonly layers: readonly LayerCacheSpec[];
  readonly addressOf: (bytes: Uint8Array) => bigint;
}

export class SequenceCache {
  length = 0;
  readonly #shape: CacheShape;
  /** For each layer, ascending. Attention reads the last one. */
  readonly #layers: (readonly LayerRange[])[];

  constructor(shape: CacheShape) {
    this.#shape = shape;
    this.#layers = shape.layers.map(() => []);
  }

  fork(): SequenceCache {
    const fork = new SequenceCache(this.#shape);
    for (const [layer, ranges] of this.#layers.entries()) fork.#replace(layer, ranges);
    fork.length = this.length;
    return fork;
  }

  dispose(): void {
    for (const layer of this.#layers.keys()) this.#replace(layer, []);
  }

  /** Holds these ranges of each window group, copied from the ones at hand where they differ. Cuts at `length`. */
  arrange(groups: CacheLayout, length: number): void {
    this.length = length;
    for (const [layer, spec] of this.#shape.layers.entries()) {
      const ranges = (groups[spec.group] ?? []).map((range) => this.#placed(layer, spec, range));
      this.#replace(layer, ranges);
    }
  }

  #placed(layer: number, spec: LayerCacheSpec, wanted: TokenRange): LayerRange {
    const { first, columns } = wanted;
    const source = this.#ranges(layer).find((range) => range.first <= first && first < range.first + range.columns);
    if (source?.first === first && source.columns === columns) return source;
    const placed = this.#newRange(spec, wanted);
    if (source) {
      const from = first - source.first;
      placed.copy(source, from, Math.max(0, Math.min(columns, source.columns - from, this.length - first)));
    }
    return placed;
  }

  #newRange(spec: LayerCacheSpec, range: TokenRange): LayerRange {
    return new LayerRange(spec, range, alignedMemory(bytesOf(spec) * range.columns, this.#shape.addressOf));
  }

  /** The range that the next tokens of a layer are written to and attend to; no other sequence reads it. */
  writable(layer: number): LayerRange {
    const ranges = this.#ranges(layer);
    const tail = ranges.at(-1);
    const spec = this.#shape.layers[layer];
    if (!tail || !spec) throw new Error('The sequence was disposed.');
    if (tail.refCount === 1) return tail;
    const copy = this.#newRange(spec, tail);
    copy.copy(tail, 0, Math.max(0, Math.min(tail.columns, this.length - tail.first)));
    this.#replace(layer, [...ranges.slice(0, -1), copy]);
    return copy;
  }

  /** The given ranges of a layer, one after the other, as newly allocated memory. */
  saved(layer: number, groups: CacheLayout): Uint8Array {
    const spec = this.#spec(layer);
    const ranges = groups[spec.group] ?? [];
    const saved = new Uint8Array(bytesOf(spec) * ranges.reduce((sum, { columns }) => sum + columns, 0));
    let at = 0;
    for (const range of ranges) {
      const piece = saved.subarray(at, at + bytesOf(spec) * range.columns);
      const source = this.#ranges(layer).find(({ first }) => first === range.first);
      const count = Math.min(range.columns, this.length - range.first);
      if (source) new LayerRange(spec, range, piece).copy(source, 0, count);
      at += piece.byteLength;
    }
    return saved;
  }

  /** Takes the bytes that `saved` returned for these ranges. */
  restore(layer: number, groups: CacheLayout, bytes: Uint8Array): void {
    const spec = this.#spec(layer);
    let at = 0;
    const ranges = (groups[spec.group] ?? []).map((range) => {
      const piece = bytes.subarray(at, at + range.columns * bytesOf(spec));
      at += piece.byteLength;
      const restored = this.#newRange(spec, range);
      restored.copy(new LayerRange(spec, range, piece), 0, range.columns);
      return restored;
    });
    this.#replace(layer, ranges);
  }

  #replace(layer: number, ranges: readonly LayerRange[]): void {
    for (const range of ranges) range.refCount++;
    for (const range of this.#ranges(layer)) range.refCount--;
    this.#layers[layer] = ranges;
  }

  #spec(layer: number): LayerCacheSpec {
    const spec = this.#shape.layers[layer];
    if (!spec) throw new Error(`The model has no layer ${layer}.`);
    return spec;
  }

  #ranges(layer: number): readonly LayerRange[] {
    return this.#layers[layer] ?? [];
  }
}
