/**
 * Attention over cached and new tokens. The KV cache is a graph input and never an output, because the Node.js binding
 * copies every output. The scores of cached and new tokens share one softmax, and only the new keys and values are
 * returned.
 *
 * A token's result has the same bits however its prompt was split into passes. Three rules ensure that:
 * - New keys and values are rounded as the cache holds them.
 * - Sums are split at spans of 128 positions, as MLAS adds them: first over all earlier spans, then over the span of
 *   the new tokens, cached or not. A pass never crosses a span's border. Keys and values of the new tokens' span are
 *   concatenated; those of earlier spans are read in place.
 * - No matmul has a single row or column: for those, MLAS uses another kernel, which adds in another order.
 *
 * Keys and values are laid out with the token index last, `[kvHeads, 1, headDim, tokens]`.
 */
import {
  convolutionChannels,
  type GatedDeltaSpec,
  type GroupedQueryAttentionSpec,
  type LatentAttentionSpec,
} from '../../model/spec/spec.ts';
import type { GroupedQueryWeights, LatentWeights, Weight } from '../../model/weights/weights.ts';
import type { CacheType, LayerCacheSpec, StateSpec, WindowGroup } from '../processor/messages.ts';
import { elementTypes, type GraphBuilder, type Value } from './graphBuilder.ts';
import { type RotationInputs, spanColumns } from './graphRun.ts';
import { type GraphContext, headLinears, linear, linearRows, linears, rmsNorm } from './linear.ts';
import { allRows } from './weightsFile.ts';

/** Largest finite f16. */
const float16Max = 65504;

/** Dimensions of one layer's cache. */
type CacheDims = Omit<LayerCacheSpec, 'group' | 'type'>;

/** Cached keys and values of a layer, as f32. */
interface CachedLayer {
  readonly dims: CacheDims;
  /** The inputs, in the cache's type. */
  readonly stored: { readonly keys: Value; readonly values: Value };
  /** `[kvHeads, 1, keyDim, cached]` */
  readonly keys: Value;
  /** `[kvHeads, 1, valueDim, cached]` */
  readonly values: Value;
  /** Mask and sizes of the layer's window group. */
  readonly group: WindowInputs;
}

/**
 * Inputs of a window group. `mask`: 0 or −∞ `[tokens, cached + span]`; `sizes`: `[cached, span]` int64. Further inputs, `[1]`
 * int64 each: the `first` column of the new tokens' own span in the cache and the one after its `last`; how many columns
 * the span is `lacking` beside these, the new ones and one of zeros; the `columns` of the cache; the `width` of all scores
 */
interface WindowInputs {
  readonly index: number;
  readonly mask: Value;
  readonly sizes: Value;
}

/** Declares the graph inputs that layers share, and collects the keys and values that each layer adds to its cache. */
export class AttentionInputs {
  readonly rotations: RotationInputs[] = [];
  readonly windowGroups: WindowGroup[] = [];
  readonly layers: LayerCacheSpec[] = [];
  readonly states: (StateSpec & { readonly outputs: Value[] })[] = [];
  readonly #newRows: { readonly value: Value; readonly dim: number; readonly rows: number }[] = [];
  readonly #graph: GraphBuilder;
  readonly #cacheType: CacheType;
  /** Values that layers share. */
  readonly #shared = new Map<string, Value>();

  constructor(graph: GraphBuilder, cacheType: CacheType) {
    this.#graph = graph;
    this.#cacheType = cacheType;
  }

  /**
   * The next gated delta net's state before the pass. Call `addState` for its parts in the order of `inputs`,
   * `matrices`.
   */
  state(spec: GatedDeltaSpec): { readonly inputs: Value; readonly matrices: Value } {
    const { numValueHeads, keyHeadDim, valueHeadDim, convolutionTokens } = spec;
    const shapes = [
      [1, convolutionChannels(spec), convolutionTokens - 1],
      [1, numValueHeads, keyHeadDim, valueHeadDim],
    ];
    const index = this.states.push({ shapes, outputs: [] }) - 1;
    const [inputs = '', matrices = ''] = shapes.map((shape, tensor) =>
      this.#graph.input(`state.${index}.${tensor}`, 'float32', shape),
    );
    return { inputs, matrices };
  }

  addState(after: Value): void {
    const state = this.states.at(-1);
    if (!state) throw new Error('addState needs a preceding call of state');
    this.#graph.expose(after, 'float32', state.shapes[state.outputs.length] ?? []);
    state.outputs.push(after);
  }

  /** cos and sin of the new tokens' positions. `[tokens, dimensions / 2]` each */
  rotation(rotation: RotationInputs): { readonly cos: Value; readonly sin: Value } {
    const wanted = JSON.stringify(rotation);
    let index = this.rotations.findIndex((known) => JSON.stringify(known) === wanted);
    if (index < 0) {
      index = this.rotations.push(rotation) - 1;
      for (const name of ['cos', 'sin'])
        this.#graph.input(`${name}.${index}`, 'float32', ['tokens', rotation.rope.dimensions / 2]);
    }
    return { cos: `cos.${index}`, sin: `sin.${index}` };
  }

  #windowInputs(slidingWindow: number | undefined): WindowInputs {
    let index = this.windowGroups.findIndex((known) => known.slidingWindow === slidingWindow);
    if (index < 0) {
      index = this.windowGroups.push(slidingWindow === undefined ? {} : { slidingWindow }) - 1;
      this.#graph.input(`mask.${index}`, 'float32', ['tokens', `visible.${index}`]);
      this.#graph.input(`sizes.${index}`, 'int64', [2]);
      for (const name of ['first', 'last', 'lacking', 'columns', 'width'])
        this.#graph.input(`${name}.${index}`, 'int64', [1]);
    }
    return { index, mask: `mask.${index}`, sizes: `sizes.${index}` };
  }

  /**
   * The next layer's cached keys and values. Call it before computing the layer's query. Of two nodes that a node
   * depends on, ONNX Runtime runs the one added later first; it would otherwise convert the caches of all layers to f32
   * before the first layer, and hold all of them in memory.
   */
  cached(dims: CacheDims, slidingWindow: number | undefined): CachedLayer {
    const graph = this.#graph;
    const type = this.#cacheType;
    const group = this.#windowInputs(slidingWindow);
    const layer = this.layers.push({ ...dims, type, group: group.index }) - 1;
    const input = (name: string, dim: number): Value =>
      graph.input(`${name}.${layer}`, type, [dims.keyValueHeads, 1, dim, `cached.${group.index}`]);
    const stored = { keys: input('keys', dims.keyDim), values: input('values', dims.valueDim) };
    return { dims, stored, keys: this.#floats(stored.keys), values: this.#floats(stored.values), group };
  }

  #floats(value: Value): Value {
    return this.#cacheType === 'float32' ? value : this.#graph.op('Cast', [value], { to: elementTypes.float32 });
  }

  /** The value rounded to the cache's type. */
  rounded(value: Value): Value {
    const graph = this.#graph;
    if (this.#cacheType === 'float32') return value;
    // Clamps to the f16 range: an infinite key would make every later probability NaN.
    const within = graph.op('Clip', [value, graph.float32(-float16Max), graph.float32(float16Max)]);
    return graph.op('Cast', [within], { to: elementTypes.float16 });
  }

  /** Rounded keys or values, then a column of zeros. `[kvHeads, 1, dim, tokens + 1]` f32 */
  besideZeros(added: Value, shape: readonly [number, number]): Value {
    return this.#floats(this.#graph.op('Concat', [added, this.#zeros(shape)], { axis: 3 }));
  }

  /** Cached and new values of the new tokens' span, then zeros. `[kvHeads, 1, dim, span]` f32 */
  spanOfValues({ stored, group }: CachedLayer, added: Value, [heads, dim]: readonly [number, number]): Value {
    const graph = this.#graph;
    const rest = this.#once(`values ${group.index} ${heads} ${dim}`, () =>
      graph.op('Expand', [graph.zero(this.#cacheType), this.shape([heads, 1, dim], 'lacking', group)]),
    );
    const parts = [this.#ownSpan(stored.values, group), added, this.#zeros([heads, dim]), rest];
    return this.#floats(graph.op('Concat', parts, { axis: 3 }));
  }

  /**
   * Scores of all cached columns, then of the new tokens' span: its cached and new columns, and columns that the mask
   * excludes.
   */
  scores(old: Value, added: Value, { group }: CachedLayer, rowsPerToken: readonly [number, number]): Value {
    const graph = this.#graph;
    const rest = this.#once(`scores ${group.index} ${rowsPerToken.join()}`, () => {
      const rows = graph.op('Shape', [added], { start: 0, end: 3 });
      const shape = graph.op('Concat', [rows, `lacking.${group.index}`], { axis: 0 });
      return graph.op('Expand', [graph.float32(0), shape]);
    });
    return graph.op('Concat', [old, this.#ownSpan(old, group), added, rest], { axis: 3 });
  }

  /** The mask for the queries, whose first row is doubled if each KV head has one query head (`firstRowTwice`). */
  mask({ mask }: WindowInputs, group: number): Value {
    return group > 1 ? mask : this.#once(`rows ${mask}`, () => firstRowTwice(this.#graph, mask, 0));
  }

  #ownSpan(columns: Value, { index }: WindowInputs): Value {
    return this.#graph.op('Slice', [columns, `first.${index}`, `last.${index}`, this.#graph.int64([3])]);
  }

  #zeros([heads, dim]: readonly [number, number]): Value {
    const graph = this.#graph;
    const shape = graph.int64([heads, 1, dim, 1]);
    return this.#once(`zeros ${heads} ${dim}`, () => graph.op('Expand', [graph.zero(this.#cacheType), shape]));
  }

  /** `[…shape, size]` where `size` is an input of the window group. */
  shape(shape: readonly number[], size: 'columns' | 'width' | 'lacking', { index }: WindowInputs): Value {
    const graph = this.#graph;
    const own = (): Value => graph.op('Concat', [graph.int64(shape), `${size}.${index}`], { axis: 0 });
    return this.#once(`shape ${shape.join()} ${size} ${index}`, own);
  }

  #once(key: string, make: () => Value): Value {
    const value = this.#shared.get(key) ?? make();
    this.#shared.set(key, value);
    return value;
  }

  /** Adds the new keys and values of the layer that `cached` returned last. `[kvHeads, 1, dim, tokens]` each */
  addNewRows(keys: Value, values: Value): void {
    const layer = this.layers.at(-1);
    if (!layer) throw new Error('addNewRows needs a preceding call of cached');
    const { keyValueHeads, keyDim, valueDim, valuesInKeys } = layer;
    this.#newRows.push({ value: keys, dim: keyDim, rows: keyValueHeads * keyDim });
    if (!valuesInKeys) this.#newRows.push({ value: values, dim: valueDim, rows: keyValueHeads * valueDim });
  }

  /** New keys and values of all layers, concatenated, in the cache's type, if any layer has some. `[rows, tokens]` */
  allNewRows(): Value | undefined {
    const graph = this.#graph;
    const newRows = this.#newRows;
    if (newRows.length === 0) return undefined;
    const flat = (value: Value, rows: number): Value => graph.reshape(value, [rows, -1]);
    const values = newRows.map(({ value }) => value);
    const allRows = newRows.reduce((sum, { rows }) => sum + rows, 0);
    // Fewer nodes if all layers have the same shape.
    if (new Set(newRows.map(({ dim }) => dim)).size === 1)
      return flat(graph.op('Concat', values, { axis: 0 }), allRows);
    const flatValues = newRows.map(({ value, rows }) => flat(value, rows));
    return graph.op('Concat', flatValues, { axis: 0 });
  }
}

/** `input`: normalised hidden states `[1, tokens, hidden]`. Returns `[1, tokens, hidden]`. */
export function groupedQueryAttention(
  context: GraphContext,
  inputs: AttentionInputs,
  spec: GroupedQueryAttentionSpec,
  weights: GroupedQueryWeights,
  input: Value,
): Value {
  const { graph } = context;
  const { numAttentionHeads, numKeyValueHeads, headDim, softmaxScale } = spec;
  const dims = { keyValueHeads: numKeyValueHeads, keyDim: headDim, valueDim: headDim, valuesInKeys: false };
  const cached = inputs.cached(dims, spec.slidingWindow);
  const parts = [weights.query, weights.key, weights.value].map(linearRows);
  let [query, key, value] = spec.jointNorm
    ? jointlyNormed(context, weights, linears(context, input, parts), headDim)
    : headsNormed(context, weights, headLinears(context, input, parts, headDim));
  const { rope, queryTemperature: temperature } = spec;
  query = rotateFirst(
    context,
    inputs,
    query,
    { rope, scale: softmaxScale, ...(temperature && { temperature }) },
    headDim,
  );
  key = rotateFirst(context, inputs, key, { rope, scale: 1 }, headDim);
  const group = numAttentionHeads / numKeyValueHeads;
  const mixed = attend(context, inputs, {
    query: graph.reshape(query, [numKeyValueHeads, group, 0, headDim]),
    group,
    key: tokensLast(graph, key),
    value: tokensLast(graph, value),
    cached,
    ...(weights.sinks && {
      sinks: graph.stored(context.layout.floats([allRows(weights.sinks)]), [numKeyValueHeads, group, 1, 1]),
    }),
  });
  const rows = graph.reshape(graph.transpose(mixed, [2, 0, 1, 3]), [1, -1, numAttentionHeads * headDim]);
  const gate = weights.gate && graph.op('Sigmoid', [linear(context, input, weights.gate)]);
  return linear(context, gate === undefined ? rows : graph.op('Mul', [rows, gate]), weights.output);
}

type Heads = [query: Value, key: Value, value: Value];

function headsNormed(context: GraphContext, { queryNorm, keyNorm }: GroupedQueryWeights, heads: Value[]): Heads {
  const [query, key, value] = heads as Heads;
  return [
    queryNorm ? rmsNorm(context, query, queryNorm) : query,
    keyNorm ? rmsNorm(context, key, keyNorm) : key,
    value,
  ];
}

/** Normalises `[1, tokens, heads · headDim]`, then cuts it into heads. */
function jointlyNormed(context: GraphContext, weights: GroupedQueryWeights, rows: Value[], headDim: number): Heads {
  const { graph } = context;
  return headsNormed(context, weights, rows).map((value) =>
    graph.transpose(graph.reshape(value, [1, 0, -1, headDim]), [0, 2, 1, 3]),
  ) as Heads;
}

/** Applies RoPE. `[1, heads, tokens, headDim]` to the same shape, multiplied by the rotation's scale. */
export function rotate(
  { graph }: GraphContext,
  inputs: AttentionInputs,
  value: Value,
  rotation: RotationInputs,
): Value {
  const { cos, sin } = inputs.rotation(rotation);
  // The position id of the first row is 0: the cos and sin tables start at the first new token.
  return graph.contrib('RotaryEmbedding', [value, graph.int64([0]), cos, sin], {
    interleaved: rotation.rope.layout === 'interleaved' ? 1 : 0,
  });
}

/** Like `rotate`, but rotates only the first elements of each head. */
function rotateFirst(
  context: GraphContext,
  inputs: AttentionInputs,
  value: Value,
  rotation: RotationInputs,
  headDim: number,
): Value {
  const { rope, scale } = rotation;
  if (rope.dimensions === headDim) return rotate(context, inputs, value, rotation);
  const { graph } = context;
  const [first, rest] = graph.split(value, [rope.dimensions, headDim - rope.dimensions]) as [Value, Value];
  const rotated = rotate(context, inputs, first, rotation);
  return graph.op('Concat', [rotated, graph.op('Mul', [rest, graph.float32(scale)])], { axis: -1 });
}

/** `[1, heads, tokens, headDim]` to `[heads, 1, headDim, tokens]`. */
export function tokensLast(graph: GraphBuilder, value: Value): Value {
  return graph.transpose(value, [1, 0, 3, 2]);
}

export interface Attended {
  /** After RoPE, times the softmax scale. `[kvHeads, group, tokens, keyDim]` */
  readonly query: Value;
  /** Query heads a KV head. */
  readonly group: number;
  /** `[kvHeads, 1, keyDim, tokens]` */
  readonly key: Value;
  /** `[kvHeads, 1, valueDim, tokens]` */
  readonly value: Value;
  readonly cached: CachedLayer;
  /** `[kvHeads, group, 1, 1]` */
  readonly sinks?: Value;
}

/** Returns the attention output. `[kvHeads, group, tokens, valueDim]` */
export function attend({ graph }: GraphContext, inputs: AttentionInputs, attended: Attended): Value {
  const { group, cached, sinks } = attended;
  const { keyValueHeads, keyDim, valueDim } = cached.dims;
  const window = cached.group;
  const key = inputs.rounded(attended.key);
  const value = inputs.rounded(attended.value);
  inputs.addNewRows(key, value);
  const values = inputs.spanOfValues(cached, value, [keyValueHeads, valueDim]);
  // The heads of a group are rows of one matmul.
  const query = group > 1 ? attended.query : firstRowTwice(graph, attended.query, 2);
  const queries = graph.reshape(query, [0, 1, -1, keyDim]);
  const added = graph.op('MatMul', [queries, inputs.besideZeros(key, [keyValueHeads, keyDim])]);
  const old = graph.op('MatMul', [queries, cached.keys]);
  const scores = inputs.scores(old, added, cached, [keyValueHeads, group]);
  const perHead = graph.op('Reshape', [scores, inputs.shape([0, group, -1], 'width', window)]);
  const masked = graph.op('Add', [perHead, inputs.mask(window, group)]);
  const [before, own] = (
    sinks
      ? softmaxWithSinks(graph, masked, window.sizes, sinks)
      : graph.split(graph.op('Softmax', [masked], { axis: -1 }), { sizes: window.sizes, count: 2 })
  ) as [Value, Value];
  const beforeRows = graph.op('Reshape', [before, inputs.shape([0, 1, -1], 'columns', window)]);
  const mixed = graph.op('Add', [
    graph.contrib('FusedMatMul', [beforeRows, cached.values], { transB: 1 }),
    graph.contrib('FusedMatMul', [graph.reshape(own, [0, 1, -1, spanColumns]), values], { transB: 1 }),
  ]);
  const rows = graph.reshape(mixed, [0, group, -1, valueDim]);
  return group > 1 ? rows : graph.op('Slice', [rows, graph.int64([0]), graph.int64([-1]), graph.int64([2])]);
}

/** Repeats the first row, because a matmul of a single row would add in another order. */
function firstRowTwice(graph: GraphBuilder, rows: Value, axis: number): Value {
  const first = graph.op('Slice', [rows, graph.int64([0]), graph.int64([1]), graph.int64([axis])]);
  return graph.op('Concat', [rows, first], { axis });
}

/** Appends the sink to each query's scores as one more logit; its probability is dropped. */
function softmaxWithSinks(graph: GraphBuilder, scores: Value, sizes: Value, sinks: Value): Value[] {
  const shape = graph.op('Concat', [graph.op('Shape', [scores], { start: 0, end: 3 }), graph.int64([1])], { axis: 0 });
  const all = graph.op('Concat', [scores, graph.op('Expand', [sinks, shape])], { axis: -1 });
  const threeSizes = graph.op('Concat', [sizes, graph.int64([1])], { axis: 0 });
  return graph.split(graph.op('Softmax', [all], { axis: -1 }), { sizes: threeSizes, count: 3 });
}

// Multi-head latent attention (DeepSeek-V2, section 2.1) in absorbed form: the key up-projection is applied to the
// query and the value up-projection to the attention output, so that all heads attend to one cached latent a token.

/** `input`: normalised hidden states `[1, tokens, hidden]`. Returns `[1, tokens, hidden]`. */
export function latentAttention(
  context: GraphContext,
  inputs: AttentionInputs,
  spec: LatentAttentionSpec,
  weights: LatentWeights,
  input: Value,
): Value {
  const { graph } = context;
  const { numAttentionHeads, keyValueRank, ropeHeadDim, valueHeadDim, normEpsilon } = spec;
  const width = keyValueRank + ropeHeadDim;
  const dims = { keyValueHeads: 1, keyDim: width, valueDim: keyValueRank, valuesInKeys: true };
  const cached = inputs.cached(dims, undefined);
  const compressed = headLinears(context, input, [linearRows({ weight: weights.keyValueDown })], width)[0] as Value;
  const [down, roped] = graph.split(compressed, [keyValueRank, ropeHeadDim]) as [Value, Value];
  const latent = rmsNorm({ ...context, normEpsilon }, down, weights.keyValueNorm);
  // The rotated part of the key is shared by all heads and isn't normalised.
  const position = rotate(context, inputs, roped, { rope: spec.rope, scale: 1 });
  const mixed = attend(context, inputs, {
    query: absorbedQuery(context, inputs, spec, weights, input),
    group: numAttentionHeads,
    key: tokensLast(graph, graph.op('Concat', [latent, position], { axis: -1 })),
    value: tokensLast(graph, latent),
    cached,
  });
  const perHead = graph.op('Squeeze', [mixed, graph.int64([0])]);
  const valueUp = floatMatrix(context, weights.valueUp, [numAttentionHeads, valueHeadDim, keyValueRank]);
  const values = graph.contrib('FusedMatMul', [perHead, valueUp], { transB: 1 });
  const rows = graph.reshape(graph.transpose(values, [1, 0, 2]), [1, -1, numAttentionHeads * valueHeadDim]);
  return linear(context, rows, { weight: weights.output });
}

/** `[K_hᵀ · query_h | rotated query_h] · softmaxScale`: `[1, heads, tokens, rank + rope]` */
function absorbedQuery(
  context: GraphContext,
  inputs: AttentionInputs,
  spec: LatentAttentionSpec,
  weights: LatentWeights,
  input: Value,
): Value {
  const { graph } = context;
  const { numAttentionHeads, keyValueRank, nopeHeadDim, ropeHeadDim, normEpsilon, softmaxScale } = spec;
  const compressed = weights.queryDown ? linear(context, input, { weight: weights.queryDown }) : input;
  const normed = weights.queryNorm ? rmsNorm({ ...context, normEpsilon }, compressed, weights.queryNorm) : compressed;
  const headDim = nopeHeadDim + ropeHeadDim;
  const query = headLinears(context, normed, [linearRows({ weight: weights.queryUp })], headDim)[0] as Value;
  const [nope, roped] = graph.split(query, [nopeHeadDim, ropeHeadDim]) as [Value, Value];
  const { weight, transposed } = weights.keyUp;
  const keyUp = transposed
    ? floatMatrix(context, weight, [numAttentionHeads, keyValueRank, nopeHeadDim])
    : floatMatrix(context, weight, [numAttentionHeads, nopeHeadDim, keyValueRank]);
  const absorbed = graph.contrib('FusedMatMul', [nope, keyUp], {
    transB: transposed ? 1 : 0,
    alpha: { float: softmaxScale },
  });
  return graph.op('Concat', [absorbed, rotate(context, inputs, roped, { rope: spec.rope, scale: softmaxScale })], {
    axis: -1,
  });
}

/** One f32 matrix a head: no operator multiplies batches of quantised matrices. */
function floatMatrix({ graph, layout }: GraphContext, weight: Weight, shape: readonly number[]): Value {
  return graph.stored(layout.floats([allRows(weight)]), shape);
}
