/** Variants of the decode kernels give the same logits, and the fastest is kept for the device. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import type { Decoder } from '../../engine/backend/backend.ts';
import { WebgpuDecoder } from '../../engine/backend/webgpu/decoder/decoder.ts';
import { defaultTuning, type Tuning } from '../../engine/backend/webgpu/device/adapter.ts';
import { Gpu } from '../../engine/backend/webgpu/device/gpu.ts';
import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { tuningReports } from '../../engine/backend/webgpu/tuning.ts';
import { showTuning } from '../../engine/cli/doctor.ts';
import { HearthError } from '../../engine/errors.ts';
import { openModel } from '../../engine/model/open.ts';
import { largestDifference, readGolden } from '../unit/goldens.ts';
import { fixtureFile } from '../unit/shared.ts';
import { onLavapipe } from './adapters.ts';

const cacheDirectory = mkdtempSync(join(tmpdir(), 'hearth-tuning-'));
afterAll(() => rmSync(cacheDirectory, { recursive: true }));
afterEach(() => vi.restoreAllMocks());

/** Golden logits are transformers'. */
const golden = await readGolden(fixtureFile('goldens/gpt-oss/golden.safetensors'));

const open = Gpu.open.bind(Gpu);

/** A decoder whose device has this tuning before anything is made for it. */
async function load(tuning?: Tuning): Promise<{ decoder: Decoder; gpu: Gpu; tuned: Tuning }> {
  const opened: Gpu[] = [];
  vi.spyOn(Gpu, 'open').mockImplementation(async (options) => {
    const gpu = await open(options);
    if (tuning) gpu.capabilities = { ...gpu.capabilities, tuning };
    opened.push(gpu);
    return gpu;
  });
  const model = await openModel(fixtureFile('goldens/gpt-oss'));
  const backend = createWebgpuBackend({ gpu: { validate: true }, cachePrecision: 'f32', compileAhead: false });
  const decoder = await backend.load(model.spec, model.weights, { contextTokens: 256, cacheDirectory });
  await model.file.close();
  const [gpu] = opened;
  if (!gpu) throw new Error('a device was opened');
  return { decoder, gpu, tuned: gpu.capabilities.tuning };
}

/** A prompt as long as a software GPU decodes in seconds. */
const ids = golden.ids.slice(0, 6);

/** The prompt token by token, by the kernels that decode. */
async function lastLogits(decoder: Decoder): Promise<Float32Array> {
  const sequence = decoder.createSequence();
  let last = new Float32Array();
  for (const id of ids) {
    const [logits] = await decoder.run([{ sequence, tokens: [id], logits: 'last' }]);
    last = new Float32Array(logits ?? []);
  }
  sequence.dispose();
  return last;
}

const width = golden.logits.length / golden.ids.length;
const expected = golden.logits.subarray((ids.length - 1) * width, ids.length * width);

await onLavapipe(() => {
  it.each<Tuning>([
    { ...defaultTuning, vectorThreads: 32, attentionGroups: 128, threadRows: 2 },
    { ...defaultTuning, vectorThreads: 128, attentionGroups: 256 },
  ])('threads $vectorThreads, groups $attentionGroups: the golden logits', async (tuning) => {
    const { decoder } = await load(tuning);
    expect(largestDifference(await lastLogits(decoder), expected) / golden.deviation).toBeLessThan(1e-4);
    await decoder.dispose();
  });

  it.each<[string, Partial<Tuning>]>([
    ['of 64 tokens', { tileTokens: 64, matrixAttention: false }],
    ['of 128 tokens, of every matrix', { tallRows: 1 }],
  ])('prompts in tiles %s: the golden logits', async (_, change) => {
    const { decoder } = await load({ ...defaultTuning, ...change });
    const tokens = [...golden.ids];
    const [logits = new Float32Array()] = await decoder.run([
      { sequence: decoder.createSequence(), tokens, logits: 'last' },
    ]);
    const last = golden.logits.subarray((tokens.length - 1) * width, tokens.length * width);
    expect(largestDifference(logits, last) / golden.deviation).toBeLessThan(1e-4);
    await decoder.dispose();
  });

  it('adopts, keeps and reports the rows a thread that were timed as fastest, on top of the best threads', async () => {
    const { decoder, gpu } = await load();
    const { tuner } = decoder;
    if (!tuner || !(decoder instanceof WebgpuDecoder)) throw new Error('a GPU is tuned');
    const onRows = decoder.onRows.bind(decoder);
    vi.spyOn(decoder, 'onRows').mockImplementation(async (tokens, tuning, body) => {
      const result = await onRows(tokens, tuning, body);
      const ms = 100 / tuning.vectorThreads + (tuning.threadRows === 2 ? 1 : 2);
      return typeof result === 'object' && result !== null && 'hidden' in result ? { ...result, ms } : result;
    });
    while (await tuner.ready()) await tuner.step();
    expect(gpu.capabilities.tuning).toMatchObject({ vectorThreads: 128, threadRows: 2 });
    expect(tuner.report?.trials.filter(({ chosen }) => chosen).map(({ name }) => name)).toContain(
      '2 rows of matrices a thread',
    );
    await decoder.dispose();
    const again = await load();
    expect(again.tuned).toMatchObject({ vectorThreads: 128, threadRows: 2 });
    await again.decoder.dispose();
  });

  it.each([
    [60, 128],
    [30, 256],
  ])('times prompts of as many tokens as take a tenth of a second and fit: 128 take %i ms', async (ms, most) => {
    const { decoder } = await load();
    const { tuner } = decoder;
    if (!tuner || !(decoder instanceof WebgpuDecoder)) throw new Error('a GPU is tuned');
    const onRows = decoder.onRows.bind(decoder);
    const timed: number[] = [];
    vi.spyOn(decoder, 'onRows').mockImplementation(async (tokens, tuning, body) => {
      const result = await onRows(tokens, tuning, body);
      if (tokens > 1) timed.push(tokens);
      return typeof result === 'object' && result !== null && 'hidden' in result ? { ...result, ms } : result;
    });
    while (timed.length < 4 && (await tuner.ready())) await tuner.step();
    expect(timed).toEqual([128, most, most, most]);
    await decoder.dispose();
  });

  it('keeps what was timed of decoding where the cache has no room for a prompt', async () => {
    const { decoder } = await load();
    const { tuner } = decoder;
    if (!tuner || !(decoder instanceof WebgpuDecoder)) throw new Error('a GPU is tuned');
    const onRows = decoder.onRows.bind(decoder);
    vi.spyOn(decoder, 'onRows').mockImplementation((tokens, ...rest) => {
      if (tokens > 1) throw new HearthError('out-of-memory', 'full');
      return onRows(tokens, ...rest);
    });
    while (await tuner.ready()) await tuner.step();
    expect(tuner.report?.trials.filter(({ name }) => name.startsWith('prompts'))).toEqual([]);
    expect(tuner.report?.trials.filter(({ chosen }) => chosen)).toHaveLength(1);
    await decoder.dispose();
  });

  describe('the tuner', () => {
    it('times variants, reports each kernel, keeps the fastest for the next load, and disturbs no sequence', async () => {
      const { decoder, gpu } = await load();
      const { tuner } = decoder;
      if (!tuner) throw new Error('a GPU is tuned');
      // These adapters are software.
      expect(tuner.isDue).toBe(false);
      const sequence = decoder.createSequence();
      await decoder.run([{ sequence, tokens: ids.slice(0, -1), logits: 'none' }]);
      const free = decoder.memory().cacheBytes;
      while (await tuner.ready()) await tuner.step();
      const { report } = tuner;
      const names = report?.trials.map(({ name }) => name) ?? [];
      // A device as slow as these may use up the time before the last.
      expect(names.length).toBeGreaterThanOrEqual(2);
      expect(names).toEqual(
        [
          'as it is',
          ...['32 threads a workgroup', '128 threads a workgroup'],
          ...['2 rows of matrices a thread', '1 rows of matrices a thread'],
          ...['256 workgroups of attention', '128 workgroups of attention'],
          ...['prompts as they are', 'prompts: 64 tokens a tile', 'prompts: attention without matrices'],
        ].slice(0, names.length),
      );
      const ofPrompts = names.filter((name) => name.startsWith('prompts'));
      expect(report?.trials.filter(({ chosen }) => chosen)).toHaveLength(ofPrompts.length > 0 ? 2 : 1);
      for (const { tokenMs } of report?.trials ?? []) expect(tokenMs).toBeGreaterThan(0);
      const { layers, token } = (await decoder.dispatches?.()) ?? { layers: [], token: 0 };
      expect(layers.length).toBeGreaterThan(0);
      expect(report?.kernels.reduce((sum, { dispatches }) => sum + dispatches, 0)).toBe(token);
      // Every matrix of a token is read: experts as many as are chosen.
      const head = report?.kernels.find(({ name }) => name.startsWith('matrixVector BF16 512x128'));
      expect(head?.bytes).toBe(2 * 512 * 128);
      expect(decoder.memory().cacheBytes).toBe(free);
      const [logits = new Float32Array()] = await decoder.run([{ sequence, tokens: ids.slice(-1), logits: 'last' }]);
      expect(largestDifference(logits, expected) / golden.deviation).toBeLessThan(1e-4);
      const now = gpu.capabilities.tuning;
      await decoder.dispose();
      expect(
        showTuning((await tuningReports(gpu.capabilities, cacheDirectory))[0] ?? { trials: [], kernels: [] }).join(),
      ).toContain('chosen');
      const again = await load();
      expect(again.tuned).toEqual(now);
      await again.decoder.dispose();
    });
  });
});
