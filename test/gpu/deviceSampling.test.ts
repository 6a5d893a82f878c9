import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { Decoder, DeviceSampling } from '../../engine/backend/backend.ts';
import { greedy, type SamplerSettings } from '../../engine/backend/sampler.ts';
import { Gpu } from '../../engine/backend/webgpu/device/gpu.ts';
import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import type { Sequence } from '../../engine/kv/blockCache.ts';
import type { Model } from '../../engine/model/open.ts';
import { openModel } from '../../engine/model/open.ts';
import { type Golden, largestDifference, readGolden } from '../unit/goldens.ts';
import { fixtureFile } from '../unit/shared.ts';
import { Talk } from '../unit/talk.ts';
import { onLavapipe } from './adapters.ts';

const backend = createWebgpuBackend({ gpu: { validate: true }, cachePrecision: 'f32' });

/** Every device of this file. */
const opened: Gpu[] = [];
const open = Gpu.open.bind(Gpu);
vi.spyOn(Gpu, 'open').mockImplementation(async (options) => {
  const gpu = await open(options);
  opened.push(gpu);
  return gpu;
});

/** A slow device samples only the most telling cases: GPT-OSS with all settings, latent attention with one. */
const families: [family: string, only?: RegExp][] = [['gpt-oss'], ['deepseek-v3', /greedy/]];

await onLavapipe(() => {
  for (const [family, only] of families) {
    describe(`${family}: tokens sampled on the GPU, several in one submission`, () => drawsAsTheCpu(family, only));
  }
});

function drawsAsTheCpu(family: string, only?: RegExp): void {
  let model: Model;
  let golden: Golden;
  let decoder: Decoder;
  let sampling: DeviceSampling;
  let prompt: Sequence;

  beforeAll(async () => {
    const path = fixtureFile(`goldens/${family}`);
    model = await openModel(path);
    golden = await readGolden(`${path}/golden.safetensors`);
    // The last sampled token is not in the cache: the greedy text just fits.
    const contextTokens = golden.ids.length + golden.greedy.length - 1;
    decoder = await backend.load(model.spec, model.weights, { contextTokens });
    if (!decoder.deviceSampling) throw new Error('the GPU samples');
    sampling = decoder.deviceSampling;
    prompt = decoder.createSequence();
    await decoder.run([{ sequence: prompt, tokens: golden.ids.slice(0, -1), logits: 'none' }]);
  });
  afterAll(async () => {
    await decoder?.dispose();
    await model?.file.close();
  });

  const queue = (): GPUQueue => {
    const gpu = opened.at(-1);
    if (!gpu) throw new Error('a device is open');
    return gpu.device.queue;
  };
  const talk = () => new Talk(decoder, prompt.fork(), golden.ids);

  /** Both go on with the same distribution: nothing but the tokens is in the cache. */
  const expectSameCache = async (a: Talk, b: Talk) => {
    expect(a.tokens).toEqual(b.tokens);
    expect(a.sequence.length).toBe(b.sequence.length);
    expect(largestDifference(await a.logits(), await b.logits()) / golden.deviation).toBeLessThan(1e-4);
    for (const { sequence } of [a, b]) sequence.dispose();
  };

  const check = (name: string, body: () => Promise<void>) => {
    if (!only || only.test(name)) it(name, body);
  };

  check('are the golden greedy text up to the end of the context, and none beyond', async () => {
    const drawn = talk();
    for (const steps of [1, 16, 15]) {
      const [tokens = []] = await sampling.sample([drawn.slice(greedy, steps)], steps);
      expect(tokens).toHaveLength(steps);
      drawn.take(...tokens);
    }
    expect(drawn.tokens.slice(golden.ids.length)).toEqual(golden.greedy);
    const full = drawn.sequence.length;
    await expect(sampling.sample([drawn.slice(greedy, 1)], 1)).rejects.toMatchObject({ code: 'context-overflow' });
    expect(drawn.sequence.length).toBe(full);
    drawn.sequence.dispose();
  });

  const settings: readonly SamplerSettings[] = [
    { ...greedy, temperature: 0.8, topK: 20, topP: 0.9 },
    { ...greedy, temperature: 1.2, minP: 0.05, repetitionPenalty: 1.3, presencePenalty: 0.4 },
  ];

  check('are those that the CPU draws from the logits, for sequences with rules of their own', async () => {
    const chosen = settings.map(talk);
    const drawn = settings.map(talk);
    // One of them forbids its likeliest tokens.
    for (const each of [chosen[0], drawn[0]]) if (each) each.forbidden = golden.greedy.slice(0, 4);
    for (let i = 0; i < 6; i++) for (const [at, rules] of settings.entries()) await chosen[at]?.choose(rules);
    for (const steps of [2, 4]) {
      const slices = drawn.map((each, at) => each.slice(settings[at] ?? greedy, steps));
      for (const [at, tokens] of (await sampling.sample(slices, steps)).entries()) drawn[at]?.take(...tokens);
    }
    for (const [at, each] of chosen.entries()) await expectSameCache(drawn[at] ?? talk(), each);
  });

  check('end at a stop id, and what was drawn after it is in no cache, forks included', async () => {
    const { greedy: text } = golden;
    const stop = text[4] ?? 0;
    const length = text.indexOf(stop) + 1;
    const drawn = talk();
    const [tokens = []] = await sampling.sample([drawn.slice(greedy, 16, new Set([stop]))], 16);
    expect(tokens).toEqual(text.slice(0, length));
    drawn.take(...tokens);
    expect(drawn.sequence.length).toBe(golden.ids.length + length - 1);
    const fork = new Talk(decoder, drawn.sequence.fork(), drawn.tokens);
    // Both continue at the same position.
    const other = [...drawn.tokens, 3, 1, 4];
    await decoder.run([{ sequence: fork.sequence, tokens: other.slice(fork.sequence.length), logits: 'none' }]);
    fork.sequence.dispose();
    const chosen = talk();
    for (let i = 0; i < length; i++) await chosen.choose(greedy);
    await expectSameCache(drawn, chosen);
  });

  check('ahead of the host are greedy text, too: the next are submitted before the last are read back', async () => {
    const submits = vi.spyOn(queue(), 'submit');
    const drawn = talk();
    const counts: number[] = [];
    for (const [steps, ahead] of [
      [3, 4],
      [4, 5],
      [5, 4],
      // A different token than the sampled one, which is dropped.
      [3, 2],
      [2, 0],
    ] as const) {
      submits.mockClear();
      const [tokens = []] = await sampling.sample([drawn.slice(greedy, steps + ahead)], steps, ahead);
      counts.push(submits.mock.calls.length);
      expect(tokens).toHaveLength(steps);
      drawn.take(...tokens);
    }
    // A submission a step: of the first call those of the second's, too, and so on.
    expect(counts).toEqual([7, 5, 4, 5, 0]);
    expect(drawn.tokens.slice(golden.ids.length)).toEqual(golden.greedy.slice(0, 17));
    submits.mockRestore();
    drawn.sequence.dispose();
  });

  check('ahead of the host are dropped, greedy or not, where anything else happens in between', async () => {
    const [drawn, other, chosen] = [talk(), talk(), talk()];
    const step = async (steps: number, ahead: number): Promise<void> => {
      const [tokens = []] = await sampling.sample([drawn.slice(greedy, steps + ahead)], steps, ahead);
      drawn.take(...tokens);
    };
    await step(4, 4);
    // A fork of what is in the cache, and another sequence, write meanwhile.
    const fork = new Talk(decoder, drawn.sequence.fork(), drawn.tokens);
    await other.choose(greedy);
    await fork.choose(greedy);
    await step(4, 6);
    // Tokens that the host took back.
    drawn.tokens.length -= 2;
    drawn.sequence.truncate(drawn.tokens.length - 1);
    await step(6, 0);
    for (let i = 0; i < 12; i++) await chosen.choose(greedy);
    for (let i = 0; i < 7; i++) await fork.choose(greedy);
    expect(fork.tokens).toEqual(chosen.tokens);
    fork.sequence.dispose();
    other.sequence.dispose();
    await expectSameCache(drawn, chosen);
  });
}
