/** Which experts a token goes to, and how much each counts: the three routers that `RouterSpec` names. */
import type { ExpertsSpec, RouterSpec } from '../../model/spec/spec.ts';
import type { ExpertsWeights } from '../../model/weights/weights.ts';
import type { GraphBuilder, Value } from './graphBuilder.ts';
import { type GraphContext, linear } from './linear.ts';
import { allRows } from './weightsFile.ts';

export interface Routing {
  /** `[tokens, expertsPerToken]` int64 */
  readonly experts: Value;
  /** `[tokens, expertsPerToken]` f32 */
  readonly weights: Value;
}

/** `input`: `[1, tokens, hidden]` */
export function route(context: GraphContext, spec: ExpertsSpec, weights: ExpertsWeights, input: Value): Routing {
  const { graph } = context;
  const logits = linear(context, input, weights.router);
  const bias = weights.selectionBias && graph.stored(context.layout.floats([allRows(weights.selectionBias)]));
  const chosen = choose(graph, spec, graph.reshape(logits, [-1, spec.numExperts]), bias);
  if (spec.routedScale === 1) return chosen;
  return { ...chosen, weights: graph.op('Mul', [chosen.weights, graph.float32(spec.routedScale)]) };
}

/** `logits`: `[tokens, experts]` */
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

/** A group counts by its two best experts; those of lesser groups become minus infinity. `[tokens, experts]` */
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
