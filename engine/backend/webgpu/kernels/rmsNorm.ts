/**
 * y[t] = x[t] · gain / √(mean(x[t]²) + epsilon), rows of `width` (a multiple of 4); `accumulate`: y[t] += the same.
 *
 * Bindings: x vec4f, gain `[width]` vec4f, y `[tokens, width]` vec4f (write). Workgroup: 64 threads a row; groups: rows in x.
 * Needs no features; uses subgroups. Must equal `rmsNorm` of backend/reference.
 */
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, reductionCode, subgroupsEnable, write } from './bindings.ts';

export function rmsNormKernel(
  width: number,
  epsilon: number,
  capabilities: GpuCapabilities,
  accumulate = false,
): KernelSource {
  const buffers = declareBuffers([read('x', 'vec4f'), read('gain', 'vec4f'), write('y', 'vec4f')]);
  const code = /* wgsl */ `
${subgroupsEnable(capabilities)}
${buffers.code}
${reductionCode(1, 64, capabilities)}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let first = group.x * ${width / 4}u;
  var squares = vec4f();
  for (var i = thread; i < ${width / 4}u; i += 64u) { squares += x[first + i] * x[first + i]; }
  reduce(thread, squares);
  let scale = inverseSqrt(dot(totals[0], vec4f(1.0)) / ${width}.0 + ${epsilon});
  for (var i = thread; i < ${width / 4}u; i += 64u) { y[first + i] ${accumulate ? '+=' : '='} x[first + i] * gain[i] * scale; }
}
`;
  return { label: `rmsNorm ${width}${accumulate ? ' added' : ''}`, code, bindings: buffers.bindings };
}
