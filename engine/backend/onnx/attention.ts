/**
 * Attention over cached and new tokens. The cache is an input and never an output (the Node.js binding copies every
 * output): scores of the cached and of the new tokens meet in one softmax, and only the new keys and values come back.
 *
 * Keys and values lie with the token index last, `[kvHeads, 1, headDim, tokens]`: for one new token both products are
 * then vector times matrix, for which MLAS has kernels that read the cache once, in order, and pack nothing.
 */
import type { GroupedQueryAttentionSpec, LatentAttentionSpec, RopeSpec } from '../../model/spec/spec.ts';
import type { GroupedQueryWeights, LatentWeights, Weight } from '../../model/weights/weights.ts';
import type { GraphBuilder, Value } from './graphBuilder.ts';
import type { CacheType, LayerCachePlan, RotationPlan, SpanPlan } from './layerPlan.ts';
import { type GraphContext, headLinears, linear, linearRows, rmsNorm } from './linear.ts';
import { elementTypes } from './onnxFile.ts';
import { allRows } from './weightsFile.ts';

/** Largest finite f16. */
const float16Max = 65504;

/** What a layer's cache has room for. */
type CacheDims = Omit<LayerCachePlan, 'span' | 'type'>;

/** As f32. */
interface CachedLayer {
  /** `[kvHeads, 1, keyDim, cached]` */
  readonly keys: Value;
  /** `[kvHeads, 1, valueDim, cached]` */
  readonly values: Value;
  /** Of the tokens that the layer sees. */
  readonly span: Span;
}

/** `mask`: 0 or −∞ `[tokens, cached + tokens]`; `sizes`: `[cached, tokens]` int64 */
interface Span {
  readonly index: number;
  readonly mask: Value;
  readonly sizes: Value;
}

/** Names the inputs that layers share, and collects what every layer caches. */
export class AttentionInputs {
  readonly rotations: RotationPlan[] = [];
  readonly spans: SpanPlan[] = [];
  readonly layers: LayerCachePlan[] = [];
  readonly #newRows: { readonly value: Value; readonly dim: number; readonly rows: number }[] = [];
  readonly #graph: GraphBuilder;
  readonly #cacheType: CacheType;

  constructor(graph: GraphBuilder, cacheType: CacheType) {
    this.#graph = graph;
    this.#cacheType = cacheType;
  }

  /** cos and sin at the positions of the new tokens. `[tokens, dimensions / 2]` */
  rotation(rope: RopeSpec, scale: number): { readonly cos: Value; readonly sin: Value } {
    const wanted = JSON.stringify({ rope, scale });
    let index = this.rotations.findIndex((known) => JSON.stringify(known) === wanted);
    if (index < 0) {
      index = this.rotations.push({ rope, scale }) - 1;
      for (const name of ['cos', 'sin'])
        this.#graph.input(`${name}.${index}`, 'float32', ['tokens', rope.dimensions / 2]);
    }
    return { cos: `cos.${index}`, sin: `sin.${index}` };
  }

  #span(slidingWindow: number | undefined): Span {
    let index = this.spans.findIndex((known) => known.slidingWindow === slidingWindow);
    if (index < 0) {
      index = this.spans.push(slidingWindow === undefined ? {} : { slidingWindow }) - 1;
      this.#graph.input(`mask.${index}`, 'float32', ['tokens', `visible.${index}`]);
      this.#graph.input(`sizes.${index}`, 'int64', [2]);
    }
    return { index, mask: `mask.${index}`, sizes: `sizes.${index}` };
  }

  /**
   * What the next layer has cached. To be asked for before the layer's query is computed: of two nodes that a node waits for,
   * ONNX Runtime runs the one that was added later first, and would else widen the caches of all layers before the first
   * layer, in memory for all of them.
   */
  cached(dims: CacheDims, slidingWindow: number | undefined): CachedLayer {
    const graph = this.#graph;
    const type = this.#cacheType;
    const span = this.#span(slidingWindow);
    const layer = this.layers.push({ ...dims, type, span: span.index }) - 1;
    const input = (name: string, dim: number): Value => {
      const shape = [dims.keyValueHeads, 1, dim, `cached.${span.index}`];
      const value = graph.input(`${name}.${layer}`, type, shape);
      return type === 'float32' ? value : graph.op('Cast', [value], { to: elementTypes.float32 });
    };
    return { keys: input('keys', dims.keyDim), values: input('values', dims.valueDim), span };
  }

  /** Of the layer that was last asked for: new keys and values, `[kvHeads, 1, dim, tokens]`. */
  keep(keys: Value, values: Value): void {
    const layer = this.layers.at(-1);
    if (!layer) throw new Error('no layer caches anything');
    const { keyValueHeads, keyDim, valueDim, valuesInKeys } = layer;
    this.#newRows.push({ value: keys, dim: keyDim, rows: keyValueHeads * keyDim });
    if (!valuesInKeys) this.#newRows.push({ value: values, dim: valueDim, rows: keyValueHeads * valueDim });
  }

  /** New keys and values of every layer, one below the other, as they are cached. `[rows, tokens]` */
  allNewRows(): Value {
    const graph = this.#graph;
    const cacheType = this.#cacheType;
    const rows = this.#wideRows();
    if (cacheType === 'float32') return rows;
    // What f16 cannot hold becomes its largest number: an infinite key would make every later probability NaN.
    const within = graph.op('Clip', [rows, graph.float32(-float16Max), graph.float32(float16Max)]);
    return graph.op('Cast', [within], { to: elementTypes.float16 });
  }

  #wideRows(): Value {
    const graph = this.#graph;
    const newRows = this.#newRows;
    const flat = (value: Value, rows: number): Value => graph.reshape(value, [rows, -1]);
    const values = newRows.map(({ value }) => value);
    const allRows = newRows.reduce((sum, { rows }) => sum + rows, 0);
    // Fewer nodes where the layers' shapes are alike.
    if (new Set(newRows.map(({ dim }) => dim)).size === 1)
      return flat(graph.op('Concat', values, { axis: 0 }), allRows);
    const flatValues = newRows.map(({ value, rows }) => flat(value, rows));
    return graph.op('Concat', flatValues, { axis: 0 });
  }
}

/** `input`: normalised hidden states `[1, tokens, hidden]`; so is the result. */
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
  let [query, key, value] = headLinears(context, input, parts, headDim) as [Value, Value, Value];
  if (weights.queryNorm) query = rmsNorm(context, query, weights.queryNorm);
  if (weights.keyNorm) key = rmsNorm(context, key, weights.keyNorm);
  query = rotate(context, inputs, query, spec.rope, softmaxScale);
  key = rotate(context, inputs, key, spec.rope, 1);
  const group = numAttentionHeads / numKeyValueHeads;
  const mixed = attend(context, inputs, {
    query: graph.reshape(query, [numKeyValueHeads, group, 0, headDim]),
    key: tokensLast(graph, key),
    value: tokensLast(graph, value),
    cached,
    ...(weights.sinks && {
      sinks: graph.stored(context.layout.floats([allRows(weights.sinks)]), [numKeyValueHeads, group, 1, 1]),
    }),
  });
  const rows = graph.transpose(mixed, [2, 0, 1, 3]);
  return linear(context, graph.reshape(rows, [1, -1, numAttentionHeads * headDim]), weights.output);
}

/** `[1, heads, tokens, headDim]`; `scale` multiplies the result. */
export function rotate(
  { graph }: GraphContext,
  inputs: AttentionInputs,
  value: Value,
  rope: RopeSpec,
  scale: number,
): Value {
  const { cos, sin } = inputs.rotation(rope, scale);
  // A single position is that of the first token; the tables begin there.
  return graph.contrib('RotaryEmbedding', [value, graph.int64([0]), cos, sin], {
    interleaved: rope.layout === 'interleaved' ? 1 : 0,
  });
}

/** `[1, heads, tokens, headDim]` to `[heads, 1, headDim, tokens]` */
export function tokensLast(graph: GraphBuilder, value: Value): Value {
  return graph.transpose(value, [1, 0, 3, 2]);
}

export interface Attended {
  /** Rotated and scaled. `[kvHeads, group, tokens, keyDim]` */
  readonly query: Value;
  /** `[kvHeads, 1, keyDim, tokens]` */
  readonly key: Value;
  /** `[kvHeads, 1, valueDim, tokens]` */
  readonly value: Value;
  readonly cached: CachedLayer;
  /** `[kvHeads, group, 1, 1]` */
  readonly sinks?: Value;
}

/** `[kvHeads, group, tokens, valueDim]` */
export function attend({ graph }: GraphContext, inputs: AttentionInputs, attended: Attended): Value {
  const { query, key, value, cached, sinks } = attended;
  const { mask, sizes } = cached.span;
  inputs.keep(key, value);
  const scores = graph.op('Concat', [graph.op('MatMul', [query, cached.keys]), graph.op('MatMul', [query, key])], {
    axis: -1,
  });
  const masked = graph.op('Add', [scores, mask]);
  const [old, fresh] = sinks
    ? softmaxWithSinks(graph, masked, sizes, sinks)
    : graph.split(graph.op('Softmax', [masked], { axis: -1 }), { sizes, count: 2 });
  return graph.op('Add', [
    graph.contrib('FusedMatMul', [old as Value, cached.values], { transB: 1 }),
    graph.contrib('FusedMatMul', [fresh as Value, value], { transB: 1 }),
  ]);
}

/** The sink is one more score of every query, whose probability is dropped. */
function softmaxWithSinks(graph: GraphBuilder, scores: Value, sizes: Value, sinks: Value): Value[] {
  const shape = graph.op('Concat', [graph.op('Shape', [scores], { start: 0, end: 3 }), graph.int64([1])], { axis: 0 });
  const all = graph.op('Concat', [scores, graph.op('Expand', [sinks, shape])], { axis: -1 });
  const threeSizes = graph.op('Concat', [sizes, graph.int64([1])], { axis: 0 });
  return graph.split(graph.op('Softmax', [all], { axis: -1 }), { sizes: threeSizes, count: 3 });
}

// Multi-head latent attention (DeepSeek-V2, section 2.1) in its absorbed form: the query goes through the key's
// expansion and the mixed latents through the value's, so that all heads attend to one cached vector a token.

/** `input`: normalised hidden states `[1, tokens, hidden]`; so is the result. */
export function latentAttention(
  context: GraphContext,
  inputs: AttentionInputs,
  spec: LatentAttentionSpec,
  weights: LatentWeights,
  input: Value,
): Value {
  const { graph } = context;
  const { numAttentionHeads, keyValueRank, ropeHeadDim, valueHeadDim } = spec;
  const width = keyValueRank + ropeHeadDim;
  const dims = { keyValueHeads: 1, keyDim: width, valueDim: keyValueRank, valuesInKeys: true };
  const cached = inputs.cached(dims, undefined);
  const compressed = headLinears(context, input, [linearRows({ weight: weights.keyValueDown })], width)[0] as Value;
  const [down, roped] = graph.split(compressed, [keyValueRank, ropeHeadDim]) as [Value, Value];
  const latent = rmsNorm(context, down, weights.keyValueNorm);
  // One key for all heads, and not normalised.
  const position = rotate(context, inputs, roped, spec.rope, 1);
  const mixed = attend(context, inputs, {
    query: absorbedQuery(context, inputs, spec, weights, input),
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
  const { numAttentionHeads, keyValueRank, nopeHeadDim, ropeHeadDim, softmaxScale } = spec;
  const compressed = weights.queryDown ? linear(context, input, { weight: weights.queryDown }) : input;
  const normed = weights.queryNorm ? rmsNorm(context, compressed, weights.queryNorm) : compressed;
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
  return graph.op('Concat', [absorbed, rotate(context, inputs, roped, spec.rope, softmaxScale)], { axis: -1 });
}

/** A batch of matrices, one a head: no operator multiplies batches of quantised ones. */
function floatMatrix({ graph, layout }: GraphContext, weight: Weight, shape: readonly number[]): Value {
  return graph.stored(layout.floats([allRows(weight)]), shape);
}
