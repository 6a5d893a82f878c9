/**
 * up = activation(gate) · up, element by element, in place.
 *
 * Bindings: gate, up (write), both `[tokens, width]` vec4f. Workgroup: 64 threads, four values each; groups: width in x,
 * tokens in y. Needs no features. Must equal `gatedNetwork`'s activation of backend/reference.
 */
import type { Activation } from '../../../model/spec/spec.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, write } from './bindings.ts';

/** WGSL `fn activate(g: vec4f, u: vec4f) -> vec4f`, for gate and up. Exponents stay finite, because WGSL does not guarantee infinities. */
export function activationCode(activation: Activation): string {
  if (activation.kind === 'silu-gate') {
    return /* wgsl */ `
fn activate(g: vec4f, u: vec4f) -> vec4f { return g / (1.0 + exp(min(-g, vec4f(80.0)))) * u; }`;
  }
  if (activation.kind === 'gelu-gate') {
    // 0.5 · (1 + tanh(y)) is the sigmoid of 2y.
    return /* wgsl */ `
fn activate(g: vec4f, u: vec4f) -> vec4f {
  let y = ${Math.sqrt(2 / Math.PI)} * (g + 0.044715 * g * g * g);
  return g / (1.0 + exp(min(-2.0 * y, vec4f(80.0)))) * u;
}`;
  }
  const { alpha, limit } = activation;
  return /* wgsl */ `
fn activate(all_g: vec4f, all_u: vec4f) -> vec4f {
  let g = min(all_g, vec4f(${limit}));
  let u = clamp(all_u, vec4f(${-limit}), vec4f(${limit}));
  return (u + 1.0) * g / (1.0 + exp(min(-${alpha} * g, vec4f(80.0))));
}`;
}

export function activationKernel(activation: Activation, width: number): KernelSource {
  const quads = width / 4;
  const buffers = declareBuffers([read('gate', 'vec4f'), write('up', 'vec4f')]);
  const code = /* wgsl */ `
${buffers.code}
${activationCode(activation)}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) at: vec3u) {
  if (at.x >= ${quads}u) { return; }
  let i = at.y * ${quads}u + at.x;
  up[i] = activate(gate[i], up[i]);
}
`;
  return { label: `activation ${activation.kind} ${width}`, code, bindings: buffers.bindings };
}

export const activationGroups = (width: number, tokens: number): [number, number] => [Math.ceil(width / 256), tokens];
