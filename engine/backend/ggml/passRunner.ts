/** Runs forward passes over the tokens of one sequence. */
import { queryFactor } from '../../model/spec/rope.ts';
import type { CacheLayout, ThreadSlice, TokenRange, WindowGroup } from '../processor/messages.ts';
import { bytesOf, type LayerCacheSpec } from '../processor/messages.ts';
import type { LayerRange, LayerRanges, NewRange } from '../processor/threadCache.ts';
import { maskLength, maskRows, type TokenBlock, tokenBlocks } from './attention.ts';
import type { ComputeThreads } from './computeThreads.ts';
import { buildPass, type Loaded, type PassGraph, type PassShape } from './forward.ts';
import { addressOf, type Pointer } from './library.ts';
import { cacheTypes } from './types.ts';

type Shape = Omit<PassShape, 'ranges'>;

/** The graph of the last pass of a kind, and the memory of its activations. */
interface Slot {
  readonly allocator: Pointer;
  built?: Built;
}

interface Built {
  readonly shape: Shape;
  /** Ids of the caches' ranges: a reference would keep the memory of a sequence that was disposed. */
  readonly ranges: readonly number[];
  readonly pass: PassGraph;
  /** The caches' tensors, and a buffer for each. */
  readonly context: Pointer;
  readonly buffers: readonly Pointer[];
}

export class PassRunner {
  readonly #loaded: Loaded;
  readonly #threads: ComputeThreads;
  /** Decode keeps its graph while prompts of other requests are computed in between. */
  readonly #one: Slot;
  readonly #many: Slot;

  constructor(loaded: Loaded, threads: ComputeThreads) {
    this.#loaded = loaded;
    this.#threads = threads;
    const { ggml_backend_cpu_buffer_type, ggml_gallocr_new } = loaded.ggml;
    this.#one = { allocator: ggml_gallocr_new(ggml_backend_cpu_buffer_type()) };
    this.#many = { allocator: ggml_gallocr_new(ggml_backend_cpu_buffer_type()) };
  }

  /**
   * Appends `tokens` to the cache, in a layout with room for them.
   * @param into memory for the logits. Default: new memory.
   * @returns logits of the requested rows, `[rows, vocabulary]` f32.
   */
  run(
    cache: SequenceCache,
    { layout, tokens, logits, hidden }: Omit<ThreadSlice, 'sequence'>,
    into?: Float32Array,
  ): Float32Array {
    const { ggml, model } = this.#loaded;
    const first = cache.length;
    cache.arrange(layout, first);
    const rows = logits === 'all' ? tokens.length : logits === 'last' ? 1 : 0;
    const blocks = model.windowGroups.map((_, group) => {
      const tail = tailOf(layout, group);
      return tokenBlocks(tokens.length, first - tail.first, tail.columns);
    });
    const starts = tokens.length > 1 ? model.windowGroups.map((_, group) => first - tailOf(layout, group).first) : [];
    const pass = this.#pass(
      model.layers.map((_, layer) => cache.writable(layer)),
      { tokens: tokens.length, rows, blocks, starts },
    );
    if (!hidden) throw new Error('A pass takes hidden states.');
    this.#set(pass.hidden, hidden);
    this.#set(
      pass.positions,
      Int32Array.from(tokens, (_, i) => first + i),
    );
    for (const { temperature, factors } of pass.queryFactors) {
      this.#set(
        factors,
        Float32Array.from(tokens, (_, i) => queryFactor(temperature, first + i)),
      );
    }
    if (pass.rows !== null) this.#set(pass.rows, Int32Array.of(tokens.length - 1));
    for (const [group, window] of model.windowGroups.entries()) {
      const tail = tailOf(layout, group);
      this.#set(
        pass.targets[group] ?? null,
        BigInt64Array.from(tokens, (_, i) => BigInt(first + i - tail.first)),
      );
      this.#set(
        pass.masks[group] ?? null,
        attentionMask(blocks[group] ?? [], { first: tail.first, length: first }, window),
      );
    }
    for (const { group, width, columns, elements } of pass.valueTargets) {
      const column = first - tailOf(layout, group).first;
      this.#set(
        elements,
        Int32Array.from({ length: width }, (_, i) => i * columns + column),
      );
    }
    this.#threads.compute(pass.graph);
    cache.length += tokens.length;
    if (pass.output === null) return new Float32Array();
    const values = into ?? new Float32Array(ggml.ggml_nbytes(pass.output) / 4);
    ggml.ggml_backend_tensor_get(pass.output, values, 0, values.byteLength);
    return values;
  }

  #set(tensor: Pointer, values: NodeJS.TypedArray): void {
    this.#loaded.ggml.ggml_backend_tensor_set(tensor, values, 0, values.byteLength);
  }

  #pass(ranges: readonly GgmlRange[], shape: Shape): PassGraph {
    const slot = shape.tokens === 1 ? this.#one : this.#many;
    if (slot.built && isFor(slot.built, ranges, shape)) return slot.built.pass;
    this.#release(slot);
    const { ggml, model } = this.#loaded;
    const bytes = 2 * ranges.length * ggml.ggml_tensor_overhead();
    const context = ggml.ggml_init({ mem_size: bytes, mem_buffer: null, no_alloc: true });
    const buffers: Pointer[] = [];
    const placed = (memory: Uint8Array, type: number, rowLength: number, rows: number): Pointer => {
      const address = addressOf(memory);
      const buffer = ggml.ggml_backend_cpu_buffer_from_ptr(address, memory.byteLength);
      buffers.push(buffer);
      const tensor = ggml.ggml_new_tensor_2d(context, type, rowLength, rows);
      ggml.ggml_backend_tensor_alloc(buffer, tensor, address);
      return tensor;
    };
    const caches = ranges.map((range, layer): PassShape['ranges'][number] => {
      const spec = model.layers[layer];
      if (!spec) throw new Error(`The model has no layer ${layer}.`);
      const type = cacheTypes[spec.type];
      return {
        keys: placed(range.keys, type, spec.keyValueHeads * spec.keyDim, range.columns),
        values: placed(range.values, type, range.columns, spec.keyValueHeads * spec.valueDim),
        columns: range.columns,
      };
    });
    const pass = buildPass(this.#loaded, { ...shape, ranges: caches });
    if (!ggml.ggml_gallocr_alloc_graph(slot.allocator, pass.graph)) throw new Error('out of memory for activations');
    slot.built = { shape, ranges: ranges.map(({ id }) => id), pass, buffers, context };
    return pass;
  }

  #release(slot: Slot): void {
    const { ggml } = this.#loaded;
    if (!slot.built) return;
    for (const buffer of slot.built.buffers) ggml.ggml_backend_buffer_free(buffer);
    ggml.ggml_free(slot.built.pass.context);
    ggml.ggml_free(slot.built.context);
    delete slot.built;
  }

  free(): void {
    for (const slot of [this.#one, this.#many]) {
      this.#release(slot);
      this.#loaded.ggml.ggml_gallocr_free(slot.allocator);
    }
  }
}

/** Whether the graph was built for these ranges and this shape. */
function isFor(built: Built, ranges: readonly GgmlRange[], { tokens, rows, blocks, starts }: Shape): boolean {
  const { shape } = built;
  return (
    shape.tokens === tokens &&
    shape.rows === rows &&
    blocks.every((own, group) => shape.blocks[group]?.at(-1)?.visible === own.at(-1)?.visible) &&
    starts.every((start, group) => shape.starts[group] === start) &&
    ranges.every(({ id }, layer) => built.ranges[layer] === id)
  );
}

function tailOf(layout: CacheLayout, group: number): TokenRange {
  const tail = layout[group]?.at(-1);
  if (!tail) throw new Error('There is no room for the tokens.');
  return tail;
}

/** `VisibleCache.mask`. A block's last row may be duplicated. */
function attentionMask(
  blocks: readonly TokenBlock[],
  { first, length }: { readonly first: number; readonly length: number },
  { slidingWindow }: WindowGroup,
): Float32Array {
  const mask = new Float32Array(maskLength(blocks)).fill(Number.NEGATIVE_INFINITY);
  for (const block of blocks) {
    for (let row = 0; row < maskRows(block.tokens); row++) {
      const position = length + block.first + Math.min(row, block.tokens - 1);
      const least = Math.max(first, position - (slidingWindow ?? Number.POSITIVE_INFINITY) + 1);
      const start = block.maskStart + row * block.visible - first;
      mask.fill(0, start + least, start + position + 1);
    }
  }
  return mask;
}

// Memory layout of a range for ggml's kernels: keys with one row a token, then values with one column a token.

export type SequenceCache = LayerRanges<GgmlRange>;

/** ggml requires this alignment of buffers, in bytes. */
const alignment = 64;

/** Zeroed memory at an aligned address, for `addressOf`. */
function alignedMemory(byteLength: number, addressOf: (bytes: Uint8Array) => bigint): Uint8Array {
  const bytes = new Uint8Array(byteLength + alignment);
  const beyond = Number(addressOf(bytes) % BigInt(alignment));
  return bytes.subarray(alignment - beyond, alignment - beyond + byteLength);
}

/** Keys `[columns, kvHeads · keyDim]`, then values `[kvHeads · valueDim, columns]`; the first row or column is of token `first`. */
export class GgmlRange implements LayerRange<GgmlRange> {
  static #made = 0;
  readonly id = GgmlRange.#made++;
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
    const keyBytes = this.keys.byteLength / this.columns;
    this.keys.set(source.keys.subarray(first * keyBytes, (first + count) * keyBytes));
    const bytes = elementBytes(this.#spec);
    const [rowBytes, sourceRowBytes] = [this.columns * bytes, source.columns * bytes];
    for (let row = 0; row * rowBytes < this.values.byteLength; row++) {
      const start = row * sourceRowBytes + first * bytes;
      this.values.set(source.values.subarray(start, start + count * bytes), row * rowBytes);
    }
  }

  save(columns: number, count: number, bytes: Uint8Array): void {
    new GgmlRange(this.#spec, { first: this.first, columns }, bytes).copy(this, 0, count);
  }
}

const elementBytes = ({ type }: LayerCacheSpec): number => (type === 'float16' ? 2 : 4);

const keyRowBytes = (spec: LayerCacheSpec): number => spec.keyValueHeads * spec.keyDim * elementBytes(spec);

export const newGgmlRange =
  (addressOf: (bytes: Uint8Array) => bigint): NewRange<GgmlRange> =>
  (spec, range, saved) => {
    const made = new GgmlRange(spec, range, alignedMemory(bytesOf(spec) * range.columns, addressOf));
    if (saved) made.copy(new GgmlRange(spec, range, saved), 0, range.columns);
    return made;
  };
