/** The feed-forward half of a layer. */

import { unsupported } from '../../errors.ts';
import type { Activation, FeedForwardSpec } from '../../model/spec.ts';
import type { FeedForwardWeights } from '../../model/weights.ts';
import type { GraphBuilder, Value } from './graphBuilder.ts';
import { type GraphContext, linear, linearRows, linears } from './linear.ts';

/** `input` and result: `[1, tokens, hidden]` */
export function feedForward(
  context: GraphContext,
  spec: FeedForwardSpec,
  weights: FeedForwardWeights,
  input: Value,
): Value {
  if (spec.kind === 'dense' && weights.kind === 'dense') {
    const { gate, up, down } = weights;
    const [gated, raised] = linears(context, input, [linearRows({ weight: gate }), linearRows({ weight: up })]);
    const activated = activate(context.graph, spec.activation, gated as Value, raised as Value);
    return linear(context, activated, { weight: down });
  }
  throw unsupported('The ONNX backend does not compute experts.');
}

export function activate(graph: GraphBuilder, activation: Activation, gate: Value, up: Value): Value {
  if (activation.kind === 'silu-gate') return graph.op('Mul', [sigmoidGate(graph, gate, 1), up]);
  const { alpha, limit } = activation;
  const clampedGate = graph.op('Min', [gate, graph.float32(limit)]);
  const clampedUp = graph.op('Clip', [up, graph.float32(-limit), graph.float32(limit)]);
  const raised = graph.op('Add', [clampedUp, graph.float32(1)]);
  return graph.op('Mul', [sigmoidGate(graph, clampedGate, alpha), raised]);
}

/** x · sigmoid(alpha · x) */
function sigmoidGate(graph: GraphBuilder, x: Value, alpha: number): Value {
  return graph.contrib('QuickGelu', [x], { alpha: { float: alpha } });
}
