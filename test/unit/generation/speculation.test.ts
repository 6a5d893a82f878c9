import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { onnxBackend } from '../../../engine/backend/onnx/index.ts';
import { PrefixCache } from '../../../engine/cache/prefixCache.ts';
import type { Drawing } from '../../../engine/generation/job.ts';
import { seededRandom } from '../../../engine/generation/random.ts';
import { argmax, greedy, sample } from '../../../engine/generation/sampler.ts';
import { Scheduler } from '../../../engine/generation/scheduler.ts';
import { Speculation } from '../../../engine/generation/speculation.ts';
import { openModel } from '../../../engine/model/open.ts';
import { FakeDecoder } from './fakeDecoder.ts';
import { patient } from './setUp.ts';

/** A clock that the decoder moves: 10 ms a run and `rowMs` for every row after the first. */
function setUp(follow: (tokens: readonly number[]) => number, { speculates = true, rowMs = 1, draws = false } = {}) {
  let clock = 0;
  const decoder = new FakeDecoder({
    vocabularySize: 40,
    contextTokens: 2000,
    follow,
    draws,
    beforeRun: (batch) => {
      clock += 10 + rowMs * (batch.reduce((sum, { tokens }) => sum + tokens.length, 0) - 1);
    },
  });
  const scheduler = new Scheduler({
    decoder,
    cache: new PrefixCache({ decoder, maxIdle: () => 2 }),
    ...(speculates && { speculation: new Speculation() }),
    chunkTokens: 128,
    maxPendingPerClass: 64,
    patienceMs: patient,
    now: () => clock,
    breathe: () => new Promise((resolve) => setImmediate(resolve)),
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
    await scheduler.submit({ ...request, ...(drawn && { drawing: freeDrawing() }) });
    return received;
  };
  return { decoder, scheduler, generate };
}

/** Greedy, and free to be drawn by the device. */
const freeDrawing = (): Drawing => ({
  rules: greedy,
  history: { sequence: new Set(), generated: new Set() },
  stopIds: new Set(),
  uniforms: (count) => new Array<number>(count).fill(0),
  drew: () => {},
  isFree: () => true,
});

const prompt = Array.from({ length: 62 }, (_, i) => (i * 7) % 31);
/** Copies the prompt from its start, with a token changed in every `every`. */
const copying = (every: number) => (tokens: readonly number[]) => {
  const at = tokens.length - prompt.length;
  return at % every === every - 1 ? 39 : (prompt[at % prompt.length] ?? 0);
};
const decodeRuns = (decoder: FakeDecoder): number => decoder.runs.filter(({ start }) => start >= prompt.length).length;

describe('speculation', () => {
  it.each([3, 10, 1000])(
    'gives the same tokens as without, whether guesses are right or wrong (a change in every %i)',
    async (every) => {
      const plain = await setUp(copying(every), { speculates: false }).generate(prompt, 200);
      const guessing = setUp(copying(every));
      expect(await guessing.generate(prompt, 200)).toEqual(plain);
      expect(guessing.scheduler.statistics().classes.chat.guessedTokens).toBeGreaterThan(0);
    },
  );

  it('needs a fraction of the runs for text that repeats', async () => {
    const { decoder, generate, scheduler } = setUp(copying(1000));
    await generate(prompt, 200);
    expect(decodeRuns(decoder)).toBeLessThan(60);
    const { guessedTokens, rightTokens } = scheduler.statistics().classes.chat;
    expect(rightTokens / guessedTokens).toBeGreaterThan(0.9);
  });

  it('stops guessing where guesses are wrong', async () => {
    let next = 0;
    // Three tokens repeat, so that there is always a guess, and what follows them never does.
    const { scheduler, generate } = setUp((tokens) => (tokens.length % 4 < 3 ? tokens.length % 4 : 5 + (next++ % 30)));
    await generate(prompt, 400);
    const { guessedTokens } = scheduler.statistics().classes.chat;
    expect(guessedTokens).toBeLessThan(400);
  });

  it('stops guessing where a row costs as much as a run', async () => {
    const { decoder, generate } = setUp(copying(1000), { rowMs: 12 });
    await generate(prompt, 400);
    expect(decodeRuns(decoder)).toBeGreaterThan(350);
  });

  it('draws from the very same distribution: with the same seed the same tokens', async () => {
    const draw = (seed: number) => {
      const random = seededRandom(seed);
      // The fake model is certain; at this temperature it is not.
      const settings = { ...greedy, temperature: 15 };
      return (logits: Float32Array) => sample(logits, settings, { sequence: new Set(), generated: new Set() }, random);
    };
    for (let seed = 0; seed < 20; seed++) {
      const plain = await setUp(copying(20), { speculates: false }).generate(prompt, 100, draw(seed));
      const guessing = setUp(copying(20));
      expect(await guessing.generate(prompt, 100, draw(seed))).toEqual(plain);
    }
  });
});

describe('speculation where the device draws', () => {
  /** Two stretches of the prompt, each after tokens that nothing foretells. */
  const follow = (tokens: readonly number[]) => {
    const at = tokens.length - prompt.length;
    return at % 60 < 20 ? 32 + ((at * at) % 8) : (prompt[at % 60] ?? 0);
  };
  const write = async ({ draws, speculates }: { readonly draws: boolean; readonly speculates: boolean }) => {
    const { decoder, generate, scheduler } = setUp(follow, { draws, speculates });
    const tokens = await generate(prompt, 120, argmax, draws);
    return { tokens, draws: decoder.draws, runs: decodeRuns(decoder), of: scheduler.statistics().classes.chat };
  };

  it('writes what either alone and neither write', async () => {
    const plain = await write({ draws: false, speculates: false });
    for (const [draws, speculates] of [
      [true, false],
      [false, true],
      [true, true],
    ] as const) {
      expect((await write({ draws, speculates })).tokens, `${draws} ${speculates}`).toEqual(plain.tokens);
    }
  });

  it('guesses again after the device drew what could not be guessed', async () => {
    const both = await write({ draws: true, speculates: true });
    expect(both.draws.reduce((sum, steps) => sum + steps, 0)).toBeGreaterThan(20);
    // Of 80 that repeat: the first of each stretch are drawn until the match is seen.
    expect(both.of.rightTokens).toBeGreaterThan(30);
  });
});

describe('speculation on a real decoder', () => {
  it('writes the same greedy text as without, with guesses among it', async () => {
    const model = await openModel(resolve(import.meta.dirname, '../../fixtures/goldens/llama'));
    const decoder = await onnxBackend.load(model.spec, model.weights, { contextTokens: 512, threads: 1 });
    const write = async (speculation?: Speculation) => {
      let looks = 0;
      const scheduler = new Scheduler({
        decoder,
        cache: new PrefixCache({ decoder, maxIdle: () => 1 }),
        ...(speculation && { speculation }),
        chunkTokens: 128,
        maxPendingPerClass: 1,
        patienceMs: patient,
        // Every run seems to take the same time, so that guesses always seem to pay.
        now: () => looks++,
        breathe: () => new Promise((done) => setImmediate(done)),
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
      return { received, guesses: scheduler.statistics().classes.chat.guessedTokens };
    };
    const plain = await write();
    const guessing = await write(new Speculation());
    expect(guessing.received).toEqual(plain.received);
    expect(guessing.guesses).toBeGreaterThan(20);
    await decoder.dispose();
    await model.file.close();
  });
});

describe('the length of a guess', () => {
  it('grows with the share that comes true, and with the cheapness of rows', () => {
    const cheap = new Speculation();
    cheap.measured(0, 10);
    cheap.measured(4, 11);
    const dear = new Speculation();
    dear.measured(0, 10);
    dear.measured(4, 30);
    const rates = [0.1, 0.5, 0.8, 0.95];
    const lengths = rates.map((rate) => cheap.bestLength(rate));
    expect(lengths).toEqual(lengths.toSorted((a, b) => a - b));
    expect(lengths.at(-1)).toBeGreaterThanOrEqual(32);
    for (const rate of rates) expect(dear.bestLength(rate)).toBeLessThanOrEqual(cheap.bestLength(rate));
    expect(dear.bestLength(0.1)).toBe(0);
  });

  it('keeps a run short enough for a keystroke that may come meanwhile', () => {
    const slow = new Speculation();
    slow.measured(0, 20);
    slow.measured(4, 32);
    // 3 ms a row: 60 ms are over at 13 rows, and 16 guesses would have paid more.
    expect(slow.bestLength(0.98)).toBe(8);
    const large = new Speculation();
    large.measured(0, 200);
    large.measured(4, 220);
    expect(large.bestLength(0.98)).toBe(32);
  });

  it('is long where a run costs by what it touches, not by its rows (experts)', () => {
    const experts = new Speculation();
    for (const [drafts, ms] of [
      [0, 10],
      [2, 24],
      [4, 34],
      [8, 44],
      [16, 50],
      [32, 54],
      [48, 56],
    ] as const)
      experts.measured(drafts, ms);
    expect(experts.bestLength(0.97)).toBeGreaterThanOrEqual(32);
    expect(experts.bestLength(0.5)).toBe(0);
  });
});
