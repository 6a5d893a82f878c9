/** What every kernel test needs: a validating device, poisoned outputs between guard words, seeded data, error bounds. */
import { afterAll, beforeAll, expect } from 'vitest';
import { Gpu, type KernelSource } from '../../engine/backend/webgpu/gpu.ts';

/** `poorest`: the adapter as if it had no subgroups, f16 or matrices. */
export function useGpu(poorest = false): { readonly gpu: Gpu } {
  const holder: { gpu?: Gpu } = {};
  beforeAll(async () => {
    holder.gpu = await Gpu.open({ validate: true, without: poorest ? ['f16', 'subgroups', 'subgroupMatrix'] : [] });
  });
  afterAll(() => holder.gpu?.dispose());
  return {
    get gpu() {
      if (!holder.gpu) throw new Error('The GPU is opened before the first test.');
      return holder.gpu;
    },
  };
}

/** Numerical Recipes' linear congruential generator: the same data on every run. */
export function randomGenerator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

export function randomValues(count: number, seed: number, scale = 1): Float32Array<ArrayBuffer> {
  const next = randomGenerator(seed);
  return Float32Array.from({ length: count }, () => (next() * 2 - 1) * scale);
}

export function randomBytes(count: number, seed: number): Uint8Array<ArrayBuffer> {
  const next = randomGenerator(seed);
  return Uint8Array.from({ length: count }, () => Math.floor(next() * 256));
}

const poison = 0x7fc0dead; // a NaN that nothing computes
const guardWords = 64;

/** Runs `source` once with these inputs and returns its last binding, checking that nothing beyond it was written. */
export async function runKernel(
  gpu: Gpu,
  source: KernelSource,
  inputs: readonly (Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer>)[],
  outputWords: number,
  workgroups: readonly [number, number?, number?],
): Promise<Float32Array> {
  const { device } = gpu;
  const kernel = await gpu.kernel(source);
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC | GPUBufferUsage.UNIFORM;
  const buffers = await Promise.all(inputs.map((input, i) => gpu.allocate(`input ${i}`, input.byteLength, usage)));
  inputs.forEach((input, i) => {
    const buffer = buffers[i];
    if (buffer) device.queue.writeBuffer(buffer, 0, input);
  });
  const output = await gpu.allocate('output', (outputWords + guardWords) * 4, usage);
  device.queue.writeBuffer(output, 0, new Uint32Array(outputWords + guardWords).fill(poison));
  device.pushErrorScope('validation');
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(kernel.pipeline);
  pass.setBindGroup(0, gpu.bind(kernel, [...buffers, output]));
  pass.dispatchWorkgroups(workgroups[0], workgroups[1] ?? 1, workgroups[2] ?? 1);
  pass.end();
  device.queue.submit([encoder.finish()]);
  expect(await device.popErrorScope()).toBeNull();
  const bytes = await gpu.readBack(output, (outputWords + guardWords) * 4);
  for (const buffer of [...buffers, output]) gpu.free(buffer);
  const guard = new Uint32Array(bytes, outputWords * 4);
  expect(
    guard.every((word) => word === poison),
    'guard words are untouched',
  ).toBe(true);
  return new Float32Array(bytes, 0, outputWords);
}

/** Normalised mean squared error: Σ(a − b)² / Σ b². */
export function normalisedError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let error = 0;
  let power = 0;
  for (let i = 0; i < expected.length; i++) {
    const b = expected[i] ?? Number.NaN;
    const difference = (actual[i] ?? Number.NaN) - b;
    error += difference * difference;
    power += b * b;
  }
  return power === 0 ? error : error / power;
}
