/**
 * Multi-head latent attention (DeepSeek-V2, section 2.1) in its absorbed form: the query goes through the key's
 * expansion and the mixed latents through the value's, so that all heads attend to one cached vector a token.
 */
import type { LatentAttentionSpec } from '../../model/spec/spec.ts';
import type { LatentWeights, Weight } from '../../model/weights/weights.ts';
import { type AttentionInputs, attend, rotate, tokensLast } from './attention.ts';
import type { Value } from './graphBuilder.ts';
import { type GraphContext, headLinears, linear, linearRows } from './linear.ts';
import { rmsNorm } from './norm.ts';
import { allRows } from './weightsFile.ts';

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
