import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { SequenceSlice } from '../../../engine/backend/backend.ts';
import { onnxBackend } from '../../../engine/backend/onnx/index.ts';
import { argmax, greedy, sample } from '../../../engine/backend/sampler.ts';
import { PrefixCache } from '../../../engine/kv/prefixCache.ts';
import { openModel } from '../../../engine/model/open.ts';
import { free } from '../../../engine/sampling/logitsProcessor.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';
import type { SamplingState } from '../../../engine/scheduler/job.ts';
import { Scheduler } from '../../../engine/scheduler/scheduler.ts';
import { Speculation } from '../../../engine/scheduler/tokensPerStep.ts';
import { FakeDecoder, type FakeRun } from './fakeDecoder.ts';
import { patient } from './setUp.ts';

/** A clock that the decoder moves: 10 ms a run and `rowMs` for every row after the first, on a machine as `busy` as that. */
function setUp(
  follow: (tokens: readonly number[]) => number,
  { speculates = true, rowMs = 1, draws = false, busy = (_: SequenceSlice | undefined): number => 1 } = {},
) {
  let clock = 0;
  const decoder = new FakeDecoder({
    vocabularySize: 40,
    contextTokens: 2000,
    maxTokensPerRun: 128,
    follow,
    draws,
    beforeRun: (batch, steps) => {
      const rows = batch.reduce((sum, { tokens }) => sum + tokens.length, 0);
      clock += busy(batch[0]) * steps * (10 + rowMs * (rows - 1));
    },
  });
  const scheduler = new Scheduler({
    decoder,
    cache: new PrefixCache({ decoder, maxIdle: () => 2 }),
    ...(speculates && { speculation: new Speculation() }),
    maxPendingPerClass: 64,
    patienceMs: patient,
    now: () => clock,
    yieldToEventLoop: () => new Promise((resolve) => setImmediate(resolve)),
  });
  const generate = async (
    prompt: readonly number[],
    maxTokens: number,
    choose = argmax,
    drawn = false,
  ): Promise<number[]> => {
    const received: number[] = [];
    const deliver = (token: number) => {
      received.push(token);
      return 'continue' as const;
    };
    const request = { requestClass: 'chat' as const, prompt, maxTokens, choose, deliver };
    await scheduler.submit({ ...request, ...(drawn && { sampling: freeSampling() }) });
    return received;
  };
  return { decoder, scheduler, generate };
}

/** Greedy, so that the device may sample every token. */
const freeSampling = (): SamplingState => ({
  rules: greedy,
  history: { sequence: new Set(), generated: new Set() },
  stopIds: new Set(),
  uniforms: (count) => new Array<number>(count).fill(0),
  sampled: () => {},
  free: () => free,
});

const prompt = Array.from({ length: 62 }, (_, i) => (i * 7) % 31);
/** Copies the prompt from its start, with a token changed in every `every`. */
const copying = (every: number) => (tokens: readonly number[]) => {
  const at = tokens.length - prompt.length;
  return at % every === every - 1 ? 39 : (prompt[at % prompt.length] ?? 0);
};
const decodeRuns = (decoder: FakeDecoder, from = 0): FakeRun[] =>
  decoder.runs.slice(from).filter(({ start }) => start >= prompt.length);

describe('speculation', () => {
  it.each([3, 10, 1000])(
    'gives the same tokens as plain decoding, whether draft tokens are accepted or rejected (a change in every %i)',
    async (every) => {
      const plain = await setUp(copying(every), { speculates: false }).generate(prompt, 200);
      const speculating = setUp(copying(every));
      expect(await speculating.generate(prompt, 200)).toEqual(plain);
      expect(speculating.scheduler.statistics().classes.chat.draftTokens).toBeGreaterThan(0);
    },
  );

  it('needs a fraction of the passes for repeated text', async () => {
    const { decoder, generate, scheduler } = setUp(copying(1000));
    await generate(prompt, 200);
    expect(decodeRuns(decoder).length).toBeLessThan(60);
    const { draftTokens, acceptedTokens } = scheduler.statistics().classes.chat;
    expect(acceptedTokens / draftTokens).toBeGreaterThan(0.9);
  });

  it('stops drafting when draft tokens are rejected', async () => {
    let next = 0;
    // Three tokens repeat, so there is always a draft, but the tokens after them never repeat.
    const { scheduler, generate } = setUp((tokens) => (tokens.length % 4 < 3 ? tokens.length % 4 : 5 + (next++ % 30)));
    await generate(prompt, 400);
    const { draftTokens } = scheduler.statistics().classes.chat;
    expect(draftTokens).toBeLessThan(400);
  });

  it('stops drafting when a row costs as much as a pass', async () => {
    const { decoder, generate } = setUp(copying(1000), { rowMs: 12 });
    await generate(prompt, 400);
    expect(decodeRuns(decoder).length).toBeGreaterThan(350);
  });

  it('stops drafting when it no longer pays, though it did while the machine was busy', async () => {
    let load = 5;
    const random = seededRandom(3);
    const { decoder, generate } = setUp(
      // A text without repetitions, then one in which any three tokens occurred before and half of the draft tokens are right.
      () => Math.floor((load > 1 ? 31 : 2) * random()),
      { rowMs: 6, busy: () => load },
    );
    await generate(prompt, 100);
    load = 1;
    const before = decoder.runs.length;
    await generate(
      prompt.map(() => Math.floor(2 * random())),
      400,
    );
    const rows = decoder.runs.slice(before).reduce((sum, { tokens }) => sum + tokens.length, 0);
    expect(rows).toBeLessThan(400 + prompt.length + 40);
  });

  it('drafts again as soon as the text is copied, without probes in between', async () => {
    const random = seededRandom(5);
    const { decoder, generate } = setUp(
      (tokens) => (tokens.length < prompt.length + 150 ? Math.floor(2 * random()) : copying(1000)(tokens)),
      { rowMs: 6 },
    );
    await generate(prompt, 300);
    const copied = decoder.runs.filter(({ start }) => start >= prompt.length + 150);
    // At best 30 passes of 4 draft tokens and the token after them; 150 without draft tokens.
    expect(copied.length).toBeLessThan(60);
  });

  it('drafts as well beside keystrokes, whose passes over a short context are cheaper', async () => {
    const { decoder, scheduler, generate } = setUp(copying(1000), {
      rowMs: 0.1,
      // The chat's context makes a run five times as long.
      busy: (slice) => ((slice?.sequence.length ?? 0) >= prompt.length ? 5 : 1),
    });
    const press = (key: number) => {
      const typed = { requestClass: 'keystroke' as const, prompt: [1, 2, key], maxTokens: 8 };
      return scheduler.submit({ ...typed, choose: argmax, deliver: () => 'continue' });
    };
    const runsOf = async (typing: boolean): Promise<number> => {
      const before = decoder.runs.length;
      const pressed: Promise<unknown>[] = [];
      let tokens = 0;
      await generate(prompt, 400, (logits) => {
        if (typing && tokens++ % 20 === 0) pressed.push(press(tokens % 40));
        return argmax(logits);
      });
      await Promise.all(pressed);
      return decodeRuns(decoder, before).length;
    };
    await runsOf(false);
    const alone = await runsOf(false);
    // Their passes are shorter, because 12.5 ms may be added to 50, not 50: 16 draft tokens at a time instead of up to 48.
    expect(await runsOf(true)).toBeLessThan(3 * alone);
  });

  it('keeps passes short only while somebody types', async () => {
    const { decoder, scheduler, generate } = setUp(copying(1000));
    await generate(prompt, 200);
    const longest = async (): Promise<number> => {
      const before = decoder.runs.length;
      await generate(prompt, 200);
      return Math.max(...decodeRuns(decoder, before).map(({ tokens }) => tokens.length));
    };
    expect(await longest()).toBeGreaterThan(16);
    const key = { requestClass: 'keystroke' as const, prompt: [1, 2, 3], maxTokens: 1 };
    await scheduler.submit({ ...key, choose: argmax, deliver: () => 'continue' });
    // A pass without draft tokens takes 10 ms, and they may add as much again.
    expect(await longest()).toBeLessThanOrEqual(11);
    await generate(prompt.toReversed(), 1900);
    expect(await longest()).toBeGreaterThan(16);
  });

  it('samples from the same distribution: the same seed gives the same tokens', async () => {
    const sampler = (seed: number) => {
      const random = seededRandom(seed);
      // The fake model is certain; this temperature makes it uncertain.
      const settings = { ...greedy, temperature: 15 };
      return (logits: Float32Array) => sample(logits, settings, { sequence: new Set(), generated: new Set() }, random);
    };
    for (let seed = 0; seed < 20; seed++) {
      const plain = await setUp(copying(20), { speculates: false }).generate(prompt, 100, sampler(seed));
      const speculating = setUp(copying(20));
      expect(await speculating.generate(prompt, 100, sampler(seed))).toEqual(plain);
    }
  });
});

describe('speculation with device sampling', () => {
  /** Two stretches of the prompt, each after unpredictable tokens. */
  const follow = (tokens: readonly number[]) => {
    const at = tokens.length - prompt.length;
    return at % 60 < 20 ? 32 + (((at * at * 7) % 61) % 8) : (prompt[at % 60] ?? 0);
  };
  const write = async ({ draws, speculates }: { readonly draws: boolean; readonly speculates: boolean }) => {
    const { decoder, generate, scheduler } = setUp(follow, { draws, speculates });
    const tokens = await generate(prompt, 120, argmax, draws);
    return { tokens, draws: decoder.draws, runs: decodeRuns(decoder).length, of: scheduler.statistics().classes.chat };
  };

  it('writes the same tokens with both, with either and with neither', async () => {
    const plain = await write({ draws: false, speculates: false });
    for (const [draws, speculates] of [
      [true, false],
      [false, true],
      [true, true],
    ] as const) {
      expect((await write({ draws, speculates })).tokens, `${draws} ${speculates}`).toEqual(plain.tokens);
    }
  });

  it('drafts again after the device has sampled unpredictable tokens', async () => {
    const both = await write({ draws: true, speculates: true });
    expect(both.draws.reduce((sum, steps) => sum + steps, 0)).toBeGreaterThan(20);
    // Of 80 that repeat; the device samples the first tokens of each stretch until the match is found.
    expect(both.of.acceptedTokens).toBeGreaterThan(30);
  });
});

describe('speculation on a real decoder', () => {
  it('writes the same greedy text as plain decoding, and uses draft tokens', async () => {
    const model = await openModel(resolve(import.meta.dirname, '../../fixtures/goldens/llama'));
    const decoder = await onnxBackend.load(model.spec, model.weights, { contextTokens: 512, threads: 1 });
    const write = async (speculation?: Speculation) => {
      let looks = 0;
      const scheduler = new Scheduler({
        decoder,
        cache: new PrefixCache({ decoder, maxIdle: () => 1 }),
        ...(speculation && { speculation }),
        maxPendingPerClass: 1,
        patienceMs: patient,
        // Every pass seems to take the same time, so draft tokens always seem to pay.
        now: () => looks++,
        yieldToEventLoop: () => new Promise((done) => setImmediate(done)),
      });
      const received: number[] = [];
      const deliver = (token: number) => {
        received.push(token);
        return 'continue' as const;
      };
      await scheduler.submit({
        requestClass: 'chat',
        prompt: prompt.slice(0, 20),
        maxTokens: 300,
        choose: argmax,
        deliver,
      });
      return { received, drafts: scheduler.statistics().classes.chat.draftTokens };
    };
    const plain = await write();
    const speculating = await write(new Speculation());
    expect(speculating.received).toEqual(plain.received);
    expect(speculating.drafts).toBeGreaterThan(20);
    await decoder.dispose();
    await model.file.close();
  });
});

describe('the length of a draft', () => {
  const anything = Number.POSITIVE_INFINITY;
  /** Costs of passes by their draft tokens, as multiples of a pass without. */
  const costing = (...costs: readonly (readonly [drafts: number, cost: number])[]) => {
    const speculation = new Speculation();
    for (const [drafts, cost] of costs) for (let i = 0; i < 5; i++) speculation.measured(drafts, cost);
    return speculation;
  };

  it('grows with the acceptance rate and with cheaper rows', () => {
    const cheap = costing([4, 1.1]);
    const dear = costing([4, 3]);
    const rates = [0.1, 0.5, 0.8, 0.95];
    const lengths = rates.map((rate) => cheap.bestLength(rate, anything));
    expect(lengths).toEqual(lengths.toSorted((a, b) => a - b));
    expect(lengths.at(-1)).toBeGreaterThanOrEqual(32);
    for (const rate of rates)
      expect(dear.bestLength(rate, anything)).toBeLessThanOrEqual(cheap.bestLength(rate, anything));
    expect(dear.bestLength(0.1, anything)).toBe(0);
  });

  it('keeps the cost of a pass within the budget', () => {
    // 15 % a row: 13 rows exceed 3 times the cost, though 16 draft tokens would pay more.
    expect(costing([4, 1.6]).bestLength(0.98, 3)).toBe(8);
    expect(costing([4, 1.6]).bestLength(0.98, 1.25)).toBe(0);
    expect(costing([4, 1.1]).bestLength(0.98, 2)).toBe(32);
  });

  it('is long if the cost of a pass depends on the experts it touches, not on its rows', () => {
    const experts = costing([2, 2.4], [4, 3.4], [8, 4.4], [16, 5], [32, 5.4], [48, 5.6]);
    expect(experts.bestLength(0.97, anything)).toBeGreaterThanOrEqual(32);
    expect(experts.bestLength(0.5, anything)).toBe(0);
  });

  it('is unchanged by single slow passes', () => {
    const speculation = costing([2, 1.2], [4, 1.4], [8, 1.8]);
    const before = speculation.bestLength(0.9, anything);
    expect(before).toBeGreaterThan(0);
    for (const drafts of [2, 4, 8]) for (const cost of [20, 30]) speculation.measured(drafts, cost);
    expect(speculation.bestLength(0.9, anything)).toBe(before);
  });

  it('is tried again if only its first pass, which prepares memory, was slow', () => {
    const speculation = new Speculation();
    speculation.measured(2, 10);
    expect(speculation.bestLength(0.9, anything)).toBeGreaterThan(0);
    for (let i = 0; i < 2; i++) speculation.measured(2, 10);
    expect(speculation.bestLength(0.9, anything)).toBe(0);
  });
});
