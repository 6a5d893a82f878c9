/** A smaller model drafts for a larger one, on one device with a clock that passes move. */
import { describe, expect, it } from 'vitest';
import { argmax } from '../../../engine/backend/sampler.ts';
import { draftOwner, PrefixCache } from '../../../engine/kv/prefixCache.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { DraftModel } from '../../../engine/scheduler/draftModel.ts';
import type { TokenRequest } from '../../../engine/scheduler/job.ts';
import { Scheduler } from '../../../engine/scheduler/scheduler.ts';
import { SharedDevice } from '../../../engine/scheduler/sharing.ts';
import { Speculation } from '../../../engine/scheduler/tokensPerStep.ts';
import { FakeDecoder, hashOf } from './fakeDecoder.ts';
import { patient } from './setUp.ts';

const vocabularySize = 40;
/** Never repeats for long, so that prompt lookup finds little. */
const text = (tokens: readonly number[]): number => hashOf(tokens, vocabularySize);

interface Options {
  /** Share of the smaller model's tokens that are the larger one's. */
  readonly right?: number;
  /** Milliseconds of its passes. The larger one takes 10, and 0.5 for each further row. */
  readonly smallMs?: number;
  /** Milliseconds more for a pass of the larger one with several rows. */
  readonly severalMs?: number;
  readonly drafts?: boolean;
  readonly draws?: boolean;
  readonly contextTokens?: number;
}

function setUp(options: Options = {}) {
  const { right = 1, smallMs = 1, severalMs = 0, drafts = true, draws = false, contextTokens = 8192 } = options;
  let clock = 0;
  const now = (): number => clock;
  const random = seededRandom(1);
  const device = new SharedDevice({ patienceMs: patient, now });
  const machine = (passMs: number, rowMs: number, several: number, follow: typeof text, context: number) => {
    const decoder = new FakeDecoder({
      vocabularySize,
      contextTokens: context,
      maxTokensPerRun: 128,
      follow,
      draws,
      beforeRun: (batch, steps) => {
        const rows = batch.reduce((sum, { tokens }) => sum + tokens.length, 0);
        clock += steps * (passMs + rowMs * (rows - 1) + (rows > 1 ? several : 0));
      },
    });
    const cache = new PrefixCache({ decoder, maxIdle: (owner) => (owner === draftOwner ? 1 : 4) });
    const scheduler = new Scheduler({
      decoder,
      device,
      cache,
      speculation: new Speculation(),
      maxPendingPerClass: 64,
      patienceMs: patient,
      now,
      yieldToEventLoop: () => new Promise((resolve) => setImmediate(resolve)),
    });
    return { decoder, scheduler, cache };
  };
  const guess: typeof text = (tokens) => (random() < right ? text(tokens) : (text(tokens) + 1) % vocabularySize);
  const [large, small] = [machine(10, 0.5, severalMs, text, 8192), machine(smallMs, 0.05, 0, guess, contextTokens)];
  if (drafts) large.scheduler.draftWith(new DraftModel(small.scheduler, vocabularySize, now));
  const generate = async (maxTokens: number, fields: Partial<TokenRequest> = {}) => {
    const received: number[] = [];
    const startMs = clock;
    const outcome = await large.scheduler.submit({
      requestClass: 'chat',
      prompt,
      maxTokens,
      choose: argmax,
      deliver: (token) => {
        received.push(token);
        return 'continue';
      },
      ...fields,
    });
    return { received, ms: clock - startMs, finish: outcome.finish };
  };
  return { large, small, generate, now };
}

const prompt = Array.from({ length: 60 }, (_, i) => (i * 11) % 37);
const plainly = (tokens: number) => setUp({ drafts: false }).generate(tokens);

describe('a smaller model that drafts', () => {
  it.each([1, 0.7, 0])('changes no token if a share of %d of its tokens is right', async (right) => {
    const plain = await plainly(300);
    expect((await setUp({ right }).generate(300)).received).toEqual(plain.received);
    expect((await setUp({ right, draws: true }).generate(300)).received).toEqual(plain.received);
  });

  it('saves most passes of the larger one if it is right, and some if it often is', async () => {
    const plain = await plainly(600);
    expect((await setUp().generate(600)).ms).toBeLessThan(plain.ms / 2.5);
    expect((await setUp({ right: 0.8 }).generate(600)).ms).toBeLessThan(plain.ms / 1.4);
  });

  it('hardly slows an answer if it is wrong, or as slow as the larger one', async () => {
    const plain = await plainly(1000);
    expect((await setUp({ right: 0 }).generate(1000)).ms).toBeLessThan(1.06 * plain.ms);
    expect((await setUp({ smallMs: 10 }).generate(1000)).ms).toBeLessThan(1.06 * plain.ms);
  });

  it('drafts more tokens where a few cost nearly as much as many, and no longer if it is often wrong', async () => {
    const costs = { severalMs: 12, smallMs: 2.5 };
    const plain = await plainly(600);
    expect((await setUp(costs).generate(600)).ms).toBeLessThan(plain.ms / 1.4);
    expect((await setUp({ ...costs, right: 0.5 }).generate(600)).ms).toBeLessThan(1.06 * plain.ms);
  });

  it('is tried again now and then, so that it helps once it is right', async () => {
    const options = { right: 0 };
    const { generate, small } = setUp(options);
    await generate(400);
    const before = small.decoder.runs.length;
    await generate(1000, { prompt: [...prompt, 3] });
    expect(small.decoder.runs.length).toBeGreaterThan(before);
  });

  it('prefills nothing for a short answer', async () => {
    const { small, generate } = setUp();
    await generate(5);
    expect(small.decoder.runs).toEqual([]);
  });

  it('keeps one sequence, apart from those of its own requests', async () => {
    const { small, generate } = setUp();
    await generate(200);
    await generate(200, { prompt: prompt.map((token) => token + 1) });
    expect(Array.from(small.cache.idle, ({ owner }) => owner)).toEqual([draftOwner]);
  });

  it('prefills only the end of a long text', async () => {
    const { small, generate } = setUp({ contextTokens: 1024 });
    const long = Array.from({ length: 3000 }, (_, i) => (i * i) % 37);
    const { received } = await generate(400, { prompt: long });
    expect(received).toEqual((await setUp({ drafts: false }).generate(400, { prompt: long })).received);
    expect(small.decoder.runs.length).toBeGreaterThan(0);
    expect(Math.max(...small.decoder.runs.map(({ start, tokens }) => start + tokens.length))).toBeLessThan(256 + 64);
  });

  it('stops with a cancelled answer at once; its text is kept', async () => {
    const controller = new AbortController();
    const { generate, small, large } = setUp();
    let tokens = 0;
    const deliver = (): 'continue' => {
      if (++tokens === 100) controller.abort();
      return 'continue';
    };
    const { finish } = await generate(600, { deliver, signal: controller.signal });
    expect(finish).toBe('cancelled');
    expect(tokens).toBeLessThan(100 + 49);
    expect([large.scheduler.pending, small.scheduler.pending]).toEqual([0, 0]);
  });

  it('completes code meanwhile: a key goes before drafts', async () => {
    const { generate, small, now } = setUp();
    const waits: number[] = [];
    let tokens = 0;
    const keys: Promise<unknown>[] = [];
    const deliver = (): 'continue' => {
      if (++tokens % 50 === 0) {
        const startMs = now();
        const request = { requestClass: 'keystroke' as const, prompt: [1, 2, 3, tokens % 40], maxTokens: 1 };
        const key = small.scheduler.submit({ ...request, choose: argmax, deliver: () => 'continue' });
        keys.push(key.then(() => waits.push(now() - startMs)));
      }
      return 'continue';
    };
    await generate(600, { deliver });
    await Promise.all(keys);
    expect(waits).toHaveLength(12);
    // One pass of the larger model with draft tokens, and its own.
    expect(Math.max(...waits)).toBeLessThan(10 + 0.5 * 48 + 2);
  });

  it('may be unloaded during an answer', async () => {
    const { generate, small } = setUp();
    let tokens = 0;
    let closed: Promise<void> | undefined;
    const deliver = (): 'continue' => {
      if (++tokens === 100) closed = small.scheduler.close();
      return 'continue';
    };
    const { finish } = await generate(300, { deliver });
    expect([finish, tokens]).toEqual(['length', 300]);
    await closed;
  });

  it('may fail', async () => {
    const { generate, small } = setUp();
    small.decoder.run = async () => {
      throw new Error('its device is gone');
    };
    expect((await generate(300)).received).toEqual((await plainly(300)).received);
  });
});
