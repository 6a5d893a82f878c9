/**
 * copied[i] = source[i]: measures the bandwidth of the device's memory.
 *
 * Bindings: source vec4u, copied vec4u (write). Workgroup: 256 threads, which stride over the buffer; groups: any number in x.
 * Needs no features. Must equal a copy.
 */
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, write } from './bindings.ts';

export function copyKernel(): KernelSource {
  const buffers = declareBuffers([read('source', 'vec4u'), write('copied', 'vec4u')]);
  const code = /* wgsl */ `
${buffers.code}
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) at: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var i = at.x; i < arrayLength(&source); i += 256u * groups.x) { copied[i] = source[i]; }
}
`;
  return { label: 'copy', code, bindings: buffers.bindings };
}
