/**
 * x as the sum of two f16, for tiles of subgroup matrices: a row is multiplied by a power of two that brings its largest
 * value to [2^14, 2^15), so that nothing is beyond f16 and 22 bits are kept; high is its rounding, low that of the rest.
 *
 * Bindings: x `[rows, width]` vec4f; halves `[rows, width]` vec4u, words of (high, low) (write), scale `[rows]`, by which a
 * product is multiplied in the end (write). Workgroup: 64 threads a row; groups: rows in x. Needs nothing (its f16 are packed).
 * Must equal x: (high + low) · scale, to 2^-22 of each value and 2^-40 of the row's largest.
 */
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, write } from './bindings.ts';

const threads = 64;

export function splitHalvesKernel(width: number): KernelSource {
  const quads = width / 4;
  const buffers = declareBuffers([read('x', 'vec4f'), write('halves', 'vec4u'), write('scale')]);
  const code = /* wgsl */ `
${buffers.code}
// Bits of a float that is not negative are in the order of the floats.
var<workgroup> largest: atomic<u32>;
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  if (thread == 0u) { atomicStore(&largest, 0u); }
  workgroupBarrier();
  let first = group.x * ${quads}u;
  var most = vec4u();
  for (var i = thread; i < ${quads}u; i += ${threads}u) { most = max(most, bitcast<vec4u>(abs(x[first + i]))); }
  atomicMax(&largest, max(max(most.x, most.y), max(most.z, most.w)));
  workgroupBarrier();
  // Biased exponent of the largest value; below 2^-95 a row counts as that large.
  let exponent = clamp(atomicLoad(&largest) >> 23u, 32u, 254u);
  let up = bitcast<f32>((268u - exponent) << 23u);
  for (var i = thread; i < ${quads}u; i += ${threads}u) {
    let value = x[first + i] * up;
    let high = vec4u(pack2x16float(vec2f(value.x, 0.0)), pack2x16float(vec2f(value.y, 0.0)), pack2x16float(vec2f(value.z, 0.0)), pack2x16float(vec2f(value.w, 0.0)));
    let rest = value - vec4f(unpack2x16float(high.x).x, unpack2x16float(high.y).x, unpack2x16float(high.z).x, unpack2x16float(high.w).x);
    let low = vec4u(pack2x16float(vec2f(0.0, rest.x)), pack2x16float(vec2f(0.0, rest.y)), pack2x16float(vec2f(0.0, rest.z)), pack2x16float(vec2f(0.0, rest.w)));
    halves[first + i] = high | low;
  }
  if (thread == 0u) { scale[group.x] = bitcast<f32>((exponent - 14u) << 23u); }
}
`;
  return { label: `splitHalves ${width}`, code, bindings: buffers.bindings };
}
