/** Which experts a token goes to, and how much each counts: the three routers that `RouterSpec` names. */
import type { ExpertsSpec } from '../../model/spec/spec.ts';
import { softmax } from './softmax.ts';

export interface Choice {
  readonly expert: number;
  readonly weight: number;
}

/** `logits`: one token's `[numExperts]`; `selectionBias` takes part in the choice, not in the weights. */
export function route(spec: ExpertsSpec, logits: Float32Array, selectionBias?: Float32Array): Choice[] {
  const choices = chosen(spec, logits, selectionBias);
  return choices.map(({ expert, weight }) => ({ expert, weight: weight * spec.routedScale }));
}

function chosen(
  { router, numExperts, expertsPerToken }: ExpertsSpec,
  logits: Float32Array,
  selectionBias: Float32Array | undefined,
): Choice[] {
  switch (router.kind) {
    case 'topk-then-softmax': {
      const experts = largest(logits, expertsPerToken);
      const weights = Float64Array.from(experts, (expert) => logits[expert] ?? 0);
      softmax(weights, weights.length);
      return experts.map((expert, i) => ({ expert, weight: weights[i] ?? 0 }));
    }
    case 'softmax-then-topk': {
      const scores = Float64Array.from(logits);
      softmax(scores, numExperts);
      return weighted(largest(scores, expertsPerToken), scores, router.renormalise);
    }
    case 'sigmoid-grouped': {
      const scores = Float64Array.from(logits, (logit) => 1 / (1 + Math.exp(-logit)));
      const selection = scores.map((score, expert) => score + (selectionBias?.[expert] ?? 0));
      keepBestGroups(selection, router.groups, router.groupsUsed);
      return weighted(largest(selection, expertsPerToken), scores, router.renormalise);
    }
  }
}

function weighted(experts: readonly number[], scores: Float64Array, renormalise: boolean): Choice[] {
  const sum = renormalise ? experts.reduce((total, expert) => total + (scores[expert] ?? 0), 0) : 1;
  return experts.map((expert) => ({ expert, weight: (scores[expert] ?? 0) / sum }));
}

/** A group counts by its two best experts; those of lesser groups become minus infinity. */
function keepBestGroups(selection: Float64Array, groups: number, groupsUsed: number): void {
  const width = selection.length / groups;
  const groupScores = Array.from({ length: groups }, (_, group) => {
    const members = selection.subarray(group * width, (group + 1) * width);
    return largest(members, Math.min(2, width)).reduce((sum, member) => sum + (members[member] ?? 0), 0);
  });
  const kept = new Set(largest(groupScores, groupsUsed));
  for (let group = 0; group < groups; group++) {
    if (!kept.has(group)) selection.fill(Number.NEGATIVE_INFINITY, group * width, (group + 1) * width);
  }
}

/** Indices of the `count` largest values, largest first; of equals the earlier. */
function largest(values: ArrayLike<number>, count: number): number[] {
  return Array.from({ length: values.length }, (_, i) => i)
    .sort((a, b) => (values[b] ?? 0) - (values[a] ?? 0) || a - b)
    .slice(0, count);
}
