/**
 * Norms of rows of `width` values, a multiple of 4; `accumulate`: adds to y.
 * RMSNorm: y[t] = x[t] · gain / √(mean(x[t]²) + epsilon). LayerNorm: y[t] = (x[t] − mean(x[t])) · gain / √(variance(x[t]) + epsilon) + bias.
 *
 * Bindings: x vec4f, gain `[width]` vec4f (LayerNorm: gain, then bias, `[2, width]`), y `[tokens, width]` vec4f (write). Workgroup: 64
 * threads a row; groups: rows in x. Needs no features; uses subgroups. Must equal `rmsNorm` and `layerNorm` of backend/reference.
 */
import type { DecoderSpec } from '../../../model/spec/spec.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, reductionCode, subgroupsEnable, write } from './bindings.ts';

export function normKernel(
  { norm, normEpsilon: epsilon }: Pick<DecoderSpec, 'norm' | 'normEpsilon'>,
  width: number,
  capabilities: GpuCapabilities,
  accumulate = false,
): KernelSource {
  const quads = width / 4;
  const isLayer = norm === 'layer';
  const buffers = declareBuffers([read('x', 'vec4f'), read('gain', 'vec4f'), write('y', 'vec4f')]);
  // Squares the deviations, not the values, because the mean may be much larger than the deviations.
  const mean = /* wgsl */ `
  var sum = vec4f();
  for (var i = thread; i < ${quads}u; i += 64u) { sum += x[first + i]; }
  reduce(thread, sum);
  let mean = dot(totals[0], vec4f(1.0)) / ${width}.0;`;
  const centred = isLayer ? '(x[first + i] - mean)' : 'x[first + i]';
  const code = /* wgsl */ `
${subgroupsEnable(capabilities)}
${buffers.code}
${reductionCode(1, 64, capabilities)}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let first = group.x * ${quads}u;
  ${isLayer ? mean : ''}
  var squares = vec4f();
  for (var i = thread; i < ${quads}u; i += 64u) { squares += ${centred} * ${centred}; }
  reduce(thread, squares);
  let scale = inverseSqrt(dot(totals[0], vec4f(1.0)) / ${width}.0 + ${epsilon});
  for (var i = thread; i < ${quads}u; i += 64u) {
    y[first + i] ${accumulate ? '+=' : '='} ${centred} * gain[i] * scale${isLayer ? ` + gain[${quads}u + i]` : ''};
  }
}
`;
  const name = isLayer ? 'layerNorm' : 'rmsNorm';
  return { label: `${name} ${width}${accumulate ? ' added' : ''}`, code, bindings: buffers.bindings };
}
