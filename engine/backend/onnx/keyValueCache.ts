/**
 * The memory of one sequence's keys and values, on the graph thread. Which tokens it holds is decided by the decoder
 * (kv/blocks.ts). The graph reads one element of a head for all tokens as a row, so each range of blocks is one matrix;
 * a paged cache would have to be copied into such matrices for every token.
 */
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import {
  bytesOf,
  bytesOfState,
  type CacheLayout,
  type CacheType,
  type LayerCacheSpec,
  rowsOf,
  type StateSpec,
  type TokenRange,
} from '../processor/messages.ts';
import type { GraphInputs } from './messages.ts';

/** `[rows, columns]`: new tokens as returned by the graph, or a range of the cache. */
interface Columns {
  readonly values: CacheValues;
  readonly columns: number;
}

/** As wide as a block: attention.ts needs whole blocks, and FusedMatMul doesn't write its output if nothing is summed. */
const nothing: TokenRange = { first: 0, columns: 64 };

/** Keys, then values, of one layer: `[rows, columns]`, the first column for token `first`. Forks share it until one writes. */
class LayerRange implements Columns {
  readonly values: CacheValues;
  readonly first: number;
  readonly columns: number;
  readonly rows: number;
  /** Stands for the tokens of an empty cache; nobody accounts for it. */
  readonly isEmpty: boolean;
  readonly keys: Tensor;
  readonly cachedValues: Tensor;
  refCount = 0;

  constructor(spec: LayerCacheSpec, range: TokenRange, values = newValues(spec.type, rowsOf(spec) * range.columns)) {
    const { first, columns } = range;
    this.isEmpty = range === nothing;
    const { keyValueHeads, keyDim, valueDim, valuesInKeys } = spec;
    const keyRows = keyValueHeads * keyDim;
    const firstValueRow = valuesInKeys ? 0 : keyRows;
    this.rows = rowsOf(spec);
    this.first = first;
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
  length = 0;
  readonly #inputs: GraphInputs;
  /** For each layer, ascending. The graph reads the last one. */
  #layers: (readonly LayerRange[])[] = [];
  /** By length, the states after so many tokens: for each recurrent layer its tensors. A pass makes new ones. */
  readonly #states = new Map<number, readonly (readonly Float32Array[])[]>();

  constructor(inputs: GraphInputs) {
    this.#inputs = inputs;
    this.arrange([], 0);
  }

  fork(): KeyValueCache {
    const fork = new KeyValueCache(this.#inputs);
    for (const [layer, ranges] of this.#layers.entries()) fork.#replace(layer, ranges);
    for (const [length, states] of this.#states) fork.#states.set(length, states);
    fork.length = this.length;
    return fork;
  }

  dispose(): void {
    for (const range of this.owned()) range.refCount--;
    this.#layers = [];
    this.#states.clear();
  }

  /** Forgets the states that the layout doesn't name. */
  keepStates(groups: CacheLayout): void {
    const lengths = new Set(groups[this.#inputs.windowGroups.length]?.map(({ first }) => first + 1));
    for (const length of this.#states.keys()) if (!lengths.has(length)) this.#states.delete(length);
  }

  owned(): LayerRange[] {
    return this.#layers.flat();
  }

  /** Holds these ranges of each window group, copied from the ones at hand where they differ. Cuts at `length`. */
  arrange(groups: readonly (readonly TokenRange[])[], length: number): void {
    this.length = length;
    for (const [layer, spec] of this.#inputs.layers.entries()) {
      const ranges = groups[spec.group] ?? [];
      this.#replace(
        layer,
        (ranges.length > 0 ? ranges : [nothing]).map((range) => this.#placed(layer, spec, range)),
      );
    }
  }

  #replace(layer: number, ranges: readonly LayerRange[]): void {
    for (const range of ranges) range.refCount++;
    for (const range of this.#ranges(layer)) range.refCount--;
    this.#layers[layer] = ranges;
  }

  #placed(layer: number, spec: LayerCacheSpec, wanted: TokenRange): LayerRange {
    if (wanted === nothing) return new LayerRange(spec, nothing);
    const { first, columns } = wanted;
    const holds = (range: LayerRange): boolean => range.first <= first && first < range.first + range.columns;
    const source = this.#ranges(layer).find((range) => !range.isEmpty && holds(range));
    if (source?.first === first && source.columns === columns) return source;
    const placed = new LayerRange(spec, wanted);
    if (source) {
      const from = first - source.first;
      placed.copy(source, from, Math.max(0, Math.min(columns, source.columns - from, this.length - first)), 0);
    }
    return placed;
  }

  /** The range that the graph reads, in a window group. */
  tail(group: number): TokenRange {
    const layer = this.#inputs.layers.findIndex((spec) => spec.group === group);
    return this.#layers[layer]?.at(-1) ?? nothing;
  }

  /** The given ranges of a layer as newly allocated memory: `[rows, columns]` of one after the other. */
  saved(layer: number, groups: readonly (readonly TokenRange[])[]): Uint8Array {
    const state = this.#stateSpec(layer);
    if (state) return this.#savedStates(layer - this.#inputs.layers.length, state, groups);
    const spec = this.#spec(layer);
    const ranges = groups[spec.group] ?? [];
    const tokenBytes = bytesOf(spec);
    // Of its own memory, which is transferred.
    const saved = new Uint8Array(tokenBytes * ranges.reduce((sum, { columns }) => sum + columns, 0));
    let at = 0;
    for (const range of ranges) {
      const values = valuesOf(spec.type, saved.subarray(at, at + tokenBytes * range.columns));
      const source = this.#ranges(layer).find(({ first }) => first === range.first);
      const count = Math.min(range.columns, this.length - range.first);
      if (source) new LayerRange(spec, range, values).copy(source, 0, count, 0);
      at += values.byteLength;
    }
    return saved;
  }

  /** Takes ownership of the bytes that `saved` returned for these ranges. */
  restore(layer: number, groups: readonly (readonly TokenRange[])[], bytes: Uint8Array): void {
    const state = this.#stateSpec(layer);
    if (state) {
      this.#restoreStates(state, groups, bytes);
      return;
    }
    const spec = this.#spec(layer);
    const tokenBytes = bytesOf(spec);
    let at = 0;
    const ranges = (groups[spec.group] ?? []).map((range) => {
      const piece = bytes.subarray(at, at + range.columns * tokenBytes);
      at += piece.byteLength;
      return new LayerRange(spec, range, valuesOf(spec.type, piece));
    });
    this.#replace(layer, ranges);
  }

  /** Recurrent layers are counted behind the others. */
  #stateSpec(layer: number): StateSpec | undefined {
    return this.#inputs.states[layer - this.#inputs.layers.length];
  }

  #savedStates(index: number, spec: StateSpec, groups: CacheLayout): Uint8Array {
    const ranges = groups[this.#inputs.windowGroups.length] ?? [];
    const saved = new Float32Array((ranges.length * bytesOfState(spec)) / 4);
    let at = 0;
    for (const { first } of ranges) {
      for (const values of this.#stateAt(first + 1)[index] ?? []) {
        saved.set(values, at);
        at += values.length;
      }
    }
    return new Uint8Array(saved.buffer);
  }

  /** Called for one layer after the other. */
  #restoreStates(spec: StateSpec, groups: CacheLayout, bytes: Uint8Array): void {
    const values = valuesOf('float32', bytes);
    if (!(values instanceof Float32Array)) throw new Error('States are f32.');
    let at = 0;
    for (const { first } of groups[this.#inputs.windowGroups.length] ?? []) {
      const tensors = spec.shapes.map((shape) => {
        const start = at;
        at += elementsOf(shape);
        return values.slice(start, at);
      });
      this.#states.set(first + 1, [...(this.#states.get(first + 1) ?? []), tensors]);
    }
  }

  #stateAt(length: number): readonly (readonly Float32Array[])[] {
    if (length === 0) {
      return this.#inputs.states.map(({ shapes }) => shapes.map((shape) => new Float32Array(elementsOf(shape))));
    }
    const states = this.#states.get(length);
    if (!states) throw new Error(`The state after ${length} tokens was not kept.`);
    return states;
  }

  #spec(layer: number): LayerCacheSpec {
    const spec = this.#inputs.layers[layer];
    if (!spec) throw new Error(`The model has no layer ${layer}.`);
    return spec;
  }

  #ranges(layer: number): readonly LayerRange[] {
    return this.#layers[layer] ?? [];
  }

  /** The cache as graph inputs. */
  feeds(): Record<string, Tensor> {
    const feeds: Record<string, Tensor> = {};
    for (const [layer, ranges] of this.#layers.entries()) {
      const tail = ranges.at(-1);
      if (!tail) throw new Error('The sequence was disposed.');
      feeds[`keys.${layer}`] = tail.keys;
      feeds[`values.${layer}`] = tail.cachedValues;
    }
    const states = this.#inputs.states.length > 0 ? this.#stateAt(this.length) : [];
    for (const [layer, { shapes }] of this.#inputs.states.entries()) {
      for (const [tensor, shape] of shapes.entries()) {
        const values = states[layer]?.[tensor] ?? new Float32Array();
        feeds[`state.${layer}.${tensor}`] = new Tensor('float32', values, shape);
      }
    }
    return feeds;
  }

  /** The graph's outputs: `cached`, new keys and values of all layers `[rows, tokens]`, and states. `arrange` has made room. */
  append(outputs: Readonly<Record<string, Output>>, tokens: number): void {
    const all = this.#inputs.layers.length > 0 ? cacheValues(outputs['cached']) : new Float32Array();
    let at = 0;
    for (const [layer, spec] of this.#inputs.layers.entries()) {
      const values = all.subarray(at, at + rowsOf(spec) * tokens);
      const tail = this.#writable(layer, spec);
      tail.copy({ values, columns: tokens }, 0, tokens, this.length - tail.first);
      at += values.length;
    }
    this.length += tokens;
    if (this.#inputs.states.length === 0) return;
    const states = this.#inputs.states.map((state) => state.outputs.map((name) => floats(outputs[name])));
    this.#states.set(this.length, states);
  }

  #writable(layer: number, spec: LayerCacheSpec): LayerRange {
    const ranges = this.#ranges(layer);
    const tail = ranges.at(-1);
    if (!tail) throw new Error('The sequence was disposed.');
    if (tail.refCount === 1) return tail;
    const copy = new LayerRange(spec, tail, tail.values.slice());
    this.#replace(layer, [...ranges.slice(0, -1), copy]);
    return copy;
  }
}

const elementsOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

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
