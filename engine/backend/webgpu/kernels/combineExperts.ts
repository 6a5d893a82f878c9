/**
 * y[t] (+)= Σ over slots of weight · x[t, slot]: adds the outputs of a prompt's experts to the residual stream.
 *
 * Bindings: x `[tokens, topK, width]` vec4f, weights `[tokens, topK]`, y `[tokens, width]` vec4f (write). Workgroup: 64
 * threads, four values each; groups: width in x, tokens in y. Needs no features. Must equal the sum in `expertNetworks` of
 * backend/reference.
 */
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, write } from './bindings.ts';

export function combineExpertsKernel(width: number, topK: number, accumulate: boolean): KernelSource {
  const quads = width / 4;
  const buffers = declareBuffers([read('x', 'vec4f'), read('weights'), write('y', 'vec4f')]);
  const code = /* wgsl */ `
${buffers.code}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) at: vec3u) {
  if (at.x >= ${quads}u) { return; }
  var sum = ${accumulate ? `y[at.y * ${quads}u + at.x]` : 'vec4f()'};
  for (var visit = at.y * ${topK}u; visit < (at.y + 1u) * ${topK}u; visit++) { sum += weights[visit] * x[visit * ${quads}u + at.x]; }
  y[at.y * ${quads}u + at.x] = sum;
}
`;
  return { label: `combineExperts ${topK}x${width}`, code, bindings: buffers.bindings };
}

export const combineExpertsGroups = (width: number, tokens: number): [number, number] => [
  Math.ceil(width / 256),
  tokens,
];
