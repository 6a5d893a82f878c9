import { describe, expect, it } from 'vitest';
import type { Backend } from '../../../engine/backend/backend.ts';
import { createGgmlBackend } from '../../../engine/backend/ggml/index.ts';
import { createOnnxBackend } from '../../../engine/backend/onnx/index.ts';
import { referenceBackend } from '../../../engine/backend/reference/index.ts';
import { HearthError } from '../../../engine/errors.ts';
import { openModel } from '../../../engine/model/open.ts';
import { checkGolden, expectGoldenLogits, float32Bounds, goldenCases, readGolden } from '../goldens.ts';
import { checkRewinds } from '../rewinds.ts';
import { layersOf, splitAt } from '../stages.ts';
import { checkStored } from '../storedSequences.ts';

const onnx = createOnnxBackend({ roundActivations: false, cachePrecision: 'f32' });
const ggml = createGgmlBackend({ exactWeights: true, cachePrecision: 'f32' });
const uneven = /in uneven chunks/;

// Every family (Qwen3-Next stands for Qwen3.5) at every border, in chunks that go through every kind of pass; one kind of border for the other pairs.
for (const golden of goldenCases.filter(({ name }) => /^(?!qwen3\.5).* safetensors$/.test(name))) {
  const layers = await layersOf(golden);
  const check = (first: Backend, second: Backend, border: number): void =>
    checkGolden(splitAt([border, layers - border], [first, second]), golden, float32Bounds, {}, uneven);
  for (let border = 1; border < layers; border++) check(onnx, referenceBackend, border);
  check(referenceBackend, onnx, layers - 1);
  check(referenceBackend, referenceBackend, 1);
}

// ggml's layers before and behind another backend's, with and without sliding windows and experts.
for (const golden of goldenCases.filter(({ name }) => /^(gpt-oss|llama|qwen3-moe) safetensors$/.test(name))) {
  const layers = await layersOf(golden);
  for (const backends of [
    [ggml, referenceBackend],
    [referenceBackend, ggml],
  ]) {
    checkGolden(splitAt([1, layers - 1], backends), golden, float32Bounds, {}, uneven);
  }
}

// Recurrent layers keep states that sequences can go back to.
for (const golden of goldenCases.filter(({ name }) => name === 'qwen3-next safetensors')) {
  const layers = await layersOf(golden);
  const sequences = /forgets what was truncated|forks into two/;
  checkGolden(splitAt([1, layers - 1], [onnx, referenceBackend]), golden, float32Bounds, {}, sequences);
}

// GPT-OSS has sliding windows, sinks and experts: sequence operations.
for (const golden of goldenCases.filter(({ name }) => name === 'gpt-oss safetensors')) {
  const layers = await layersOf(golden);
  const onBoth = splitAt([1, layers - 1], [onnx, referenceBackend]);
  checkGolden(onBoth, golden, float32Bounds);
  const each = new Array<number>(layers).fill(1);
  checkGolden(splitAt(each, [referenceBackend]), golden, float32Bounds, {}, /two sequences in one run/);
  checkRewinds(onBoth, golden, { ...float32Bounds, withChat: false });
  checkStored(onBoth, golden, 300);
}

describe('a model in two stages', () => {
  const golden = goldenCases.find(({ name }) => name === 'gpt-oss safetensors');
  if (!golden) throw new Error('there is no such golden');

  /** Calls `before` with each pass, and counts what was disposed. */
  const watched = (before: () => void, disposed = { count: 0 }): Backend => ({
    ...referenceBackend,
    load: async (...given) => {
      const decoder = await referenceBackend.load(...given);
      const [run, dispose] = [decoder.run.bind(decoder), decoder.dispose.bind(decoder)];
      decoder.run = async (batch) => {
        before();
        return run(batch);
      };
      decoder.dispose = async () => {
        disposed.count++;
        await dispose();
      };
      return decoder;
    },
  });

  it('continues from where it was after the second stage failed', async () => {
    let fails = false;
    const second = watched(() => {
      if (fails) throw new HearthError('device-lost', 'it is gone');
    });
    const { spec, weights, file } = await openModel(golden.path);
    const backend = splitAt([1, spec.layers.length - 1], [onnx, second]);
    const decoder = await backend.load(spec, weights, { contextTokens: 256 });
    const expected = await readGolden(golden.golden);
    const sequence = decoder.createSequence();
    const run = (first: number, end: number) =>
      decoder.run([{ sequence, tokens: expected.ids.slice(first, end), logits: 'all' }]);
    await run(0, 40);
    fails = true;
    await expect(run(40, 60)).rejects.toMatchObject({ code: 'device-lost' });
    expect(sequence.length).toBe(40);
    fails = false;
    const [logits = new Float32Array()] = await run(40, 90);
    expectGoldenLogits(logits, 40, { ...float32Bounds, expected, decoder, figures: { golden: golden.name } });
    await decoder.dispose();
    await file.close();
  });

  it('begins the next pass while the last stage computes', async () => {
    const events: string[] = [];
    const open: (() => void)[] = [];
    const card: Backend = {
      ...referenceBackend,
      load: async (...given) => {
        const decoder = await referenceBackend.load(...given);
        decoder.submit = async (batch) => {
          await decoder.run(batch);
          events.push('submitted');
          return { done: new Promise((resolve) => open.push(resolve)) };
        };
        return decoder;
      },
    };
    const { spec, weights, file } = await openModel(golden.path);
    const backend = splitAt([1, spec.layers.length - 1], [watched(() => events.push('first stage')), card]);
    const decoder = await backend.load(spec, weights, { contextTokens: 256 });
    const expected = await readGolden(golden.golden);
    const sequence = decoder.createSequence();
    for (const [first, end] of [
      [0, 30],
      [30, 64],
    ]) {
      await decoder.submit?.([{ sequence, tokens: expected.ids.slice(first, end), logits: 'none' }]);
    }
    // No submitted work is done yet.
    expect(events).toEqual(['first stage', 'submitted', 'first stage', 'submitted']);
    for (const done of open) done();
    const [logits = new Float32Array()] = await decoder.run([
      { sequence, tokens: expected.ids.slice(64, 80), logits: 'all' },
    ]);
    expectGoldenLogits(logits, 64, { ...float32Bounds, expected, decoder, figures: { golden: golden.name } });
    await decoder.dispose();
    await file.close();
  });

  it('leaves nothing loaded if the second stage cannot be loaded', async () => {
    const disposed = { count: 0 };
    const refusing: Backend = {
      ...referenceBackend,
      load: () => Promise.reject(new HearthError('out-of-memory', 'no room')),
    };
    const { spec, weights, file } = await openModel(golden.path);
    const backend = splitAt([1, spec.layers.length - 1], [watched(() => {}, disposed), refusing]);
    await expect(backend.load(spec, weights, { contextTokens: 256 })).rejects.toThrow('no room');
    expect(disposed.count).toBe(1);
    await file.close();
  });
});
