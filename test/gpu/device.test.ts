/** What a device does to a model: its loss, its limits, its memory. On the real adapter, with golden checkpoints. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { argmax } from '../../engine/backend/sampler.ts';
import type { GpuOptions } from '../../engine/backend/webgpu/device/adapter.ts';
import { Gpu } from '../../engine/backend/webgpu/device/gpu.ts';
import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { openModel } from '../../engine/model/open.ts';
import { type LoadedModel, loadModel } from '../../engine/runtime/loadedModel.ts';
import { largestDifference, readGolden } from '../unit/goldens.ts';
import { fixtureFile } from '../unit/shared.ts';
import { onLavapipe } from './adapters.ts';

const path = fixtureFile('goldens/llama');
const golden = await readGolden(fixtureFile('goldens/llama/golden.safetensors'));

/** Every GPU that is opened from here on. */
function openedGpus(): Gpu[] {
  const opened: Gpu[] = [];
  const open = Gpu.open.bind(Gpu);
  vi.spyOn(Gpu, 'open').mockImplementation(async (options) => {
    const gpu = await open(options);
    opened.push(gpu);
    return gpu;
  });
  return opened;
}

afterEach(() => vi.restoreAllMocks());

async function loadLlama(gpu: GpuOptions, contextTokens = 256, onProgress = () => {}) {
  const model = await openModel(path);
  try {
    const backend = createWebgpuBackend({ gpu, cachePrecision: 'f32' });
    return await backend.load(model.spec, model.weights, { contextTokens, onProgress });
  } finally {
    await model.file.close();
  }
}

describe('a device that is lost', () => {
  /** Greedy from the golden prompt; `onToken` may pull the plug. */
  async function answer({ scheduler }: LoadedModel, onToken: (count: number) => void): Promise<number[]> {
    const received: number[] = [];
    await scheduler.submit({
      requestClass: 'chat',
      prompt: golden.ids,
      maxTokens: 8,
      choose: argmax,
      deliver: (token) => {
        received.push(token);
        onToken(received.length);
        return 'continue';
      },
    });
    return received;
  }

  it('during an answer is set up again, and the answer continues with the golden text', async () => {
    const opened = openedGpus();
    const messages: string[] = [];
    const model = await loadModel({
      id: 'llama',
      name: 'llama',
      path,
      backend: 'webgpu',
      contextTokens: 256,
      onProgress: () => {},
      onChange: ({ message }) => messages.push(message),
      signal: new AbortController().signal,
    });
    const text = await answer(model, (count) => {
      if (count === 5) opened[0]?.device.destroy();
    });
    expect(text).toEqual(golden.greedy.slice(0, 8));
    expect(opened.length).toBe(2);
    expect(messages).toEqual([
      expect.stringMatching(/^The GPU stopped answering .* The GPU was set up again, and answers continue/),
    ]);
    // Again within ten minutes: a GPU that was asked for by name is not replaced.
    const lostAgain = answer(model, (count) => {
      if (count === 2) opened[1]?.device.destroy();
    });
    await expect(lostAgain).rejects.toMatchObject({ code: 'device-lost' });
    await model.close();
  });

  it('during loading throws a typed error', async () => {
    const opened = openedGpus();
    const load = loadLlama({}, 256, () => opened[0]?.device.destroy());
    await expect(load).rejects.toMatchObject({ code: 'device-lost' });
  });
});

describe('a model that doesn’t fit', () => {
  it('is refused before anything is loaded, with the context that would fit', async () => {
    const opened = openedGpus();
    const memoryBytes = 60e6;
    const load = loadLlama({ atMost: { memoryBytes } }, 131_072);
    await expect(load).rejects.toMatchObject({ code: 'out-of-memory', usableBytes: 0.9 * memoryBytes });
    await expect(load).rejects.toThrow(/Nothing was loaded\. A context of \d+ tokens fits\.$/);
    expect(opened.map(({ allocatedBytes }) => allocatedBytes)).toEqual([0]);
    const fitting = Number(/context of (\d+) tokens fits/.exec(String(await load.catch(String)))?.[1]);
    const decoder = await loadLlama({ atMost: { memoryBytes } }, fitting);
    expect(decoder.contextTokens).toBe(fitting);
    await decoder.dispose();
    expect(opened.at(-1)?.allocatedBytes).toBeLessThan(memoryBytes);
  });

  it('into one buffer throws a typed error with the sizes', async () => {
    const load = loadLlama({ atMost: { bufferBytes: 50_000 } });
    await expect(load).rejects.toMatchObject({ code: 'out-of-memory' });
    await expect(load).rejects.toThrow(/needs \d+ bytes in one buffer; this GPU allows 50000/);
  });

  it('because the device refuses an allocation throws a typed error with the allocated bytes', async () => {
    const gpu = await Gpu.open();
    const usage = GPUBufferUsage.STORAGE;
    vi.spyOn(gpu.device, 'createBuffer').mockImplementationOnce((descriptor) =>
      gpu.device.createBuffer({ ...descriptor, size: 2 ** 52 }),
    );
    await expect(gpu.allocate('a matrix', 1024, usage)).rejects.toMatchObject({ code: 'out-of-memory' });
    gpu.dispose();
  });
});

await onLavapipe(() => {
  describe('a card with 24 GiB', () => {
    it('computes 1,024 tokens of a mixture of experts in a run, with the logits of shorter runs', async () => {
      const model = await openModel(fixtureFile('goldens/gpt-oss'));
      const open = Gpu.open.bind(Gpu);
      vi.spyOn(Gpu, 'open').mockImplementation(async (options) => {
        const gpu = await open(options);
        const bytes = 24 * 2 ** 30;
        const memory = { vendor: 'nvidia', name: 'RTX 4090', totalBytes: bytes, freeBytes: bytes, unified: false };
        gpu.capabilities = { ...gpu.capabilities, memory };
        return gpu;
      });
      const backend = createWebgpuBackend({ cachePrecision: 'f32', compileAhead: false });
      const decoder = await backend.load(model.spec, model.weights, { contextTokens: 2048 });
      expect(decoder.maxTokensPerRun).toBe(1024);
      const tokens = Array.from({ length: 1024 }, (_, i) => (i * 167 + 41) % model.spec.vocabularySize);
      const [whole, parts] = [decoder.createSequence(), decoder.createSequence()];
      const [expected = new Float32Array()] = await decoder.run([{ sequence: whole, tokens, logits: 'last' }]);
      for (const first of [0, 300, 600]) {
        await decoder.run([{ sequence: parts, tokens: tokens.slice(first, first + 300), logits: 'none' }]);
      }
      const [actual = new Float32Array()] = await decoder.run([
        { sequence: parts, tokens: tokens.slice(900), logits: 'last' },
      ]);
      const mean = expected.reduce((sum, value) => sum + value, 0) / expected.length;
      const deviation = Math.sqrt(expected.reduce((sum, value) => sum + (value - mean) ** 2, 0) / expected.length);
      expect(largestDifference(actual, expected) / deviation).toBeLessThan(1e-4);
      await decoder.dispose();
      await model.file.close();
    });
  });
});

describe('a device that is slow', () => {
  it('is asked for news every millisecond, not in every turn of the event loop', async () => {
    const gpu = await Gpu.open();
    const code = /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> sum: array<f32>;
@compute @workgroup_size(1)
fn main() { for (var i = 0u; i < 20000000u; i++) { sum[0] = fract(sum[0] + 0.37); } }`;
    const kernel = await gpu.kernel({ label: 'long', code, bindings: ['write'] });
    const sum = await gpu.allocate('sum', 16, GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC);
    const encoder = gpu.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(kernel.pipeline);
    pass.setBindGroup(0, gpu.bind(kernel, [sum]));
    pass.dispatchWorkgroups(1);
    pass.end();
    gpu.device.queue.submit([encoder.finish()]);
    const timers = vi.spyOn(globalThis, 'setTimeout');
    const startMs = performance.now();
    await gpu.readBack(sum, 4);
    const ms = performance.now() - startMs;
    const polls = timers.mock.calls.filter(([callback]) => callback.name === 'poll').length;
    // The kernel computes for longer than the ten milliseconds of quick polls.
    expect(ms).toBeGreaterThan(20);
    expect(polls).toBeGreaterThan(3);
    expect(polls).toBeLessThanOrEqual(ms);
    gpu.dispose();
  });

  it('takes a prompt in parts, none of which it is estimated to compute for long, with the same logits', async () => {
    const opened = openedGpus();
    const [fast, slow] = [await loadLlama({}), await loadLlama({ atMost: { operationsPerSecond: 1 } })];
    const tokens = golden.ids.slice(0, 30);
    const results: Float32Array[][] = [];
    const submits: number[] = [];
    for (const [i, decoder] of [fast, slow].entries()) {
      const submit = vi.spyOn(opened[i]?.device.queue ?? ({} as GPUQueue), 'submit');
      const [one, two] = [decoder.createSequence(), decoder.createSequence()];
      results.push(
        await decoder.run([
          { sequence: one, tokens, logits: 'last' },
          { sequence: two, tokens: tokens.slice(0, 7), logits: 'all' },
        ]),
      );
      submits.push(submit.mock.calls.length);
      expect([one.length, two.length]).toEqual([30, 7]);
      await decoder.dispose();
    }
    // 37 tokens in sixteens; the first gives no logits, the others theirs.
    expect(submits[1]).toBeGreaterThanOrEqual(3);
    expect(submits[1]).toBeGreaterThan(submits[0] ?? 0);
    for (const [i, expected] of (results[0] ?? []).entries()) {
      expect(largestDifference(results[1]?.[i] ?? new Float32Array(), expected) / golden.deviation).toBeLessThan(1e-4);
    }
  });
});
