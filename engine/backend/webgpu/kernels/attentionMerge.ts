/** The second half of split attention. */
import type { KernelSource } from '../device/gpu.ts';
import type { AttentionShape } from './attention.ts';
import { declareBuffers, read, write } from './bindings.ts';

/**
 * Joins the parts of split attention: Σ part · exp(max − highest) / Σ weight · exp(max − highest), the sink's share included.
 * Bindings: parts `[splits, tokens, heads, valueDim + 4]` vec4f, sinks? `[heads]`; out `[tokens, heads · valueDim]` vec4f (write).
 * Workgroup: 64 threads a head; groups: heads in x, tokens in y.
 */
export function attentionMergeKernel({ heads, valueDim, sinks }: AttentionShape, splits: number): KernelSource {
  const quads = valueDim / 4;
  const buffers = declareBuffers([read('parts', 'vec4f'), ...(sinks ? [read('sinks')] : []), write('out', 'vec4f')]);
  const code = /* wgsl */ `
${buffers.code}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let head = group.y * ${heads}u + group.x;
  let stride = arrayLength(&parts) / ${splits * (quads + 1)}u;
  let used = u32(parts[head * ${quads + 1}u + ${quads}u].z);
  var highest = ${sinks ? 'sinks[group.x]' : '-3.0e38'};
  for (var s = 0u; s < used; s++) { highest = max(highest, parts[(s * stride + head) * ${quads + 1}u + ${quads}u].x); }
  var total = ${sinks ? 'exp(sinks[group.x] - highest)' : '0.0'};
  for (var s = 0u; s < used; s++) {
    let part = parts[(s * stride + head) * ${quads + 1}u + ${quads}u];
    total += part.y * exp(part.x - highest);
  }
  for (var quad = thread; quad < ${quads}u; quad += 64u) {
    var sum = vec4f();
    for (var s = 0u; s < used; s++) {
      let at = (s * stride + head) * ${quads + 1}u;
      sum += parts[at + quad] * exp(parts[at + ${quads}u].x - highest);
    }
    out[head * ${quads}u + quad] = sum / total;
  }
}
`;
  return { label: `attentionMerge ${heads}x${valueDim} s${splits}`, code, bindings: buffers.bindings };
}
