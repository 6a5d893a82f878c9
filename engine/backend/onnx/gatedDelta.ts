/**
 * Gated delta net with ONNX Runtime's own operators (1.30). They process one token after the other, so a result doesn't
 * depend on how a prompt is split. The state is an input and an output of the graph; the binding copies it once a pass.
 */
import { type GatedDeltaSpec, keyHeadOf } from '../../model/spec/spec.ts';
import type { GatedDeltaWeights, Weight } from '../../model/weights/weights.ts';
import type { AttentionInputs } from './attention.ts';
import { sigmoidGate } from './feedForward.ts';
import type { Value } from './graphBuilder.ts';
import { type GraphContext, linear, linearRows, linears, rmsNorm } from './linear.ts';
import { allRows } from './weightsFile.ts';

/** Added to a vector's squared length before it is normalised: transformers' `l2norm`. */
const unitEpsilon = 1e-6;

/** `input`: normalised hidden states `[1, tokens, hidden]`. Returns `[1, tokens, hidden]`. */
export function gatedDeltaNet(
  context: GraphContext,
  inputs: AttentionInputs,
  spec: GatedDeltaSpec,
  weights: GatedDeltaWeights,
  input: Value,
): Value {
  const { graph } = context;
  const { numKeyHeads, numValueHeads, keyHeadDim, valueHeadDim } = spec;
  const state = inputs.state(spec);
  const projected = linears(
    context,
    input,
    [weights.query, weights.key, weights.value, weights.gate].map((weight) => linearRows({ weight })),
  );
  const mixed = convolved(context, inputs, spec, weights, { parts: projected.slice(0, 3), before: state.inputs });
  const keyWidth = numKeyHeads * keyHeadDim;
  const valueWidth = numValueHeads * valueHeadDim;
  const [query, key, value] = graph.split(mixed, [keyWidth, keyWidth, valueWidth]) as [Value, Value, Value];
  const beta = graph.op('Sigmoid', [linear(context, input, { weight: weights.beta })]);
  const [output, after] = graph.contribOutputs(
    'LinearAttention',
    [
      unitHeads(context, spec, query),
      unitHeads(context, spec, key),
      value,
      state.matrices,
      decays(context, weights, input),
      beta,
    ],
    {
      q_num_heads: numValueHeads,
      kv_num_heads: numValueHeads,
      update_rule: 'gated_delta',
      scale: { float: keyHeadDim ** -0.5 },
    },
    [true, true],
  ) as [Value, Value];
  inputs.addState(after);
  const normed = rmsNorm(context, graph.reshape(output, [1, 0, numValueHeads, valueHeadDim]), weights.norm);
  const gated = graph.op('Mul', [
    graph.reshape(normed, [1, 0, valueWidth]),
    sigmoidGate(graph, projected[3] as Value, 1),
  ]);
  return linear(context, gated, { weight: weights.output });
}

/** SiLU of the causal convolution of queries, keys and values side by side. `[1, tokens, channels]` */
function convolved(
  { graph, layout }: GraphContext,
  inputs: AttentionInputs,
  { convolutionTokens }: GatedDeltaSpec,
  { convolution }: GatedDeltaWeights,
  { parts, before }: { readonly parts: readonly Value[]; readonly before: Value },
): Value {
  const kernel = graph.stored(layout.floats([allRows(convolution)]), [convolution.shape[0] ?? 1, 1, convolutionTokens]);
  const channelsFirst = graph.transpose(graph.op('Concat', parts, { axis: -1 }), [0, 2, 1]);
  const [output, after] = graph.contribOutputs(
    'CausalConvWithState',
    [channelsFirst, kernel, '', before],
    { activation: 'silu', ndim: 1 },
    [true, true],
  ) as [Value, Value];
  inputs.addState(after);
  return graph.transpose(output, [0, 2, 1]);
}

/** Each key head as a unit vector, once for each value head that it serves. `[1, tokens, valueHeads · keyHeadDim]` */
function unitHeads({ graph }: GraphContext, spec: GatedDeltaSpec, value: Value): Value {
  const { numKeyHeads, numValueHeads, keyHeadDim } = spec;
  const heads = graph.reshape(value, [1, 0, numKeyHeads, keyHeadDim]);
  // RMSNorm divides by the root of the mean: `width` times the mean is the squared length.
  const gain = graph.op('Expand', [graph.float32(keyHeadDim ** -0.5), graph.int64([keyHeadDim])]);
  const unit = graph.op('SimplifiedLayerNormalization', [heads, gain], {
    axis: -1,
    epsilon: { float: unitEpsilon / keyHeadDim },
    stash_type: 1,
  });
  const order = graph.int64(Array.from({ length: numValueHeads }, (_, head) => keyHeadOf(spec, head)));
  const shared = numKeyHeads === numValueHeads ? unit : graph.op('Gather', [unit, order], { axis: 2 });
  return graph.reshape(shared, [1, 0, numValueHeads * keyHeadDim]);
}

/** g of each head. `[1, tokens, valueHeads]` */
function decays(context: GraphContext, { decay, decayBias, decayRate }: GatedDeltaWeights, input: Value): Value {
  const { graph, layout } = context;
  const stored = (weight: Weight): Value => graph.stored(layout.floats([allRows(weight)]));
  const biased = graph.op('Add', [linear(context, input, { weight: decay }), stored(decayBias)]);
  return graph.op('Mul', [graph.op('Softplus', [biased]), stored(decayRate)]);
}
