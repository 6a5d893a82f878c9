/** The feed-forward block of a layer: one MLP with or without a gate, or a mixture of experts. */
import type { Activation, ExpertsSpec, FeedForwardSpec, RouterSpec } from '../../model/spec/spec.ts';
import type { DenseWeights, ExpertsWeights, FeedForwardWeights, Linear } from '../../model/weights/weights.ts';
import { columnsOf } from '../../model/weights/weightViews.ts';
import { elementTypes, type GraphBuilder, type Value } from './graphBuilder.ts';
import { type GraphContext, type LinearRows, linear, linearRows, linears } from './linear.ts';
import { allRows } from './weightsFile.ts';

/** `input` and result: `[1, tokens, hidden]`. */
export function feedForward(
  context: GraphContext,
  spec: FeedForwardSpec,
  weights: FeedForwardWeights,
  input: Value,
): Value {
  if (spec.kind === 'dense' && weights.kind === 'dense') return gatedNetwork(context, spec.activation, weights, input);
  if (spec.kind === 'plain' && weights.kind === 'plain') {
    return linear(context, gelu(context.graph, linear(context, input, weights.up)), weights.down);
  }
  if (spec.kind === 'experts' && weights.kind === 'experts') return expertNetworks(context, spec, weights, input);
  throw new Error(`Can't combine ${weights.kind} weights with a ${spec.kind} feed-forward.`);
}

// Gated MLP: `down · activation(gate · x, up · x)`.

/** `input` and result: `[1, tokens, hidden]`. */
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
  if (activation.kind === 'gelu-gate') return graph.op('Mul', [gelu(graph, gate), up]);
  const { alpha, limit } = activation;
  // Only the upper end of the gate is clamped (openai/gpt-oss torch/model.py, swiglu).
  const clampedGate = graph.op('Min', [gate, graph.float32(limit)]);
  const clampedUp = graph.op('Clip', [up, graph.float32(-limit), graph.float32(limit)]);
  const raised = graph.op('Add', [clampedUp, graph.float32(1)]);
  return graph.op('Mul', [sigmoidGate(graph, clampedGate, alpha), raised]);
}

const gelu = (graph: GraphBuilder, x: Value): Value => graph.op('Gelu', [x], { approximate: 'tanh' });

/** x · sigmoid(alpha · x) */
export function sigmoidGate(graph: GraphBuilder, x: Value, alpha: number): Value {
  return graph.contrib('QuickGelu', [x], { alpha: { float: alpha } });
}

// Mixture of experts. Each expert is an `If` node, so that only the chosen experts are computed, each for all of its
// tokens at once. (ONNX Runtime's own QMoE was seven times slower on the CPU for one token, onnxruntime 1.30.)

/** `input` and result: `[1, tokens, hidden]`. */
function expertNetworks(context: GraphContext, spec: ExpertsSpec, weights: ExpertsWeights, input: Value): Value {
  const { graph } = context;
  const routing = route(context, spec, weights, input);
  const hidden = columnsOf(weights.gate.weight.shape);
  const nothing = {
    tokens: graph.op('Cast', [graph.op('ConstantOfShape', [graph.int64([0])])], { to: elementTypes.int64 }),
    rows: graph.op('ConstantOfShape', [graph.int64([0, hidden])]),
  };
  const visits = isVisited(context, routing, spec.numExperts).map((condition, expert) => {
    const then = visitedExpert(context, spec, weights, { routing, input, hidden, expert });
    const otherwise = graph.branch();
    otherwise.result(nothing.tokens, 'int64', ['visits']);
    otherwise.result(nothing.rows, 'float32', ['visits', hidden]);
    return graph.conditional(condition, { then, else: otherwise }, 2) as [Value, Value];
  });
  const routed = addRows(context, input, visits);
  if (!weights.shared) return routed;
  const shared = gatedNetwork(context, spec.activation, weights.shared, input);
  const gate = weights.sharedGate && graph.op('Sigmoid', [linear(context, input, { weight: weights.sharedGate })]);
  return graph.op('Add', [routed, gate === undefined ? shared : graph.op('Mul', [shared, gate])]);
}

/** For each expert, whether any token chose it. `[1]` bool each */
function isVisited({ graph }: GraphContext, { experts }: Routing, numExperts: number): Value[] {
  const chosen = graph.reshape(experts, [-1]);
  const yes = graph.op('Expand', [graph.float32(1), graph.op('Shape', [chosen])]);
  const no = graph.op('Expand', [graph.float32(0), graph.int64([numExperts])]);
  const marked = graph.op('ScatterElements', [no, chosen, yes], { axis: 0 });
  const conditions = graph.op('Cast', [marked], { to: elementTypes.bool });
  return graph.split(conditions, new Array<number>(numExperts).fill(1), 0);
}

interface Visit {
  readonly routing: Routing;
  readonly input: Value;
  readonly hidden: number;
  readonly expert: number;
}

/** Outputs the token indices that chose the expert `[visits]` and its weighted output for each `[visits, hidden]`. */
function visitedExpert(
  outer: GraphContext,
  spec: ExpertsSpec,
  weights: ExpertsWeights,
  { routing, input, hidden, expert }: Visit,
): GraphBuilder {
  const graph = outer.graph.branch();
  const context = { ...outer, graph, blockMeans: new Map<string, Value>() };
  const places = graph.op('NonZero', [graph.op('Equal', [routing.experts, graph.int64([expert])])]);
  const tokens = graph.reshape(graph.split(places, [1, 1], 0)[0] as Value, [-1]);
  const [gate, up] = linears(context, graph.op('Gather', [input, tokens], { axis: 1 }), [
    expertRows(weights.gate, expert, spec.intermediateSize),
    expertRows(weights.up, expert, spec.intermediateSize),
  ]) as [Value, Value];
  const activated = activate(graph, spec.activation, gate, up);
  const [down] = linears(context, activated, [expertRows(weights.down, expert, hidden)]) as [Value];
  const shares = graph.op('GatherND', [routing.weights, graph.transpose(places, [1, 0])]);
  const rows = graph.op('Mul', [graph.reshape(down, [-1, hidden]), graph.op('Unsqueeze', [shares, graph.int64([-1])])]);
  graph.result(tokens, 'int64', ['visits']);
  graph.result(rows, 'float32', ['visits', hidden]);
  return graph;
}

function expertRows({ weight, bias }: Linear, expert: number, rows: number): LinearRows {
  return {
    weight: { weight, firstRow: expert * rows, rows },
    ...(bias && { bias: { weight: bias, firstRow: expert, rows: 1 } }),
  };
}

/** Sums the rows of each token. Returns the shape of `like`: `[1, tokens, hidden]`. */
function addRows({ graph }: GraphContext, like: Value, visits: readonly (readonly [Value, Value])[]): Value {
  const tokens = graph.op(
    'Concat',
    visits.map(([ids]) => ids),
    { axis: 0 },
  );
  const rows = graph.op(
    'Concat',
    visits.map(([, values]) => values),
    { axis: 0 },
  );
  const flat = graph.op('Squeeze', [like, graph.int64([0])]);
  const zeros = graph.op('Expand', [graph.float32(0), graph.op('Shape', [flat])]);
  const places = graph.op('Unsqueeze', [tokens, graph.int64([-1])]);
  return graph.op('Unsqueeze', [graph.op('ScatterND', [zeros, places, rows], { reduction: 'add' }), graph.int64([0])]);
}

// Routing: the three router kinds of `RouterSpec`.

interface Routing {
  /** `[tokens, expertsPerToken]` int64 */
  readonly experts: Value;
  /** `[tokens, expertsPerToken]` f32 */
  readonly weights: Value;
}

/** `input`: `[1, tokens, hidden]` */
function route(context: GraphContext, spec: ExpertsSpec, weights: ExpertsWeights, input: Value): Routing {
  const { graph } = context;
  const logits = linear(context, input, weights.router);
  const bias = weights.selectionBias && graph.stored(context.layout.floats([allRows(weights.selectionBias)]));
  const chosen = choose(graph, spec, graph.reshape(logits, [-1, spec.numExperts]), bias);
  if (spec.routedScale === 1) return chosen;
  return { ...chosen, weights: graph.op('Mul', [chosen.weights, graph.float32(spec.routedScale)]) };
}

/** `logits`: `[tokens, experts]`. */
function choose(
  graph: GraphBuilder,
  { router, numExperts, expertsPerToken }: ExpertsSpec,
  logits: Value,
  bias: Value | undefined,
): Routing {
  switch (router.kind) {
    case 'topk-then-softmax': {
      const { values, indices } = graph.largest(logits, expertsPerToken);
      return { experts: indices, weights: graph.op('Softmax', [values], { axis: -1 }) };
    }
    case 'softmax-then-topk': {
      const { values, indices } = graph.largest(graph.op('Softmax', [logits], { axis: -1 }), expertsPerToken);
      return { experts: indices, weights: router.renormalise ? shareOfSum(graph, values) : values };
    }
    case 'sigmoid-grouped': {
      const scores = graph.op('Sigmoid', [logits]);
      const selection = bias ? graph.op('Add', [scores, bias]) : scores;
      const kept = keepBestGroups(graph, selection, router, numExperts);
      const { indices } = graph.largest(kept, expertsPerToken);
      const values = graph.op('GatherElements', [scores, indices], { axis: 1 });
      return { experts: indices, weights: router.renormalise ? shareOfSum(graph, values) : values };
    }
  }
}

function shareOfSum(graph: GraphBuilder, values: Value): Value {
  return graph.op('Div', [values, graph.op('ReduceSum', [values, graph.int64([-1])], { keepdims: 1 })]);
}

/**
 * Sets experts outside the best groups to −∞. A group's score is the sum of its two best experts. `[tokens, experts]`
 */
function keepBestGroups(
  graph: GraphBuilder,
  selection: Value,
  { groups, groupsUsed }: Extract<RouterSpec, { kind: 'sigmoid-grouped' }>,
  numExperts: number,
): Value {
  const width = numExperts / groups;
  const grouped = graph.reshape(selection, [-1, groups, width]);
  const best = graph.largest(grouped, Math.min(2, width)).values;
  const groupScores = graph.op('ReduceSum', [best, graph.int64([-1])], { keepdims: 0 });
  const { indices } = graph.largest(groupScores, groupsUsed);
  const hidden = graph.op('Expand', [graph.float32(Number.NEGATIVE_INFINITY), graph.op('Shape', [groupScores])]);
  const shown = graph.op('Expand', [graph.float32(0), graph.op('Shape', [indices])]);
  const mask = graph.op('ScatterElements', [hidden, indices, shown], { axis: 1 });
  const masked = graph.op('Add', [grouped, graph.op('Unsqueeze', [mask, graph.int64([-1])])]);
  return graph.reshape(masked, [-1, numExperts]);
}
