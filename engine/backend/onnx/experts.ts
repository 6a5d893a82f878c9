/**
 * A mixture of experts: one `If` an expert, so that only those that some token chose are computed, each over all tokens
 * that chose it. (ONNX Runtime's own QMoE was seven times slower on the CPU for one token, onnxruntime 1.30.)
 */
import type { ExpertsSpec } from '../../model/spec/spec.ts';
import type { ExpertsWeights, Linear } from '../../model/weights/weights.ts';
import { columnsOf } from '../../model/weights/weightViews.ts';
import { activate, gatedNetwork } from './gatedNetwork.ts';
import type { GraphBuilder, Value } from './graphBuilder.ts';
import { type GraphContext, type LinearRows, linears } from './linear.ts';
import { elementTypes } from './onnxFile.ts';
import { type Routing, route } from './router.ts';

/** `input` and result: `[1, tokens, hidden]` */
export function expertNetworks(context: GraphContext, spec: ExpertsSpec, weights: ExpertsWeights, input: Value): Value {
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
  return graph.op('Add', [routed, gatedNetwork(context, spec.activation, weights.shared, input)]);
}

/** Whether any token chose the expert, for each expert. `[1]` bool */
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

/** Outputs the tokens that chose the expert `[visits]`, and what it adds to each, weighted. `[visits, hidden]` */
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

/** Σ of the rows by token, as `like`. */
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
