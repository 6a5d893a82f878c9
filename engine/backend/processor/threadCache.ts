/** The KV caches of a CPU backend's thread by sequence, their memory, and the handling of messages about caches. */
import { HearthError } from '../../errors.ts';
import {
  bytesOf,
  type CacheLayout,
  type CacheMessage,
  type FromThread,
  type LayerCacheSpec,
  type TokenRange,
} from './messages.ts';

export interface ThreadCache<Self> {
  /** Cached tokens. */
  length: number;
  arrange(layout: CacheLayout, length: number): void;
  /** Keeps the states of recurrent layers. Absent: the backend has no recurrent layers. */
  keepStates?(layout: CacheLayout): void;
  fork(): Self;
  dispose(): void;
  saved(layer: number, layout: CacheLayout): Uint8Array;
  restore(layer: number, layout: CacheLayout, bytes: Uint8Array): void;
}

export const done: FromThread = { kind: 'done', values: [] };

export class ThreadCaches<Cache extends ThreadCache<Cache>> {
  readonly #empty: () => Cache;
  readonly #caches = new Map<number, Cache>();

  /** @param empty makes the cache of a new sequence. */
  constructor(empty: () => Cache) {
    this.#empty = empty;
  }

  of(sequence: number): Cache {
    const cache = this.#caches.get(sequence);
    if (!cache) throw new Error(`Unknown sequence ${sequence}.`);
    return cache;
  }

  clear(): void {
    this.#caches.clear();
  }

  handle(message: Exclude<CacheMessage, { kind: 'run' | 'draw' | 'end' }>): FromThread | undefined {
    switch (message.kind) {
      case 'create':
        this.#caches.set(message.sequence, message.from === undefined ? this.#empty() : this.of(message.from).fork());
        return undefined;
      case 'change':
        this.of(message.sequence).arrange(message.layout, message.length);
        this.of(message.sequence).keepStates?.(message.layout);
        return undefined;
      case 'dispose':
        this.of(message.sequence).dispose();
        this.#caches.delete(message.sequence);
        return undefined;
      case 'save':
        return { kind: 'done', values: [], saved: this.of(message.sequence).saved(message.layer, message.layout) };
      case 'restore': {
        const cache = this.of(message.sequence);
        cache.restore(message.layer, message.layout, message.bytes);
        cache.length = message.length;
        return done;
      }
    }
  }

  /** @returns a function that restores the sequences' current lengths after a failed pass. */
  lengthsOf(slices: readonly { readonly sequence: number }[]): () => void {
    const before = slices.map(({ sequence }) => this.of(sequence).length);
    return () => {
      for (const [i, { sequence }] of slices.entries()) this.of(sequence).length = before[i] ?? 0;
    };
  }
}

/** @returns the answer that says why a message failed. */
export function failure(error: unknown): FromThread {
  const message = error instanceof Error ? error.message : String(error);
  return { kind: 'failed', message, ...(error instanceof HearthError && { code: error.code }) };
}

/** Buffers to transfer instead of copying. */
export function transferred(answer: FromThread): ArrayBuffer[] {
  if (answer.kind !== 'done') return [];
  const { values, saved } = answer;
  return [...values, ...(saved ? [saved] : [])].map(({ buffer }) => buffer as ArrayBuffer);
}

// The memory of one sequence's keys and values: for each layer ranges of consecutive tokens. The decoder decides which
// tokens they hold (kv/blocks.ts); each backend decides the memory layout of a range. Forks share a range until one
// writes.

/** Columns for the tokens from `first` on. */
export interface LayerRange<Own> extends TokenRange {
  /** Number of sequences that use this range. */
  refCount: number;
  /** Copies columns `[first, first + count)` of `source` to the beginning. */
  copy(source: Own, first: number, count: number): void;
  /** Writes the first `count` columns as bytes of a range of `columns`. */
  save(columns: number, count: number, bytes: Uint8Array): void;
}

/** @param saved bytes that `save` wrote, which the range may keep; absent: zeros. */
export type NewRange<Own> = (spec: LayerCacheSpec, range: TokenRange, saved?: Uint8Array) => Own;

export class LayerRanges<Own extends LayerRange<Own>> {
  length = 0;
  readonly #specs: readonly LayerCacheSpec[];
  readonly #newRange: NewRange<Own>;
  /** For each layer, ascending. Attention reads the last one. */
  readonly #layers: (readonly Own[])[];

  constructor(specs: readonly LayerCacheSpec[], newRange: NewRange<Own>) {
    this.#specs = specs;
    this.#newRange = newRange;
    this.#layers = specs.map(() => []);
  }

  fork(): LayerRanges<Own> {
    const fork = new LayerRanges(this.#specs, this.#newRange);
    for (const [layer, ranges] of this.#layers.entries()) fork.#replace(layer, ranges);
    fork.length = this.length;
    return fork;
  }

  dispose(): void {
    for (const layer of this.#layers.keys()) this.#replace(layer, []);
  }

  all(): Own[] {
    return this.#layers.flat();
  }

  /** The range that attention of a layer reads. */
  tail(layer: number): Own | undefined {
    return this.#ranges(layer).at(-1);
  }

  /**
   * Changes the ranges of each window group to these, copying tokens from the current ranges where they differ.
   * Truncates to `length`.
   */
  arrange(groups: CacheLayout, length: number): void {
    this.length = length;
    for (const [layer, spec] of this.#specs.entries()) {
      const ranges = (groups[spec.group] ?? []).map((range) => this.#placed(layer, spec, range));
      this.#replace(layer, ranges);
    }
  }

  #placed(layer: number, spec: LayerCacheSpec, wanted: TokenRange): Own {
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

  /** The range that the next tokens of a layer are written to; no other sequence reads it. */
  writable(layer: number): Own {
    const tail = this.tail(layer);
    if (!tail) throw new Error('The sequence was disposed.');
    if (tail.refCount === 1) return tail;
    const copy = this.#newRange(this.#spec(layer), tail);
    copy.copy(tail, 0, Math.max(0, Math.min(tail.columns, this.length - tail.first)));
    this.#replace(layer, [...this.#ranges(layer).slice(0, -1), copy]);
    return copy;
  }

  /** The given ranges of a layer, one after the other, as newly allocated memory, which may be transferred. */
  saved(layer: number, groups: CacheLayout): Uint8Array {
    const ranges = this.#pieces(layer, groups);
    const saved = new Uint8Array(ranges.at(-1)?.end ?? 0);
    for (const { range, start, end } of ranges) {
      const source = this.#ranges(layer).find(({ first }) => first === range.first);
      const count = Math.min(range.columns, this.length - range.first);
      source?.save(range.columns, count, saved.subarray(start, end));
    }
    return saved;
  }

  /** Takes ownership of the bytes that `saved` returned for these ranges. */
  restore(layer: number, groups: CacheLayout, bytes: Uint8Array): void {
    const spec = this.#spec(layer);
    const restored = this.#pieces(layer, groups).map(({ range, start, end }) =>
      this.#newRange(spec, range, bytes.subarray(start, end)),
    );
    this.#replace(layer, restored);
  }

  /** Offsets of a layer's ranges in the saved bytes. */
  #pieces(layer: number, groups: CacheLayout) {
    const spec = this.#spec(layer);
    let end = 0;
    return (groups[spec.group] ?? []).map((range) => {
      const start = end;
      end += bytesOf(spec) * range.columns;
      return { range, start, end };
    });
  }

  #replace(layer: number, ranges: readonly Own[]): void {
    for (const range of ranges) range.refCount++;
    for (const range of this.#ranges(layer)) range.refCount--;
    this.#layers[layer] = ranges;
  }

  #spec(layer: number): LayerCacheSpec {
    const spec = this.#specs[layer];
    if (!spec) throw new Error(`The model has no layer ${layer}.`);
    return spec;
  }

  #ranges(layer: number): readonly Own[] {
    return this.#layers[layer] ?? [];
  }
}
