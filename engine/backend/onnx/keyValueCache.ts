/**
 * Keys and values of one sequence. A row holds one value of a head for all tokens, so that the graph reads it in order;
 * rows have room for some more tokens than they hold, and grow by about an eighth.
 */
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import { CacheExtent, roomFor } from './cacheExtent.ts';
import { type CacheType, type LayerCachePlan, type RunPlan, rowsOf } from './layerPlan.ts';
import type { CacheState, ExtentState } from './messages.ts';

/** `[rows, columns]`: new tokens as the graph returns them, or a block of a cache. */
interface Columns {
  readonly values: CacheValues;
  readonly columns: number;
}

/** Keys, then values, of one layer: `[rows, room]`. Forked sequences share it until one of them writes. */
class LayerBlock implements Columns {
  readonly values: CacheValues;
  readonly columns: number;
  readonly rows: number;
  readonly keys: Tensor;
  readonly cachedValues: Tensor;
  owners = 1;

  constructor(plan: LayerCachePlan, room: number, values = newValues(plan.type, rowsOf(plan) * room)) {
    const { keyValueHeads, keyDim, valueDim, valuesInKeys } = plan;
    const keyRows = keyValueHeads * keyDim;
    const firstValueRow = valuesInKeys ? 0 : keyRows;
    this.rows = rowsOf(plan);
    this.columns = room;
    this.values = values;
    const tensor = (firstRow: number, dim: number) =>
      cacheTensor(this.values.subarray(firstRow * room, (firstRow + keyValueHeads * dim) * room), [
        keyValueHeads,
        1,
        dim,
        room,
      ]);
    this.keys = tensor(0, keyDim);
    this.cachedValues = tensor(firstValueRow, valueDim);
  }

  /** Columns `[first, first + count)` of `source` from column `at` on. */
  copy(source: Columns, first: number, count: number, at: number): void {
    const { values, columns } = source;
    if (count === 1) {
      // A decode step writes one value in every row of every layer.
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
  readonly extent: CacheExtent;
  readonly #plan: RunPlan;
  readonly #blocks: LayerBlock[];
  /** For each layer what its window sees from the lengths that `extent.kept` names. */
  readonly #kept: Map<number, LayerBlock>[];

  private constructor(plan: RunPlan, extent: CacheExtent, blocks: LayerBlock[], kept: Map<number, LayerBlock>[]) {
    this.#plan = plan;
    this.extent = extent;
    this.#blocks = blocks;
    this.#kept = kept;
  }

  static empty(plan: RunPlan): KeyValueCache {
    return new KeyValueCache(
      plan,
      new CacheExtent(plan.spans),
      plan.layers.map((layer) => new LayerBlock(layer, roomFor(0))),
      plan.layers.map(() => new Map()),
    );
  }

  fork(): KeyValueCache {
    for (const block of this.owned()) block.owners++;
    const kept = this.#kept.map((blocks) => new Map(blocks));
    return new KeyValueCache(this.#plan, this.extent.copy(), [...this.#blocks], kept);
  }

  dispose(): void {
    for (const block of this.owned()) block.owners--;
    this.#blocks.length = 0;
    this.#kept.length = 0;
  }

  /** A block that goes on from one kept aside is named twice. */
  owned(): LayerBlock[] {
    return [...this.#blocks, ...this.#kept.flatMap((blocks) => [...blocks.values()])];
  }

  mark(lengths: readonly number[]): void {
    this.extent.mark(lengths);
    this.#forget();
  }

  truncate(length: number): void {
    const reached = this.extent.reachable(length);
    for (const [layer, { span }] of this.#plan.layers.entries()) {
      const aside = this.#kept[layer]?.get(reached);
      if (aside && !this.extent.holds(span, reached)) this.#replace(layer, aside);
    }
    this.extent.truncate(reached);
    this.#forget();
  }

  #replace(layer: number, block: LayerBlock): void {
    this.#layer(layer).block.owners--;
    block.owners++;
    this.#blocks[layer] = block;
  }

  /** Lets go of the windows that the extent no longer names. */
  #forget(): void {
    for (const [layer, blocks] of this.#kept.entries()) {
      const named = this.extent.kept[this.#layer(layer).plan.span];
      for (const [length, block] of blocks) {
        if (named?.includes(length)) continue;
        block.owners--;
        blocks.delete(length);
      }
    }
  }

  /** Copies what the window sees from lengths that `append` is about to let go. */
  #keep(layer: number, before: CacheExtent): void {
    const { plan, block } = this.#layer(layer);
    for (const length of this.extent.kept[plan.span] ?? []) {
      if (this.#kept[layer]?.has(length)) continue;
      const seen = before.seen(plan.span, length);
      const aside = new LayerBlock(plan, roomFor(seen));
      aside.copy(block, length - seen - before.start(plan.span), seen, 0);
      this.#kept[layer]?.set(length, aside);
    }
  }

  /** Columns of the inputs of a span: the tokens held and the room beyond them. */
  room(span: number): number {
    const layer = this.#plan.layers.findIndex((plan) => plan.span === span);
    return this.#blocks[layer]?.columns ?? 0;
  }

  state(): CacheState {
    return { ...this.extent.state(), columns: this.#plan.spans.map((_, span) => this.room(span)) };
  }

  /** What a layer holds, as a block of its own: `[rows, room]`. */
  saved(layer: number): Uint8Array {
    const { plan, block } = this.#layer(layer);
    const held = this.extent.held(plan.span);
    const saved = new LayerBlock(plan, roomFor(held));
    saved.copy(block, 0, held, 0);
    return new Uint8Array(saved.values.buffer);
  }

  /** Takes the memory of what `saved` gave of a sequence of this extent as its block. */
  restore(layer: number, extent: ExtentState, bytes: Uint8Array): void {
    const { plan, block } = this.#layer(layer);
    this.extent.restore(extent);
    const room = roomFor(this.extent.held(plan.span));
    block.owners--;
    this.#blocks[layer] = new LayerBlock(plan, room, valuesOf(plan.type, bytes));
  }

  #layer(index: number): { readonly plan: LayerCachePlan; readonly block: LayerBlock } {
    const [plan, block] = [this.#plan.layers[index], this.#blocks[index]];
    if (!plan || !block) throw new Error(`no cache for layer ${index}`);
    return { plan, block };
  }

  /** Inputs of the graph. */
  feeds(): Record<string, Tensor> {
    const feeds: Record<string, Tensor> = {};
    for (const [layer, { keys, cachedValues }] of this.#blocks.entries()) {
      feeds[`keys.${layer}`] = keys;
      feeds[`values.${layer}`] = cachedValues;
    }
    return feeds;
  }

  /** `cached`: the graph's output, keys and values of every layer one below the other. `[rows, tokens]` */
  append(cached: Output | undefined, tokens: number): void {
    const all = cacheValues(cached);
    const before = this.extent.copy();
    this.extent.append(tokens);
    let at = 0;
    for (const [layer, plan] of this.#plan.layers.entries()) {
      this.#keep(layer, before);
      const values = all.subarray(at, at + rowsOf(plan) * tokens);
      this.#appendLayer(layer, { values, columns: tokens }, before);
      at += values.length;
    }
  }

  #appendLayer(layer: number, fresh: Columns, before: CacheExtent): void {
    const { plan, block } = this.#layer(layer);
    const held = before.held(plan.span);
    const keptOld = Math.max(0, before.length - this.extent.start(plan.span));
    const keptFresh = Math.min(fresh.columns, this.extent.held(plan.span));
    let target = block;
    const stays = block.owners === 1 && keptOld === held && held + keptFresh <= block.columns;
    if (!stays) {
      target = new LayerBlock(plan, roomFor(keptOld + keptFresh));
      target.copy(block, held - keptOld, keptOld, 0);
      block.owners--;
      this.#blocks[layer] = target;
    }
    target.copy(fresh, fresh.columns - keptFresh, keptFresh, keptOld);
  }
}

// Numbers on their way into the runtime and out of it.

type Output = InferenceSession.ReturnType[string];

/** f32, or the bits of f16. */
type CacheValues = Float32Array | Uint16Array;

const newValues = (type: CacheType, count: number): CacheValues =>
  type === 'float16' ? new Uint16Array(count) : new Float32Array(count);

/** The bytes as values, without a copy where they are aligned. */
function valuesOf(type: CacheType, bytes: Uint8Array): CacheValues {
  const size = type === 'float16' ? 2 : 4;
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  const count = byteLength / size;
  return type === 'float16' ? new Uint16Array(buffer, byteOffset, count) : new Float32Array(buffer, byteOffset, count);
}

export function cacheTensor(values: CacheValues, dims: readonly number[]): Tensor {
  if (values instanceof Float32Array) return new Tensor('float32', values, dims);
  // The binding (1.30) reads halves from a Uint16Array alone, of which Tensor would make a Float16Array where there is one.
  const tensor: Tensor = new Tensor('uint16', values, dims);
  Object.defineProperty(tensor, 'type', { value: 'float16' });
  return tensor;
}

/** Of an output; halves come as a Float16Array where there is one, else as a Uint16Array. */
export function cacheValues(output: Output | undefined): CacheValues {
  if (output?.type !== 'float16') return floats(output);
  const { buffer, byteOffset, length } = output.data as unknown as Uint16Array;
  return new Uint16Array(buffer, byteOffset, length);
}

export function floats(output: Output | undefined): Float32Array {
  if (!(output?.data instanceof Float32Array)) throw new Error('the graph returned no floats');
  return output.data;
}
