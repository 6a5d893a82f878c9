/**
 * Memory layout of a range's keys and values for the graph, and the states of recurrent layers. The graph reads one
 * element of a head for all tokens as a row, so each range of blocks is one matrix; a paged cache would have to be
 * copied into such matrices for every token.
 */
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import {
  bytesOfState,
  type CacheLayout,
  type CacheType,
  type LayerCacheSpec,
  rowsOf,
  type StateSpec,
  type TokenRange,
} from '../processor/messages.ts';
import { type LayerRange, LayerRanges, type NewRange } from '../processor/threadCache.ts';
import type { GraphInputs } from './graphRun.ts';

/** `[rows, columns]`: new tokens as returned by the graph, or a range of the cache. */
interface Columns {
  readonly values: CacheValues;
  readonly columns: number;
}

/** As wide as a block: attention.ts needs whole blocks, and FusedMatMul doesn't write its output if nothing is summed. */
const nothing: TokenRange = { first: 0, columns: 64 };

/** Keys, then values, of one layer: `[rows, columns]`. */
class OnnxRange implements Columns, LayerRange<OnnxRange> {
  readonly values: CacheValues;
  readonly first: number;
  readonly columns: number;
  readonly rows: number;
  readonly keys: Tensor;
  readonly cachedValues: Tensor;
  refCount = 0;
  readonly #spec: LayerCacheSpec;

  constructor(spec: LayerCacheSpec, range: TokenRange, values = newValues(spec.type, rowsOf(spec) * range.columns)) {
    const { first, columns } = range;
    const { keyValueHeads, keyDim, valueDim, valuesInKeys } = spec;
    const keyRows = keyValueHeads * keyDim;
    const firstValueRow = valuesInKeys ? 0 : keyRows;
    this.#spec = spec;
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

  /** @param at the first column that is written */
  copy(source: Columns, first: number, count: number, at = 0): void {
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

  save(columns: number, count: number, bytes: Uint8Array): void {
    const values = valuesOf(this.#spec.type, bytes);
    new OnnxRange(this.#spec, { first: this.first, columns }, values).copy(this, 0, count);
  }
}

const newRange: NewRange<OnnxRange> = (spec, range, saved) =>
  saved ? new OnnxRange(spec, range, valuesOf(spec.type, saved)) : new OnnxRange(spec, range);

export class KeyValueCache {
  readonly #inputs: GraphInputs;
  readonly #ranges: LayerRanges<OnnxRange>;
  /** States by the number of tokens that they follow: the tensors of each recurrent layer. A pass creates new ones. */
  readonly #states = new Map<number, readonly (readonly Float32Array[])[]>();

  constructor(inputs: GraphInputs, ranges = new LayerRanges(inputs.layers, newRange)) {
    this.#inputs = inputs;
    this.#ranges = ranges;
  }

  get length(): number {
    return this.#ranges.length;
  }

  set length(tokens: number) {
    this.#ranges.length = tokens;
  }

  fork(): KeyValueCache {
    const fork = new KeyValueCache(this.#inputs, this.#ranges.fork());
    for (const [length, states] of this.#states) fork.#states.set(length, states);
    return fork;
  }

  dispose(): void {
    this.#ranges.dispose();
    this.#states.clear();
  }

  /** Forgets the states that the layout doesn't name. */
  keepStates(groups: CacheLayout): void {
    const lengths = new Set(groups[this.#inputs.windowGroups.length]?.map(({ first }) => first + 1));
    for (const length of this.#states.keys()) if (!lengths.has(length)) this.#states.delete(length);
  }

  owned(): OnnxRange[] {
    return this.#ranges.all();
  }

  arrange(groups: CacheLayout, length: number): void {
    this.#ranges.arrange(groups, length);
  }

  /** The range that the graph reads, in a window group. */
  tail(group: number): TokenRange {
    return this.#ranges.tail(this.#inputs.layers.findIndex((spec) => spec.group === group)) ?? nothing;
  }

  /** For a layer with keys and values: `[rows, columns]` of each range, one after the other. */
  saved(layer: number, groups: CacheLayout): Uint8Array {
    const state = this.#stateSpec(layer);
    return state
      ? this.#savedStates(layer - this.#inputs.layers.length, state, groups)
      : this.#ranges.saved(layer, groups);
  }

  /** Takes ownership of the bytes that `saved` returned for these ranges. */
  restore(layer: number, groups: CacheLayout, bytes: Uint8Array): void {
    const state = this.#stateSpec(layer);
    if (state) this.#restoreStates(state, groups, bytes);
    else this.#ranges.restore(layer, groups, bytes);
  }

  /** Recurrent layers have the indexes after the others. */
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

  /** The cache as graph inputs. */
  feeds(): Record<string, Tensor> {
    const feeds: Record<string, Tensor> = {};
    for (const [layer, spec] of this.#inputs.layers.entries()) {
      const tail = this.#ranges.tail(layer) ?? new OnnxRange(spec, nothing);
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
      const tail = this.#ranges.writable(layer);
      tail.copy({ values, columns: tokens }, 0, tokens, this.length - tail.first);
      at += values.length;
    }
    this.length += tokens;
    if (this.#inputs.states.length === 0) return;
    const states = this.#inputs.states.map((state) => state.outputs.map((name) => floats(outputs[name])));
    this.#states.set(this.length, states);
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
