/**
 * Attention over cached and new tokens. The cache is an input and never an output (the Node.js binding copies every
 * output): scores of the cached and of the new tokens meet in one softmax, and only the new keys and values come back.
 *
 * Keys and values lie with the token index last, `[kvHeads, 1, headDim, tokens]`: for one new token both products are
 * then vector times matrix, for which MLAS has kernels that read the cache once, in order, and pack nothing.
 */
import type { GroupedQueryAttentionSpec, RopeSpec } from '../../model/spec.ts';
import type { GroupedQueryWeights } from '../../model/weights.ts';
import type { GraphBuilder, Value } from './graphBuilder.ts';
import { type GraphContext, linear, linearRows, linears } from './linear.ts';
import { rmsNorm } from './norm.ts';
import type { LayerCachePlan, RotationPlan, SpanPlan } from './plan.ts';
import { allRows } from './weightsFile.ts';

/** Names the inputs that layers share, and collects what every layer caches. */
export class AttentionInputs {
  readonly rotations: RotationPlan[] = [];
  readonly spans: SpanPlan[] = [];
  readonly layers: LayerCachePlan[] = [];
  /** New keys and values of every layer in order. `[kvHeads · headDim, tokens]` each */
  readonly cached: Value[] = [];
  private readonly graph: GraphBuilder;

  constructor(graph: GraphBuilder) {
    this.graph = graph;
  }

  /** cos and sin at the positions of the new tokens. `[tokens, dimensions / 2]` */
  rotation(rope: RopeSpec, scale: number): { readonly cos: Value; readonly sin: Value } {
    const wanted = JSON.stringify({ rope, scale });
    let index = this.rotations.findIndex((known) => JSON.stringify(known) === wanted);
    if (index < 0) {
      index = this.rotations.push({ rope, scale }) - 1;
      for (const name of ['cos', 'sin'])
        this.graph.input(`${name}.${index}`, 'float32', ['tokens', rope.dimensions / 2]);
    }
    return { cos: `cos.${index}`, sin: `sin.${index}` };
  }

  /** `mask`: 0 or −∞ `[tokens, cached + tokens]`; `sizes`: `[cached, tokens]` int64 */
  span(slidingWindow: number | undefined): { readonly index: number; readonly mask: Value; readonly sizes: Value } {
    let index = this.spans.findIndex((known) => known.slidingWindow === slidingWindow);
    if (index < 0) {
      index = this.spans.push(slidingWindow === undefined ? {} : { slidingWindow }) - 1;
      this.graph.input(`mask.${index}`, 'float32', ['tokens', `visible.${index}`]);
      this.graph.input(`sizes.${index}`, 'int64', [2]);
    }
    return { index, mask: `mask.${index}`, sizes: `sizes.${index}` };
  }

  /** `newKeys`, `newValues`: `[kvHeads, 1, dim, tokens]`. @returns the cached ones. */
  cache(plan: LayerCachePlan, newKeys: Value, newValues: Value): { readonly keys: Value; readonly values: Value } {
    const layer = this.layers.push(plan) - 1;
    const { keyValueHeads, keyDim, valueDim, valuesInKeys, span } = plan;
    const input = (name: string, dim: number): Value =>
      this.graph.input(`${name}.${layer}`, 'float32', [keyValueHeads, 1, dim, `cached.${span}`]);
    this.cached.push(this.graph.reshape(newKeys, [keyValueHeads * keyDim, -1]));
    if (!valuesInKeys) this.cached.push(this.graph.reshape(newValues, [keyValueHeads * valueDim, -1]));
    return { keys: input('keys', keyDim), values: input('values', valueDim) };
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
  const projected = linears(context, input, [weights.query, weights.key, weights.value].map(linearRows));
  let [query, key, value] = projected as [Value, Value, Value];
  if (weights.queryNorm) query = headNorm(context, query, { heads: numAttentionHeads, headDim }, weights.queryNorm);
  if (weights.keyNorm) key = headNorm(context, key, { heads: numKeyValueHeads, headDim }, weights.keyNorm);
  query = rotate(context, inputs, query, spec.rope, { heads: numAttentionHeads, scale: softmaxScale });
  key = rotate(context, inputs, key, spec.rope, { heads: numKeyValueHeads, scale: 1 });
  const grouped = graph.reshape(query, [-1, numKeyValueHeads, numAttentionHeads / numKeyValueHeads, headDim]);
  const mixed = attend(context, inputs, {
    query: graph.transpose(grouped, [1, 2, 0, 3]),
    key: tokensLast(graph, key, numKeyValueHeads, headDim),
    value: tokensLast(graph, value, numKeyValueHeads, headDim),
    dims: { keyValueHeads: numKeyValueHeads, keyDim: headDim, valueDim: headDim, valuesInKeys: false },
    slidingWindow: spec.slidingWindow,
    ...(weights.sinks && { sinks: graph.stored(context.layout.floats([allRows(weights.sinks)])) }),
  });
  const rows = graph.transpose(mixed, [2, 0, 1, 3]);
  return linear(context, graph.reshape(rows, [1, -1, numAttentionHeads * headDim]), weights.output);
}

interface Heads {
  readonly heads: number;
  readonly headDim: number;
}

function headNorm(
  context: GraphContext,
  value: Value,
  { heads, headDim }: Heads,
  weight: GroupedQueryWeights['sinks'],
) {
  if (!weight) return value;
  const { graph } = context;
  const normed = rmsNorm(context, graph.reshape(value, [0, -1, heads, headDim]), weight);
  return graph.reshape(normed, [0, 0, heads * headDim]);
}

/** `[1, tokens, heads · headDim]` */
export function rotate(
  { graph }: GraphContext,
  inputs: AttentionInputs,
  value: Value,
  rope: RopeSpec,
  { heads, scale }: { readonly heads: number; readonly scale: number },
): Value {
  const { cos, sin } = inputs.rotation(rope, scale);
  const attributes = { interleaved: rope.layout === 'interleaved' ? 1 : 0, num_heads: heads };
  // A single position is that of the first token; the tables begin there.
  return graph.contrib('RotaryEmbedding', [value, graph.int64([0]), cos, sin], attributes);
}

/** `[1, tokens, heads · headDim]` to `[heads, 1, headDim, tokens]` */
export function tokensLast(graph: GraphBuilder, value: Value, heads: number, headDim: number): Value {
  return graph.transpose(graph.reshape(value, [-1, heads, 1, headDim]), [1, 2, 3, 0]);
}

export interface Attended {
  /** Rotated and scaled. `[kvHeads, group, tokens, keyDim]` */
  readonly query: Value;
  /** `[kvHeads, 1, keyDim, tokens]` */
  readonly key: Value;
  /** `[kvHeads, 1, valueDim, tokens]` */
  readonly value: Value;
  readonly dims: Omit<LayerCachePlan, 'span'>;
  readonly slidingWindow: number | undefined;
  /** `[heads]` */
  readonly sinks?: Value;
}

/** `[kvHeads, group, tokens, valueDim]` */
export function attend({ graph }: GraphContext, inputs: AttentionInputs, attended: Attended): Value {
  const { query, key, value, dims, slidingWindow, sinks } = attended;
  const { index, mask, sizes } = inputs.span(slidingWindow);
  const cached = inputs.cache({ ...dims, span: index }, key, value);
  const scores = graph.op('Concat', [graph.op('MatMul', [query, cached.keys]), graph.op('MatMul', [query, key])], {
    axis: -1,
  });
  const masked = graph.op('Add', [scores, mask]);
  const [old, fresh] = sinks
    ? softmaxWithSinks(graph, masked, sizes, sinks, dims.keyValueHeads)
    : graph.split(graph.op('Softmax', [masked], { axis: -1 }), { sizes, count: 2 });
  return graph.op('Add', [
    graph.contrib('FusedMatMul', [old as Value, cached.values], { transB: 1 }),
    graph.contrib('FusedMatMul', [fresh as Value, value], { transB: 1 }),
  ]);
}

/** The sink is one more score of every query, whose probability is dropped. */
function softmaxWithSinks(
  graph: GraphBuilder,
  scores: Value,
  sizes: Value,
  sinks: Value,
  keyValueHeads: number,
): Value[] {
  const column = graph.reshape(sinks, [keyValueHeads, -1, 1, 1]);
  const shape = graph.op('Concat', [graph.op('Shape', [scores], { start: 0, end: 3 }), graph.int64([1])], { axis: 0 });
  const all = graph.op('Concat', [scores, graph.op('Expand', [column, shape])], { axis: -1 });
  const threeSizes = graph.op('Concat', [sizes, graph.int64([1])], { axis: 0 });
  return graph.split(graph.op('Softmax', [all], { axis: -1 }), { sizes: threeSizes, count: 3 });
}
