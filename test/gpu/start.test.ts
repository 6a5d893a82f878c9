/** Reads and compilations between the request for a model and its first answers, on the real adapter with a golden checkpoint. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Decoder, SamplingSlice } from '../../engine/backend/backend.ts';
import { greedy } from '../../engine/backend/sampler.ts';
import { Gpu } from '../../engine/backend/webgpu/device/gpu.ts';
import { createWebgpuBackend, type WebgpuOptions } from '../../engine/backend/webgpu/index.ts';
import { openModel } from '../../engine/model/open.ts';
import type { Weight } from '../../engine/model/weights/weights.ts';
import { readGolden } from '../unit/goldens.ts';
import { fixtureFile } from '../unit/shared.ts';

const path = fixtureFile('goldens/llama');
const golden = await readGolden(`${path}/golden.safetensors`);

afterEach(() => vi.restoreAllMocks());

/** Every kernel that a device of this test compiled; `refused` ones fail as a driver's compiler would. */
class Compiler {
  readonly compiled: string[] = [];
  refused: RegExp | undefined;
  gpu: Gpu | undefined;
  readonly #first = Promise.withResolvers<void>();

  constructor() {
    const open = Gpu.open.bind(Gpu);
    vi.spyOn(Gpu, 'open').mockImplementation(async (options) => {
      const gpu = await open(options);
      this.gpu = gpu;
      this.#watch(gpu.device);
      return gpu;
    });
  }

  get firstCompiled(): Promise<void> {
    return this.#first.promise;
  }

  #watch(device: GPUDevice): void {
    const compile = device.createComputePipelineAsync.bind(device);
    vi.spyOn(device, 'createComputePipelineAsync').mockImplementation(async (descriptor) => {
      const { label = '' } = descriptor;
      if (this.refused?.test(label)) throw new Error('out of registers');
      const pipeline = await compile(descriptor);
      this.compiled.push(label);
      this.#first.resolve();
      return pipeline;
    });
  }
}

async function load(
  { beforeRead = async () => {}, ...options }: WebgpuOptions & { beforeRead?: () => Promise<void> } = {},
  onProgress = () => {},
): Promise<Decoder> {
  const model = await openModel(path);
  const gated = ({ readRows, ...weight }: Weight): Weight => ({
    ...weight,
    readRows: async (start, count) => {
      await beforeRead();
      return readRows(start, count);
    },
  });
  const { embedding, head } = model.weights;
  const first = gated(embedding);
  const weights = { ...model.weights, embedding: first, head: head === embedding ? first : head };
  try {
    const backend = createWebgpuBackend({ cachePrecision: 'f32', ...options });
    return await backend.load(model.spec, weights, { contextTokens: 256, onProgress });
  } finally {
    await model.file.close();
  }
}

const isLate = (label: string): boolean => /^matrixVector .*x16$/.test(label);

/** The first greedy tokens after the golden prompt, the second and third sampled on the device. */
async function answer(decoder: Decoder): Promise<number[]> {
  const sequence = decoder.createSequence();
  const [logits = new Float32Array()] = await decoder.run([{ sequence, tokens: golden.ids, logits: 'last' }]);
  const token = logits.indexOf(Math.max(...logits));
  const history = { sequence: new Set(golden.ids), generated: new Set<number>() };
  const slice: SamplingSlice = {
    sequence,
    token,
    rules: greedy,
    history,
    uniforms: [0, 0],
    stopIds: new Set(),
    forbidden: [],
  };
  const [drawn = []] = (await decoder.deviceSampling?.sample([slice], 2)) ?? [];
  return [token, ...drawn];
}

/** Passes of one token, two sampled on the device. */
async function drawTwo(decoder: Decoder): Promise<number[]> {
  const sequence = decoder.createSequence();
  const history = { sequence: new Set([5]), generated: new Set<number>() };
  const slice: SamplingSlice = {
    sequence,
    token: 5,
    rules: greedy,
    history,
    uniforms: [0, 0],
    stopIds: new Set(),
    forbidden: [],
  };
  const [drawn = []] = (await decoder.deviceSampling?.sample([slice], 2)) ?? [];
  return drawn;
}

describe('loading a model onto the GPU', () => {
  it('compiles kernels while weights are read, and answers before the rest is compiled', async () => {
    const compiler = new Compiler();
    // Nothing would ever be read if compiling waited for it.
    const decoder = await load({ beforeRead: () => compiler.firstCompiled, compileAhead: true });
    expect(compiler.compiled.filter(isLate)).toEqual([]);
    expect(await answer(decoder)).toEqual(golden.greedy.slice(0, 3));
    await decoder.dispose();
  });

  it('is refused before anything is read if the model doesn’t fit', async () => {
    let reads = 0;
    const beforeRead = async () => {
      reads++;
    };
    const loading = load({ beforeRead, gpu: { atMost: { bufferBytes: 50_000 } } });
    await expect(loading).rejects.toMatchObject({ code: 'out-of-memory' });
    expect(reads).toBe(0);
  });

  it('throws a typed error if the driver doesn’t compile a kernel', async () => {
    const compiler = new Compiler();
    compiler.refused = /matrixMatrix/;
    const loading = load();
    await expect(loading).rejects.toMatchObject({ code: 'unavailable' });
    await expect(loading).rejects.toThrow(/did not compile matrixMatrix .*: out of registers/);
  });
});

describe('kernels of later passes', () => {
  it('are compiled ahead; if the driver fails, the pass that needs them throws', async () => {
    const compiler = new Compiler();
    compiler.refused = /sampleDraw/;
    const decoder = await load({ compileAhead: true });
    await vi.waitFor(() => expect(compiler.compiled.filter(isLate).length).toBeGreaterThan(1), { timeout: 60_000 });
    await expect(drawTwo(decoder)).rejects.toMatchObject({ code: 'unavailable' });
    compiler.refused = undefined;
    expect(await drawTwo(decoder)).toHaveLength(2);
    await decoder.dispose();
  });

  it('are not compiled once the decoder is disposed', async () => {
    const compiler = new Compiler();
    const decoder = await load({ compileAhead: true });
    await decoder.dispose();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    expect(compiler.compiled.filter(isLate)).toEqual([]);
    await expect(drawTwo(decoder)).rejects.toMatchObject({ code: 'device-lost' });
  });

  it('throw device-lost if the device is lost meanwhile', async () => {
    const compiler = new Compiler();
    const decoder = await load({ compileAhead: true });
    compiler.gpu?.device.destroy();
    await expect(drawTwo(decoder)).rejects.toMatchObject({ code: 'device-lost' });
    await decoder.dispose();
  });
});
