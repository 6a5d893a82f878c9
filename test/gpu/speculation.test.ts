import { expect, it } from 'vitest';
import type { Decoder } from '../../engine/backend/backend.ts';
import { greedy } from '../../engine/backend/sampler.ts';
import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { PrefixCache } from '../../engine/kv/prefixCache.ts';
import { openModel } from '../../engine/model/open.ts';
import { seededRandom } from '../../engine/sampling/random.ts';
import { Scheduler } from '../../engine/scheduler/scheduler.ts';
import { Speculation } from '../../engine/scheduler/tokensPerStep.ts';
import { generate } from '../../engine/tasks/generate.ts';
import { patient } from '../unit/scheduler/setUp.ts';
import { fixtureFile } from '../unit/shared.ts';
import { askedGoldens, lavapipe } from './adapters.ts';

interface Ways {
  readonly speculates: boolean;
  readonly draws: boolean;
  readonly temperature: number;
}

/** Ids of 160 tokens after a prompt, how many draft tokens were accepted, and how many tokens the device sampled. */
async function write(decoder: Decoder, { speculates, draws, temperature }: Ways) {
  let [looks, sampled] = [0, 0];
  const { deviceSampling } = decoder;
  const counted = deviceSampling && {
    ...deviceSampling,
    sample: async (...args: Parameters<typeof deviceSampling.sample>) => {
      const tokens = await deviceSampling.sample(...args);
      // Each step is one pass.
      looks += args[1] - 1;
      sampled += tokens.flat().length;
      return tokens;
    },
  };
  // Methods use the decoder's private fields, so the proxy replaces only these properties.
  const seen = new Proxy(decoder, {
    get(target, name) {
      if (name === 'deviceSampling') return draws ? counted : undefined;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  const scheduler = new Scheduler({
    decoder: seen,
    cache: new PrefixCache({ decoder, maxIdle: () => 0 }),
    ...(speculates && { speculation: new Speculation() }),
    maxPendingPerClass: 1,
    patienceMs: patient,
    // Every pass seems to take the same time, so draft tokens always seem to pay.
    now: () => looks++,
    yieldToEventLoop: () => new Promise((done) => setImmediate(done)),
  });
  const { text } = await generate(scheduler, {
    requestClass: 'chat',
    prompt: Array.from({ length: 30 }, (_, i) => (i * 7) % 31),
    maxTokens: 160,
    sampling: { ...greedy, temperature },
    random: seededRandom(7),
    stopIds: new Set(),
    stopStrings: [],
    parser: { isThinking: false, push: (token) => [{ kind: 'text', text: `${token} ` }], end: () => [] },
    onPiece: () => 'continue',
  });
  return { text, sampled, accepted: scheduler.statistics().classes.chat.acceptedTokens };
}

const slow = !lavapipe && askedGoldens !== 'all';

it('writes the same with draft tokens, with device sampling, with both and with neither', async (context) => {
  if (slow) context.skip('takes more than a minute on this adapter, and runs on lavapipe: npm run proof:gpu');
  const model = await openModel(fixtureFile('goldens/gpt-oss'));
  const backend = createWebgpuBackend({ gpu: { validate: true }, cachePrecision: 'f32' });
  const decoder = await backend.load(model.spec, model.weights, { contextTokens: 256 });
  const ways = { speculates: false, draws: false, temperature: 0 };
  const plain = await write(decoder, ways);
  const sampled = await write(decoder, { ...ways, draws: true });
  const drafted = await write(decoder, { ...ways, speculates: true });
  const both = await write(decoder, { ...ways, speculates: true, draws: true });
  for (const { text } of [sampled, drafted, both]) expect(text).toBe(plain.text);
  // All but the first, which follows the prompt.
  expect([plain.sampled, sampled.sampled]).toEqual([0, 159]);
  expect(drafted.accepted).toBeGreaterThan(20);
  expect(both.accepted).toBeGreaterThan(20);
  expect(both.sampled).toBeGreaterThan(20);
  const warm = { ...ways, temperature: 0.7 };
  const warmPlain = await write(decoder, warm);
  expect((await write(decoder, { ...warm, speculates: true, draws: true })).text).toBe(warmPlain.text);
  await decoder.dispose();
  await model.file.close();
});
