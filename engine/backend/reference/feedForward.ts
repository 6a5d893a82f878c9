/** The feed-forward half of a layer: one gated network, or a few chosen of many (mixture of experts). */
import type { Activation, ExpertsSpec } from '../../model/spec/spec.ts';
import { linear } from './linear.ts';
import { route } from './router.ts';
import type { ExpertsLayer, GatedNetwork } from './weights.ts';

/** `down · activation(gate · x, up · x)`. `[tokens, hidden]` to the same */
export function gatedNetwork(network: GatedNetwork, activation: Activation, input: Float32Array): Float32Array {
  const gate = linear(input, network.gate.weight, network.gate.bias);
  const up = linear(input, network.up.weight, network.up.bias);
  for (let i = 0; i < gate.length; i++) gate[i] = activate(activation, gate[i] as number, up[i] as number);
  return linear(gate, network.down.weight, network.down.bias);
}

function activate(activation: Activation, gate: number, up: number): number {
  if (activation.kind === 'silu-gate') return gate * sigmoid(gate) * up;
  const { alpha, limit } = activation;
  // The gate is clamped from above only (openai/gpt-oss torch/model.py, swiglu).
  const clampedGate = Math.min(gate, limit);
  const clampedUp = Math.min(Math.max(up, -limit), limit);
  return (clampedUp + 1) * clampedGate * sigmoid(alpha * clampedGate);
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** Tokens are gathered by expert, so that each expert is fetched once. `[tokens, hidden]` to the same */
export async function expertNetworks(
  spec: ExpertsSpec,
  layer: ExpertsLayer,
  input: Float32Array,
): Promise<Float32Array> {
  const hidden = layer.router.weight.columns;
  const output = layer.shared ? gatedNetwork(layer.shared, spec.activation, input) : new Float32Array(input.length);
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
