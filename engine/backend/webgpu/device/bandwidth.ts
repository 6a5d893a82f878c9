/**
 * Measures how fast the device copies within its memory, as a reference for decode, which reads every weight once a
 * token.
 */
import { HearthError } from '../../../errors.ts';
import { PlanBuilder } from '../decoder/recorder.ts';
import { declareBuffers, read, write } from '../kernels/bindings.ts';
import type { Gpu, KernelSource } from './gpu.ts';

/** Larger than any cache; a rasteriser on the CPU would take seconds. */
const deviceBytes = 256 * 1024 * 1024;
const softwareBytes = 16 * 1024 * 1024;
/** Copies in one submission, so that the cost of a submission is negligible. */
const deviceCopies = 16;
const rounds = 3;
const workgroups = 4096;

/** @returns bytes a second, read and written; undefined if two such buffers do not fit. */
export async function measureCopyBandwidth(gpu: Gpu): Promise<number | undefined> {
  const { software, maxBindingBytes } = gpu.capabilities;
  const bytes = software ? softwareBytes : Math.min(deviceBytes, maxBindingBytes);
  const buffers: GPUBuffer[] = [];
  try {
    for (const label of ['copied from', 'copied to']) {
      buffers.push(await gpu.allocate(label, bytes, GPUBufferUsage.STORAGE));
    }
    return await timeCopies(gpu, buffers, bytes, software ? 1 : deviceCopies);
  } catch (error) {
    if (error instanceof HearthError && error.code === 'out-of-memory') return undefined;
    throw error;
  } finally {
    for (const buffer of buffers) gpu.free(buffer);
  }
}

async function timeCopies(gpu: Gpu, buffers: readonly GPUBuffer[], bytes: number, copies: number): Promise<number> {
  const builder = new PlanBuilder(gpu);
  builder.add(copyKernel(), buffers, [workgroups]);
  const plan = await builder.finish();
  const { queue } = gpu.device;
  let leastMs = Number.POSITIVE_INFINITY;
  // The first round warms up.
  for (let round = 0; round <= rounds; round++) {
    const encoder = gpu.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (let i = 0; i < copies; i++) plan.encode(pass);
    pass.end();
    const commands = encoder.finish();
    const startMs = performance.now();
    queue.submit([commands]);
    await queue.onSubmittedWorkDone();
    if (round > 0) leastMs = Math.min(leastMs, performance.now() - startMs);
  }
  return (2 * bytes * copies * 1000) / leastMs;
}

// copied[i] = source[i]: measures the bandwidth of the device's memory.
//
// Bindings: source vec4u, copied vec4u (write). Workgroup: 256 threads, which stride over the buffer; groups: any number in x.
// Needs no features. Must equal a copy.

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
