/** `down · activation(gate · x, up · x)` */
import type { Activation } from '../../model/spec/spec.ts';
import type { DenseWeights } from '../../model/weights/weights.ts';
import type { GraphBuilder, Value } from './graphBuilder.ts';
import { type GraphContext, linear, linearRows, linears } from './linear.ts';

/** `input` and result: `[1, tokens, hidden]` */
export function gatedNetwork(
  context: GraphContext,
  activation: Activation,
  { gate, up, down }: DenseWeights,
  input: Value,
): Value {
  const parts = [gate, up].map((weight) => linearRows({ weight }));
  const [gated, raised] = linears(context, input, parts) as [Value, Value];
  return linear(context, activate(context.graph, activation, gated, raised), { weight: down });
}

export function activate(graph: GraphBuilder, activation: Activation, gate: Value, up: Value): Value {
  if (activation.kind === 'silu-gate') return graph.op('Mul', [sigmoidGate(graph, gate, 1), up]);
  const { alpha, limit } = activation;
  // The gate is clamped from above only (openai/gpt-oss torch/model.py, swiglu).
  const clampedGate = graph.op('Min', [gate, graph.float32(limit)]);
  const clampedUp = graph.op('Clip', [up, graph.float32(-limit), graph.float32(limit)]);
  const raised = graph.op('Add', [clampedUp, graph.float32(1)]);
  return graph.op('Mul', [sigmoidGate(graph, clampedGate, alpha), raised]);
}

/** x · sigmoid(alpha · x) */
function sigmoidGate(graph: GraphBuilder, x: Value, alpha: number): Value {
  return graph.contrib('QuickGelu', [x], { alpha: { float: alpha } });
}
