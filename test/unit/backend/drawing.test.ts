/** Tokens that a CPU backend's compute thread samples: the same as the engine's thread samples from its logits, bit by bit. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Backend, Decoder, DeviceSampling } from '../../../engine/backend/backend.ts';
import { createGgmlBackend } from '../../../engine/backend/ggml/index.ts';
import { createOnnxBackend } from '../../../engine/backend/onnx/index.ts';
import { greedy, type SamplerSettings } from '../../../engine/backend/sampler.ts';
import type { Sequence } from '../../../engine/kv/blockCache.ts';
import { type Model, openModel } from '../../../engine/model/open.ts';
import type { Weight } from '../../../engine/model/weights/weights.ts';
import { type Golden, readGolden } from '../goldens.ts';
import { fixtureFile } from '../shared.ts';
import { Talk } from '../talk.ts';

const ggml = createGgmlBackend({ exactWeights: true, cachePrecision: 'f32' });
const onnx = createOnnxBackend({ roundActivations: false, cachePrecision: 'f32' });

interface Loaded {
  readonly decoder: Decoder;
  readonly sampling: DeviceSampling;
}

async function load(
  backend: Backend,
  model: Model,
  contextTokens: number,
  embedding: Weight = model.weights.embedding,
): Promise<Loaded> {
  const decoder = await backend.load(model.spec, { ...model.weights, embedding }, { contextTokens, threads: 1 });
  if (!decoder.deviceSampling) throw new Error(`${backend.name} samples`);
  return { decoder, sampling: decoder.deviceSampling };
}

/** GPT-OSS has sliding windows, sinks and experts; in Qwen3 the cache keeps all tokens; DeepSeek has latent attention. */
describe.each([
  ['ggml', 'gpt-oss', ggml],
  ['ggml', 'qwen3', ggml],
  ['onnx', 'gpt-oss', onnx],
  ['onnx', 'deepseek-v3', onnx],
])('%s, %s: tokens drawn on the compute thread', (name, family, backend) => {
  let model: Model;
  let golden: Golden;
  let loaded: Loaded;
  let prompt: Sequence;

  beforeAll(async () => {
    const path = fixtureFile(`goldens/${family}`);
    model = await openModel(path);
    golden = await readGolden(`${path}/golden.safetensors`);
    // The last drawn token is not in the cache: the greedy text just fits.
    loaded = await load(backend, model, golden.ids.length + golden.greedy.length - 1);
    prompt = loaded.decoder.createSequence();
    await loaded.decoder.run([{ sequence: prompt, tokens: golden.ids.slice(0, -1), logits: 'none' }]);
  });
  afterAll(async () => {
    await loaded?.decoder.dispose();
    await model?.file.close();
  });

  const talk = () => new Talk(loaded.decoder, prompt.fork(), golden.ids);

  const draw = async (drawn: Talk, rules: SamplerSettings, steps: number, stopIds?: ReadonlySet<number>) => {
    const [tokens = []] = await loaded.sampling.sample([drawn.slice(rules, steps, stopIds)], steps);
    drawn.take(...tokens);
    return tokens;
  };

  /** Both have the same tokens and continue with the same bits. */
  const expectSame = async (a: Talk, b: Talk) => {
    expect(a.tokens).toEqual(b.tokens);
    expect(a.sequence.length).toBe(b.sequence.length);
    expect(await a.logits()).toEqual(await b.logits());
    for (const { sequence } of [a, b]) sequence.dispose();
  };

  it('are the golden greedy text up to the end of the context, and none beyond', async () => {
    const drawn = talk();
    for (const steps of [1, 16, 15]) expect(await draw(drawn, greedy, steps)).toHaveLength(steps);
    expect(drawn.tokens.slice(golden.ids.length)).toEqual(golden.greedy);
    const full = drawn.sequence.length;
    await expect(draw(drawn, greedy, 1)).rejects.toMatchObject({ code: 'context-overflow' });
    expect(drawn.sequence.length).toBe(full);
    drawn.sequence.dispose();
  });

  it.each<[string, SamplerSettings]>([
    ['greedy', greedy],
    ['top-k, top-p', { ...greedy, temperature: 0.8, topK: 20, topP: 0.9 }],
    ['more than the GPU keeps', { ...greedy, temperature: 1.5, topK: 100 }],
    ['min-p, penalties', { ...greedy, temperature: 1.2, minP: 0.05, repetitionPenalty: 1.3, presencePenalty: 0.4 }],
  ])('are those that the engine samples: %s', async (_, rules) => {
    const [chosen, drawn] = [talk(), talk()];
    for (const each of [chosen, drawn]) each.forbidden = golden.greedy.slice(0, 4);
    for (let i = 0; i < 18; i++) await chosen.choose(rules);
    for (const steps of [1, 2, 15]) await draw(drawn, rules, steps);
    await expectSame(drawn, chosen);
  });

  it('end at a stop id; nothing after it is in the cache', async () => {
    const stop = golden.greedy[4] ?? 0;
    const length = golden.greedy.indexOf(stop) + 1;
    const [drawn, chosen] = [talk(), talk()];
    expect(await draw(drawn, greedy, 16, new Set([stop]))).toEqual(golden.greedy.slice(0, length));
    for (let i = 0; i < length; i++) await chosen.choose(greedy);
    await expectSame(drawn, chosen);
  });

  // ONNX Runtime's graph has the embedding.
  if (name === 'ggml')
    it('stop with the error of a row that cannot be read; the sequence stays as it was', async () => {
      const { embedding } = model.weights;
      let isBroken = false;
      const { decoder, sampling } = await load(backend, model, 256, {
        ...embedding,
        readRows: (start, count) =>
          isBroken ? Promise.reject(new Error('the disk is gone')) : embedding.readRows(start, count),
      });
      const sequence = decoder.createSequence();
      await decoder.run([{ sequence, tokens: golden.ids.slice(0, -1), logits: 'none' }]);
      const drawn = new Talk(decoder, sequence, golden.ids);
      const { length } = sequence;
      isBroken = true;
      // The prompt's tokens are kept; the text needs others.
      const text = sampling.sample([drawn.slice({ ...greedy, temperature: 9 }, 16)], 16);
      await expect(text).rejects.toThrow('the disk is gone');
      expect(sequence.length).toBe(length);
      isBroken = false;
      const [tokens = []] = await sampling.sample([drawn.slice(greedy, 16)], 16);
      expect(tokens).toEqual(golden.greedy.slice(0, 16));
      await decoder.dispose();
    });

  it('are refused if the logits are no numbers, as a pass is', async () => {
    const { finalNorm } = model.weights;
    const [width = 0] = finalNorm.shape;
    const readRows = async () => new Uint8Array(new Float32Array(width).fill(Number.NaN).buffer);
    const weights = { ...model.weights, finalNorm: { ...finalNorm, type: 'F32' as const, readRows } };
    const errors: unknown[] = [];
    for (const draws of [false, true]) {
      const decoder = await backend.load(model.spec, weights, { contextTokens: 256, threads: 1 });
      const talk = new Talk(decoder, decoder.createSequence(), [1]);
      const work = draws ? decoder.deviceSampling?.sample([talk.slice(greedy, 4)], 4) : talk.logits();
      errors.push(await work?.then(String, (error: unknown) => error));
      expect(talk.sequence.length).toBe(draws ? 0 : 1);
      await decoder.dispose();
    }
    const [ofPass, ofDraw] = errors;
    expect(ofPass).toMatchObject({ message: expect.stringMatching(/not finite|damaged/) });
    expect(ofDraw).toEqual(ofPass);
  });
});
