/** What every kernel test needs: a validating device, poisoned outputs between guard words, seeded data, error bounds. */
import { afterAll, beforeAll, expect } from 'vitest';
import type { GpuOptions } from '../../engine/backend/webgpu/device/adapter.ts';
import { Gpu, type KernelSource } from '../../engine/backend/webgpu/device/gpu.ts';
import { splitHalvesKernel } from '../../engine/backend/webgpu/kernels/matrixTiles.ts';
import { figure } from '../figures.ts';

type Feature = NonNullable<GpuOptions['without']>[number];

/** `poorest`: the adapter as if it had no subgroups, f16 or matrices; or without what is named. */
export function useGpu(
  poorest = false,
  without: readonly Feature[] = poorest ? ['f16', 'halfSubnormals', 'subgroups', 'subgroupMatrix'] : [],
): { readonly gpu: Gpu } {
  const holder: { gpu?: Gpu } = {};
  beforeAll(async () => {
    holder.gpu = await Gpu.open({ validate: true, without });
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

type Words = Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer>;

/** Runs `source` once with these inputs and returns its last binding, checking that nothing beyond it was written. */
export async function runKernel(
  gpu: Gpu,
  source: KernelSource,
  inputs: readonly Words[],
  outputWords: number,
  workgroups: readonly [number, number?, number?],
): Promise<Float32Array> {
  const [output] = await runKernelOutputs(gpu, source, inputs, [outputWords], workgroups);
  return output ?? new Float32Array();
}

/** The same for a kernel whose last bindings are all outputs: poisoned words, or what they hold before. */
export async function runKernelOutputs(
  gpu: Gpu,
  source: KernelSource,
  inputs: readonly Words[],
  outputs: readonly (number | Words)[],
  workgroups: readonly [number, number?, number?],
): Promise<Float32Array<ArrayBuffer>[]> {
  const { device } = gpu;
  lastKernel = source.label;
  const kernel = await gpu.kernel(source);
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC | GPUBufferUsage.UNIFORM;
  const filled = [...inputs, ...outputs.map(guarded)];
  const buffers = await Promise.all(filled.map((words, i) => gpu.allocate(`binding ${i}`, words.byteLength, usage)));
  filled.forEach((words, i) => {
    const buffer = buffers[i];
    if (buffer) device.queue.writeBuffer(buffer, 0, words);
  });
  device.pushErrorScope('validation');
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(kernel.pipeline);
  pass.setBindGroup(0, gpu.bind(kernel, buffers));
  pass.dispatchWorkgroups(workgroups[0], workgroups[1] ?? 1, workgroups[2] ?? 1);
  pass.end();
  device.queue.submit([encoder.finish()]);
  expect(await device.popErrorScope()).toBeNull();
  const results: Float32Array<ArrayBuffer>[] = [];
  for (const [i, output] of outputs.entries()) {
    const buffer = buffers[inputs.length + i];
    if (buffer) results.push(await readGuarded(gpu, buffer, typeof output === 'number' ? output : output.length));
  }
  for (const buffer of buffers) gpu.free(buffer);
  return results;
}

/** What tiles bind for x, `[rows, width]`: itself, or its halves where the adapter multiplies subgroup matrices. */
export async function tileOperand(gpu: Gpu, x: Float32Array<ArrayBuffer>, width: number): Promise<Words[]> {
  if (!gpu.capabilities.subgroupMatrix) return [x];
  const rows = x.length / width;
  const [halves, scales] = await runKernelOutputs(gpu, splitHalvesKernel(width), [x], [x.length, rows], [rows]);
  return halves && scales ? [new Uint32Array(halves.buffer, halves.byteOffset, halves.length), scales] : [];
}

function guarded(output: number | Words): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array((typeof output === 'number' ? output : output.length) + guardWords).fill(poison);
  if (typeof output !== 'number') words.set(new Uint32Array(output.buffer, output.byteOffset, output.length));
  return words;
}

async function readGuarded(gpu: Gpu, buffer: GPUBuffer, words: number): Promise<Float32Array<ArrayBuffer>> {
  const bytes = await gpu.readBack(buffer, (words + guardWords) * 4);
  const untouched = new Uint32Array(bytes, words * 4).every((word) => word === poison);
  expect(untouched, 'guard words are untouched').toBe(true);
  return new Float32Array(bytes, 0, words);
}

/** The kernel that ran last, whose output a test is about to judge. */
let lastKernel = '';

/** Normalised mean squared error: Σ(a − b)² / Σ b². */
export function normalisedError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  const error = squaredError(actual, expected);
  if (lastKernel !== '') figure({ kernel: lastKernel, error });
  return error;
}

function squaredError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
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
