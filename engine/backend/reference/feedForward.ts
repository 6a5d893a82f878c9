/** The feed-forward block of a layer: one MLP with or without a gate, or a mixture of experts. */
import type { Activation, ExpertsSpec } from '../../model/spec/spec.ts';
import { linear, softmax } from './linear.ts';
import type { ExpertsLayer, GatedNetwork, PlainNetwork } from './weights.ts';

/** `down · activation(gate · x, up · x)`. `[tokens, hidden]` to the same shape */
export function gatedNetwork(network: GatedNetwork, activation: Activation, input: Float32Array): Float32Array {
  const gate = linear(input, network.gate.weight, network.gate.bias);
  const up = linear(input, network.up.weight, network.up.bias);
  for (let i = 0; i < gate.length; i++) gate[i] = activate(activation, gate[i] as number, up[i] as number);
  return linear(gate, network.down.weight, network.down.bias);
}

function activate(activation: Activation, gate: number, up: number): number {
  if (activation.kind === 'silu-gate') return gate * sigmoid(gate) * up;
  if (activation.kind === 'gelu-gate') return gelu(gate) * up;
  const { alpha, limit } = activation;
  // Only the upper end of the gate is clamped (openai/gpt-oss torch/model.py, swiglu).
  const clampedGate = Math.min(gate, limit);
  const clampedUp = Math.min(Math.max(up, -limit), limit);
  return (clampedUp + 1) * clampedGate * sigmoid(alpha * clampedGate);
}

/** `down · gelu(up · x)`. `[tokens, hidden]` to the same shape */
export function plainNetwork({ up, down }: PlainNetwork, input: Float32Array): Float32Array {
  return linear(linear(input, up.weight, up.bias).map(gelu), down.weight, down.bias);
}

/** The tanh approximation (Hendrycks and Gimpel 2016): torch's `gelu(approximate="tanh")`. */
function gelu(x: number): number {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** Groups tokens by expert, so that each expert is expanded once. `[tokens, hidden]` to the same shape */
export async function expertNetworks(
  spec: ExpertsSpec,
  layer: ExpertsLayer,
  input: Float32Array,
): Promise<Float32Array> {
  const hidden = layer.router.weight.columns;
  const output = layer.shared ? gatedNetwork(layer.shared, spec.activation, input) : new Float32Array(input.length);
  if (layer.sharedGate) {
    const gates = linear(input, layer.sharedGate);
    for (let i = 0; i < output.length; i++) {
      output[i] = (output[i] as number) * sigmoid(gates[Math.floor(i / hidden)] as number);
    }
  }
  for (const [expert, visits] of visitsByExpert(spec, layer, input)) {
    const gathered = new Float32Array(visits.length * hidden);
    for (const [i, { token }] of visits.entries()) {
      gathered.set(input.subarray(token * hidden, (token + 1) * hidden), i * hidden);
    }
    const computed = gatedNetwork(await layer.expert(expert), spec.activation, gathered);
    for (const [i, { token, weight }] of visits.entries()) {
      for (let j = 0; j < hidden; j++) {
        const at = token * hidden + j;
        output[at] = (output[at] as number) + weight * (computed[i * hidden + j] as number);
      }
    }
  }
  return output;
}

interface Visit {
  readonly token: number;
  readonly weight: number;
}

function visitsByExpert(spec: ExpertsSpec, layer: ExpertsLayer, input: Float32Array): Map<number, Visit[]> {
  const logits = linear(input, layer.router.weight, layer.router.bias);
  const visits = new Map<number, Visit[]>();
  for (let token = 0; token < logits.length / spec.numExperts; token++) {
    const own = logits.subarray(token * spec.numExperts, (token + 1) * spec.numExperts);
    for (const { expert, weight } of route(spec, own, layer.selectionBias)) {
      const visitors = visits.get(expert) ?? [];
      visitors.push({ token, weight });
      visits.set(expert, visitors);
    }
  }
  return visits;
}

// Routing: the three router kinds of `RouterSpec`.

export interface Choice {
  readonly expert: number;
  readonly weight: number;
}

/** `logits`: one token's `[numExperts]`. `selectionBias` affects which experts are chosen, not their weights. */
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

/** Sets experts outside the best groups to −∞. A group's score is the sum of its two best experts. */
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

/** Indices of the `count` largest values, in descending order; ties go to the lower index. */
function largest(values: ArrayLike<number>, count: number): number[] {
  return Array.from({ length: values.length }, (_, i) => i)
    .sort((a, b) => (values[b] ?? 0) - (values[a] ?? 0) || a - b)
    .slice(0, count);
}
