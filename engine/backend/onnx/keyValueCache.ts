/**
 * The KV cache of one sequence. A row holds one element of a head's keys or values for all tokens, so that the graph
 * reads it sequentially. Blocks are allocated with about an eighth of spare columns.
 */
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import { CachedRanges, columnsFor } from './cachedRanges.ts';
import { type CacheType, type GraphInputs, type LayerCacheSpec, rowsOf } from './graphInputs.ts';
import type { CachedRangesState, CacheState } from './messages.ts';

/** `[rows, columns]`: new tokens as returned by the graph, or a block of the cache. */
interface Columns {
  readonly values: CacheValues;
  readonly columns: number;
}

/** Keys, then values, of one layer: `[rows, columns]`. Forks share a block until one of them writes. */
class LayerBlock implements Columns {
  readonly values: CacheValues;
  readonly columns: number;
  readonly rows: number;
  readonly keys: Tensor;
  readonly cachedValues: Tensor;
  refCount = 1;

  constructor(spec: LayerCacheSpec, columns: number, values = newValues(spec.type, rowsOf(spec) * columns)) {
    const { keyValueHeads, keyDim, valueDim, valuesInKeys } = spec;
    const keyRows = keyValueHeads * keyDim;
    const firstValueRow = valuesInKeys ? 0 : keyRows;
    this.rows = rowsOf(spec);
    this.columns = columns;
    this.values = values;
    const tensor = (firstRow: number, dim: number) =>
      cacheTensor(this.values.subarray(firstRow * columns, (firstRow + keyValueHeads * dim) * columns), [
        keyValueHeads,
        1,
        dim,
        columns,
      ]);
    this.keys = tensor(0, keyDim);
    this.cachedValues = tensor(firstValueRow, valueDim);
  }

  /** Copies columns `[first, first + count)` of `source` to column `at` on. */
  copy(source: Columns, first: number, count: number, at: number): void {
    const { values, columns } = source;
    if (count === 1) {
      // Decode writes a single column: one value in every row of every layer.
      for (let from = first, to = at; to < this.values.length; from += columns, to += this.columns) {
        this.values[to] = values[from] as number;
      }
      return;
    }
    for (let row = 0; row < this.rows; row++) {
      const from = row * columns + first;
      this.values.set(values.subarray(from, from + count), row * this.columns + at);
    }
  }
}

export class KeyValueCache {
  readonly ranges: CachedRanges;
  readonly #inputs: GraphInputs;
  readonly #blocks: LayerBlock[];
  /** For each layer the checkpoints of its window at the lengths in `ranges.checkpoints`. */
  readonly #checkpoints: Map<number, LayerBlock>[];

  private constructor(
    inputs: GraphInputs,
    ranges: CachedRanges,
    blocks: LayerBlock[],
    checkpoints: Map<number, LayerBlock>[],
  ) {
    this.#inputs = inputs;
    this.ranges = ranges;
    this.#blocks = blocks;
    this.#checkpoints = checkpoints;
  }

  static empty(inputs: GraphInputs): KeyValueCache {
    return new KeyValueCache(
      inputs,
      new CachedRanges(inputs.windowGroups),
      inputs.layers.map((layer) => new LayerBlock(layer, columnsFor(0))),
      inputs.layers.map(() => new Map()),
    );
  }

  fork(): KeyValueCache {
    for (const block of this.owned()) block.refCount++;
    const checkpoints = this.#checkpoints.map((blocks) => new Map(blocks));
    return new KeyValueCache(this.#inputs, this.ranges.copy(), [...this.#blocks], checkpoints);
  }

  dispose(): void {
    for (const block of this.owned()) block.refCount--;
    this.#blocks.length = 0;
    this.#checkpoints.length = 0;
  }

  /** All blocks in use. A block restored from a checkpoint appears twice. */
  owned(): LayerBlock[] {
    return [...this.#blocks, ...this.#checkpoints.flatMap((blocks) => [...blocks.values()])];
  }

  setCheckpoints(lengths: readonly number[]): void {
    this.ranges.setCheckpoints(lengths);
    this.#freeCheckpoints();
  }

  truncate(length: number): void {
    const reached = this.ranges.reachable(length);
    for (const [layer, { group }] of this.#inputs.layers.entries()) {
      const checkpoint = this.#checkpoints[layer]?.get(reached);
      if (checkpoint && !this.ranges.covers(group, reached)) this.#replace(layer, checkpoint);
    }
    this.ranges.truncate(reached);
    this.#freeCheckpoints();
  }

  #replace(layer: number, block: LayerBlock): void {
    this.#layer(layer).block.refCount--;
    block.refCount++;
    this.#blocks[layer] = block;
  }

  /** Frees checkpoints at lengths that are no longer kept. */
  #freeCheckpoints(): void {
    for (const [layer, blocks] of this.#checkpoints.entries()) {
      const retained = this.ranges.checkpoints[this.#layer(layer).spec.group];
      for (const [length, block] of blocks) {
        if (retained?.includes(length)) continue;
        block.refCount--;
        blocks.delete(length);
      }
    }
  }

  /** Copies windows that `append` is about to drop. */
  #saveCheckpoints(layer: number, before: CachedRanges): void {
    const { spec, block } = this.#layer(layer);
    for (const length of this.ranges.checkpoints[spec.group] ?? []) {
      if (this.#checkpoints[layer]?.has(length)) continue;
      const tokens = before.windowTokens(spec.group, length);
      const checkpoint = new LayerBlock(spec, columnsFor(tokens));
      checkpoint.copy(block, length - tokens - before.start(spec.group), tokens, 0);
      this.#checkpoints[layer]?.set(length, checkpoint);
    }
  }

  /** Allocated columns of a window group's inputs. */
  columns(group: number): number {
    const layer = this.#inputs.layers.findIndex((spec) => spec.group === group);
    return this.#blocks[layer]?.columns ?? 0;
  }

  state(): CacheState {
    return { ...this.ranges.state(), columns: this.#inputs.windowGroups.map((_, group) => this.columns(group)) };
  }

  /** A layer's cached columns as a newly allocated block: `[rows, columns]`, spare columns included. */
  saved(layer: number): Uint8Array {
    const { spec, block } = this.#layer(layer);
    const cached = this.ranges.cachedTokens(spec.group);
    const saved = new LayerBlock(spec, columnsFor(cached));
    saved.copy(block, 0, cached, 0);
    return new Uint8Array(saved.values.buffer);
  }

  /** Takes ownership of the bytes that `saved` returned for a sequence of this state. */
  restore(layer: number, ranges: CachedRangesState, bytes: Uint8Array): void {
    const { spec, block } = this.#layer(layer);
    this.ranges.restore(ranges);
    const columns = columnsFor(this.ranges.cachedTokens(spec.group));
    block.refCount--;
    this.#blocks[layer] = new LayerBlock(spec, columns, valuesOf(spec.type, bytes));
  }

  #layer(index: number): { readonly spec: LayerCacheSpec; readonly block: LayerBlock } {
    const [spec, block] = [this.#inputs.layers[index], this.#blocks[index]];
    if (!spec || !block) throw new Error(`no cache for layer ${index}`);
    return { spec, block };
  }

  /** The cache as graph inputs. */
  feeds(): Record<string, Tensor> {
    const feeds: Record<string, Tensor> = {};
    for (const [layer, { keys, cachedValues }] of this.#blocks.entries()) {
      feeds[`keys.${layer}`] = keys;
      feeds[`values.${layer}`] = cachedValues;
    }
    return feeds;
  }

  /** `cached`: the graph's output, new keys and values of all layers `[rows, tokens]`. */
  append(cached: Output | undefined, tokens: number): void {
    const all = cacheValues(cached);
    const before = this.ranges.copy();
    this.ranges.append(tokens);
    let at = 0;
    for (const [layer, spec] of this.#inputs.layers.entries()) {
      this.#saveCheckpoints(layer, before);
      const values = all.subarray(at, at + rowsOf(spec) * tokens);
      this.#appendLayer(layer, { values, columns: tokens }, before);
      at += values.length;
    }
  }

  #appendLayer(layer: number, added: Columns, before: CachedRanges): void {
    const { spec, block } = this.#layer(layer);
    const cached = before.cachedTokens(spec.group);
    const oldTokens = Math.max(0, before.length - this.ranges.start(spec.group));
    const newTokens = Math.min(added.columns, this.ranges.cachedTokens(spec.group));
    let target = block;
    const fitsInPlace = block.refCount === 1 && oldTokens === cached && cached + newTokens <= block.columns;
    if (!fitsInPlace) {
      target = new LayerBlock(spec, columnsFor(oldTokens + newTokens));
      target.copy(block, cached - oldTokens, oldTokens, 0);
      block.refCount--;
      this.#blocks[layer] = target;
    }
    target.copy(added, added.columns - newTokens, newTokens, oldTokens);
  }
}

// Conversions between the runtime's tensors and typed arrays.

type Output = InferenceSession.ReturnType[string];

/** f32, or the bits of f16. */
type CacheValues = Float32Array | Uint16Array;

const newValues = (type: CacheType, count: number): CacheValues =>
  type === 'float16' ? new Uint16Array(count) : new Float32Array(count);

/** Views the bytes as values; copies only if they aren't aligned. */
function valuesOf(type: CacheType, bytes: Uint8Array): CacheValues {
  const size = type === 'float16' ? 2 : 4;
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  const count = byteLength / size;
  return type === 'float16' ? new Uint16Array(buffer, byteOffset, count) : new Float32Array(buffer, byteOffset, count);
}

export function cacheTensor(values: CacheValues, dims: readonly number[]): Tensor {
  if (values instanceof Float32Array) return new Tensor('float32', values, dims);
  // The binding (1.30) reads f16 only from a Uint16Array; where Float16Array exists, Tensor would convert to one.
  const tensor: Tensor = new Tensor('uint16', values, dims);
  Object.defineProperty(tensor, 'type', { value: 'float16' });
  return tensor;
}

/** The output's values. f16 arrives as a Float16Array where that exists, else as a Uint16Array. */
export function cacheValues(output: Output | undefined): CacheValues {
  if (output?.type !== 'float16') return floats(output);
  const { buffer, byteOffset, length } = output.data as unknown as Uint16Array;
  return new Uint16Array(buffer, byteOffset, length);
}

export function floats(output: Output | undefined): Float32Array {
  if (!(output?.data instanceof Float32Array)) throw new Error('The graph returned no f32 tensor.');
  return output.data;
}
