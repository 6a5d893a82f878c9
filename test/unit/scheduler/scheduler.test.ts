import { describe, expect, it } from 'vitest';
import type { SequenceSlice, Tuner } from '../../../engine/backend/backend.ts';
import { argmax } from '../../../engine/backend/sampler.ts';
import { HearthError } from '../../../engine/errors.ts';
import { PrefixCache } from '../../../engine/kv/prefixCache.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';
import type { RequestClass, TokenRequest } from '../../../engine/scheduler/job.ts';
import { Scheduler } from '../../../engine/scheduler/scheduler.ts';
import { FakeDecoder, type FakeDecoderOptions, hashOf } from './fakeDecoder.ts';
import { patient, schedulerOf } from './setUp.ts';

const vocabularySize = 50;

function setUp(options: FakeDecoderOptions & { readonly maxPending?: number } = {}) {
  const decoder = new FakeDecoder({ vocabularySize, maxTokensPerRun: 8, ...options });
  const cache = new PrefixCache({ decoder, maxIdle: () => 2 });
  let clock = 0;
  const scheduler = new Scheduler({
    decoder,
    cache,
    maxPendingPerClass: options.maxPending ?? 64,
    patienceMs: patient,
    now: () => clock++,
    yieldToEventLoop: () => new Promise((resolve) => setImmediate(resolve)),
  });
  return { decoder, cache, scheduler };
}

interface Recorded extends TokenRequest {
  readonly received: number[];
}

function request(prompt: readonly number[], fields: Partial<TokenRequest> = {}): Recorded {
  const received: number[] = [];
  return {
    requestClass: 'chat',
    prompt,
    maxTokens: 5,
    choose: argmax,
    deliver: (token) => {
      received.push(token);
      return 'continue';
    },
    ...fields,
    received,
  };
}

/** What the fake decoder says when it has the whole sequence right. */
function expectedTokens(prompt: readonly number[], count: number): number[] {
  const tokens = [...prompt];
  for (let i = 0; i < count; i++) tokens.push(hashOf(tokens, vocabularySize));
  return tokens.slice(prompt.length);
}

const range = (count: number, from = 0): number[] => Array.from({ length: count }, (_, i) => (from + i) % 50);

describe('the scheduler', () => {
  it('computes the prompt in chunks, then one token a step', async () => {
    const { decoder, scheduler } = setUp();
    const chat = request(range(20));
    const outcome = await scheduler.submit(chat);
    expect(decoder.runs.map(({ tokens }) => tokens.length)).toEqual([8, 8, 4, 1, 1, 1, 1]);
    expect(chat.received).toEqual(expectedTokens(range(20), 5));
    expect(outcome).toMatchObject({ finish: 'length', generatedTokens: 5, cachedTokens: 0 });
  });

  it('reports times in order', async () => {
    const { scheduler } = setUp();
    const { submittedMs, firstTokenMs, endedMs } = await scheduler.submit(request(range(20)));
    expect(submittedMs).toBeLessThan(firstTokenMs);
    expect(firstTokenMs).toBeLessThan(endedMs);
  });

  it('stops in the step in which `deliver` asks for it', async () => {
    const { decoder, scheduler } = setUp();
    let count = 0;
    const outcome = await scheduler.submit(
      request(range(4), { maxTokens: 100, deliver: () => (++count === 3 ? 'stop' : 'continue') }),
    );
    expect(outcome).toMatchObject({ finish: 'stop', generatedTokens: 3 });
    expect(decoder.runs).toHaveLength(3);
  });

  it('ends when the context is full, and never exceeds it', async () => {
    const { scheduler } = setUp({ contextTokens: 10 });
    const chat = request(range(7), { maxTokens: 100 });
    const outcome = await scheduler.submit(chat);
    expect(outcome.finish).toBe('context');
    expect(chat.received).toEqual(expectedTokens(range(7), 4));
  });

  it('refuses a prompt longer than the context, with both numbers', async () => {
    const { scheduler } = setUp({ contextTokens: 10 });
    await expect(scheduler.submit(request(range(11)))).rejects.toThrow(/11 tokens.*holds 10/);
    await expect(scheduler.submit(request([]))).rejects.toMatchObject({ code: 'invalid-input' });
  });

  it('computes a second turn only from where it differs from the first', async () => {
    const { scheduler } = setUp();
    const first = request(range(20));
    await scheduler.submit(first);
    const prompt = [...range(20), ...first.received, 3, 4];
    const second = request(prompt);
    // The last sampled token was never run.
    expect(await scheduler.submit(second)).toMatchObject({ cachedTokens: 24 });
    expect(second.received).toEqual(expectedTokens(prompt, 5));
  });

  it('pre-empts a chat for a keystroke between tokens, and the chat continues correctly', async () => {
    const { scheduler } = setUp();
    const order: string[] = [];
    const keystroke = request(range(12, 30), {
      requestClass: 'keystroke',
      deliver: () => {
        order.push('keystroke');
        return 'continue';
      },
    });
    let pressed: Promise<unknown> | undefined;
    const received: number[] = [];
    await scheduler.submit(
      request(range(20), {
        deliver: (token) => {
          received.push(token);
          order.push('chat');
          if (received.length === 2) pressed = scheduler.submit(keystroke);
          return 'continue';
        },
      }),
    );
    await pressed;
    expect(order).toEqual([...Array(2).fill('chat'), ...Array(5).fill('keystroke'), ...Array(3).fill('chat')]);
    expect(received).toEqual(expectedTokens(range(20), 5));
  });

  it('pre-empts a long prompt for a keystroke between chunks', async () => {
    let pressed: Promise<unknown> | undefined;
    const keystroke = request(range(5, 40), { requestClass: 'keystroke', maxTokens: 1 });
    const { decoder, scheduler } = setUp({
      beforeRun: () => {
        pressed ??= scheduler.submit(keystroke);
      },
    });
    await scheduler.submit(request(range(24), { maxTokens: 1 }));
    await pressed;
    expect(decoder.runs.map(({ tokens }) => tokens.length)).toEqual([8, 5, 8, 8]);
  });

  it('answers in order of arrival within a class', async () => {
    const { scheduler } = setUp();
    const done: number[] = [];
    const all = [1, 2, 3].map((n) => scheduler.submit(request(range(4, n))).then(() => done.push(n)));
    await Promise.all(all);
    expect(done).toEqual([1, 2, 3]);
  });

  it('batches several requests in one pass if the decoder can', async () => {
    const { decoder, scheduler } = setUp({ maxSequencesPerRun: 3, maxTokensPerRun: 16 });
    const all = [request(range(4)), request(range(5, 9)), request(range(3, 30))];
    await Promise.all(all.map((each) => scheduler.submit(each)));
    for (const { prompt, received } of all) expect(received).toEqual(expectedTokens(prompt, 5));
    expect(decoder.runs.filter(({ tokens, sequences }) => tokens.length === 1 && sequences === 3)).toHaveLength(12);
  });

  it('continues a chat in the passes that prefill a keystroke', async () => {
    const { decoder, scheduler } = setUp({ maxSequencesPerRun: 2 });
    const keystroke = request(range(12, 30), { requestClass: 'keystroke', maxTokens: 2 });
    const received: number[] = [];
    let pressed: Promise<unknown> | undefined;
    await scheduler.submit(
      request(range(4), {
        deliver: (token) => {
          received.push(token);
          if (received.length === 2) pressed = scheduler.submit(keystroke);
          return 'continue';
        },
      }),
    );
    await pressed;
    expect(received).toEqual(expectedTokens(range(4), 5));
    expect(keystroke.received).toEqual(expectedTokens(range(12, 30), 2));
    expect(decoder.runs.filter(({ sequences }) => sequences === 2).length).toBeGreaterThan(2);
  });

  it('gives two chats the same share of the time, whatever the order of arrival', async () => {
    const { scheduler } = setUp();
    const order: string[] = [];
    const talking = (name: string, from: number) =>
      request(range(4, from), {
        maxTokens: 10,
        deliver: () => {
          order.push(name);
          return 'continue';
        },
      });
    await Promise.all([scheduler.submit(talking('a', 0)), scheduler.submit(talking('b', 20))]);
    for (let i = 2; i <= 20; i += 2) {
      const soFar = order.slice(0, i).filter((name) => name === 'a').length;
      expect(Math.abs(soFar - i / 2)).toBeLessThanOrEqual(1);
    }
  });

  it('fails a request at its deadline, and keeps the computed prompt in the cache', async () => {
    const { scheduler } = setUp();
    const slow = request(range(20), { maxTokens: 100, timeoutMs: 20 });
    await expect(scheduler.submit(slow)).rejects.toMatchObject({ code: 'timeout' });
    expect(slow.received.length).toBeGreaterThan(2);
    expect(slow.received.length).toBeLessThan(100);
    expect(await scheduler.submit(request(range(30)))).toMatchObject({ cachedTokens: 20 });
  });

  it('counts its work by class', async () => {
    const { scheduler } = setUp({ maxPending: 1 });
    await scheduler.submit(request(range(20)));
    await scheduler.submit(request(range(20), { requestClass: 'keystroke', maxTokens: 1 }));
    const controller = new AbortController();
    controller.abort();
    const stopped = scheduler.submit(request(range(4), { signal: controller.signal }));
    await expect(scheduler.submit(request(range(4)))).rejects.toMatchObject({ code: 'busy' });
    await stopped;
    const { classes, steps, slices } = scheduler.statistics();
    expect(classes.chat).toMatchObject({
      submitted: 2,
      finished: 1,
      cancelled: 1,
      refused: 1,
      failed: 0,
      computedTokens: 24,
      generatedTokens: 5,
    });
    expect(classes.keystroke).toMatchObject({ submitted: 1, cachedTokens: 19, computedTokens: 1, generatedTokens: 1 });
    expect({ steps, slices }).toEqual({ steps: 8, slices: 8 });
  });

  it('reports the time of decode passes, without prefill passes', async () => {
    let clock = 0;
    const decoder = new FakeDecoder({
      vocabularySize,
      // A token takes as many milliseconds as there are before it.
      beforeRun: ([slice]) => {
        clock += slice?.tokens.length === 1 ? slice.sequence.length : 1000;
      },
    });
    const scheduler = schedulerOf(decoder, () => clock);
    await scheduler.submit(request(range(20), { maxTokens: 151 }));
    const { classes } = scheduler.statistics();
    // From 20 on, and of the 150 the last 100.
    expect(classes.chat).toMatchObject({
      answerSteps: 150,
      recentStepMs: Array.from({ length: 100 }, (_, i) => 70 + i),
    });
    expect(classes.keystroke).toMatchObject({ answerSteps: 0, recentStepMs: [] });
  });

  it('continues other requests while one waits for its grammar', async () => {
    const { scheduler } = setUp();
    let compiled = (): void => {};
    const compiling = new Promise<void>((resolve) => {
      compiled = resolve;
    });
    let chosen = 0;
    const choose = (logits: Float32Array) => (chosen++ === 0 ? compiling.then(() => 7) : argmax(logits));
    const held = request([1, 2, 3], { choose });
    const answering = scheduler.submit(held);
    const other = request([4, 5], { maxTokens: 20 });
    expect((await scheduler.submit(other)).finish).toBe('length');
    expect([held.received, other.received.length]).toEqual([[], 20]);
    compiled();
    expect((await answering).finish).toBe('length');
    expect(held.received).toHaveLength(5);
    expect(held.received[0]).toBe(7);
    expect(scheduler.pending).toBe(0);
  });

  it('ends a cancelled or closed request that waits for its grammar as soon as its token is chosen', async () => {
    for (const end of ['cancel', 'close'] as const) {
      const { scheduler } = setUp();
      const controller = new AbortController();
      let compiled = (): void => {};
      const compiling = new Promise<number>((resolve) => {
        compiled = () => resolve(7);
      });
      const held = request([1, 2, 3], { choose: () => compiling, signal: controller.signal });
      const answering = scheduler.submit(held);
      // Its step is over, and it alone waits.
      await scheduler.submit(request([4, 5]));
      const closing = end === 'close' ? scheduler.close() : controller.abort();
      compiled();
      expect((await answering).finish).toBe('cancelled');
      await closing;
      expect(scheduler.pending).toBe(0);
    }
  });

  it('cancels before the next step and keeps what was computed', async () => {
    const { decoder, scheduler } = setUp();
    const controller = new AbortController();
    const received: number[] = [];
    const outcome = await scheduler.submit(
      request(range(20), {
        maxTokens: 100,
        signal: controller.signal,
        deliver: (token) => {
          received.push(token);
          if (received.length === 3) controller.abort();
          return 'continue';
        },
      }),
    );
    expect(outcome).toMatchObject({ finish: 'cancelled', generatedTokens: 3 });
    expect(received).toHaveLength(3);
    expect(await scheduler.submit(request([...range(20), ...received]))).toMatchObject({ cachedTokens: 22 });
    expect(decoder.live.size).toBe(1);
  });

  it('cancels between two chunks of the prompt', async () => {
    const controller = new AbortController();
    const { decoder, scheduler } = setUp({ beforeRun: () => controller.abort() });
    expect(await scheduler.submit(request(range(40), { signal: controller.signal }))).toMatchObject({
      finish: 'cancelled',
      generatedTokens: 0,
    });
    expect(decoder.runs).toHaveLength(1);
  });

  it('cancels a waiting request while another one runs', async () => {
    const { scheduler } = setUp();
    const controller = new AbortController();
    const order: string[] = [];
    const running = scheduler
      .submit(
        request(range(8), {
          maxTokens: 10,
          deliver: () => {
            controller.abort();
            return 'continue';
          },
        }),
      )
      .then(() => order.push('running'));
    const waiting = scheduler
      .submit(request(range(8), { signal: controller.signal }))
      .then(({ finish }) => order.push(`waiting ${finish}`));
    await Promise.all([running, waiting]);
    expect(order).toEqual(['waiting cancelled', 'running']);
  });

  it('refuses more requests of a class than may wait, with a typed error, and takes them again later', async () => {
    const { scheduler } = setUp({ maxPending: 2 });
    const accepted = [scheduler.submit(request(range(4))), scheduler.submit(request(range(4)))];
    await expect(scheduler.submit(request(range(4)))).rejects.toMatchObject({ code: 'busy' });
    const keystroke = request(range(4), { requestClass: 'keystroke' });
    await expect(scheduler.submit(keystroke)).resolves.toMatchObject({ finish: 'length' });
    await Promise.all(accepted);
    await expect(scheduler.submit(request(range(4)))).resolves.toMatchObject({ finish: 'length' });
  });

  it.each([1, 4])(
    'ends a request whose run fails alone, and drops its sequence (runs of up to %i)',
    async (maxSequencesPerRun) => {
      const broken = (batch: readonly SequenceSlice[]): void => {
        if (batch.some(({ tokens }) => tokens.includes(49)))
          throw new HearthError('out-of-memory', 'No memory for the cache.');
      };
      const { decoder, scheduler } = setUp({ beforeRun: broken, maxSequencesPerRun });
      const good = scheduler.submit(request(range(4)));
      const bad = scheduler.submit(request([1, 49]));
      const next = request(range(6));
      await expect(bad).rejects.toMatchObject({ code: 'out-of-memory' });
      await expect(good).resolves.toMatchObject({ finish: 'length' });
      await expect(scheduler.submit(next)).resolves.toMatchObject({ finish: 'length' });
      expect(next.received).toEqual(expectedTokens(range(6), 5));
      for (const sequence of decoder.live) expect(sequence.tokens).not.toContain(49);
    },
  );

  it('ends a request whose consumer throws alone', async () => {
    const { scheduler } = setUp();
    const bad = scheduler.submit(
      request(range(4), {
        deliver: () => {
          throw new Error('consumer');
        },
      }),
    );
    await expect(bad).rejects.toThrow('consumer');
    await expect(scheduler.submit(request(range(4)))).resolves.toMatchObject({ finish: 'length' });
  });

  it('computes a warm-up without sampling, so that the next request finds it cached', async () => {
    const { scheduler } = setUp();
    const choose = (): number => {
      throw new Error('sampled');
    };
    const warmUp = request(range(30), { requestClass: 'warm-up', maxTokens: 0, choose });
    expect(await scheduler.submit(warmUp)).toMatchObject({ generatedTokens: 0 });
    expect(await scheduler.submit(request(range(40)))).toMatchObject({ cachedTokens: 30 });
  });

  it('cancels all requests when it is closed, and refuses new ones', async () => {
    const { scheduler } = setUp();
    const pending = [scheduler.submit(request(range(20))), scheduler.submit(request(range(20)))];
    await scheduler.close();
    for (const outcome of await Promise.all(pending)) expect(outcome.finish).toBe('cancelled');
    expect(scheduler.pending).toBe(0);
    await expect(scheduler.submit(request(range(4)))).rejects.toMatchObject({ code: 'unavailable' });
  });

  it.each([1, 5])(
    'loses no request and mixes up no tokens under a random load (runs of up to %i)',
    async (maxSequencesPerRun) => {
      const random = seededRandom(3);
      const pick = (count: number): number => Math.floor(random() * count);
      const failing = (batch: readonly SequenceSlice[]): void => {
        if (batch.some(({ tokens }) => tokens.at(-1) === 48)) throw new Error('broken request');
      };
      const { decoder, cache, scheduler } = setUp({ beforeRun: failing, maxPending: 1000, maxSequencesPerRun });
      const classes: RequestClass[] = ['keystroke', 'chat', 'summary', 'warm-up'];
      const results = { done: 0, cancelled: 0, failed: 0 };
      const conversations = Array.from({ length: 6 }, (_, n) => range(20 + 5 * n, 7 * n));
      const one = async (): Promise<void> => {
        const prompt = (conversations[pick(6)] ?? []).slice(0, 18 + pick(30)).map((token) => token % 47);
        if (random() < 0.05) prompt.push(48);
        const controller = new AbortController();
        const requestClass = classes[pick(4)] ?? 'chat';
        const own = request(prompt, { requestClass, maxTokens: 1 + pick(8), signal: controller.signal });
        const outcome = scheduler.submit(own);
        if (random() < 0.2) {
          for (let turns = pick(20); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve));
          controller.abort();
        }
        try {
          const { finish } = await outcome;
          expect(own.received).toEqual(expectedTokens(prompt, own.received.length));
          results[finish === 'cancelled' ? 'cancelled' : 'done']++;
        } catch (error) {
          expect(String(error)).toContain('broken request');
          results.failed++;
        }
      };
      for (let burst = 0; burst < 40; burst++) await Promise.all(Array.from({ length: 15 }, one));
      expect(results.done + results.cancelled + results.failed).toBe(600);
      expect(results.cancelled).toBeGreaterThan(20);
      expect(results.failed).toBeGreaterThan(10);
      expect(scheduler.pending).toBe(0);
      expect(decoder.live.size).toBeLessThanOrEqual(8);
      cache.clear();
      expect(decoder.live.size).toBe(0);
    },
  );

  it.each([
    { blocks: 12, maxSequencesPerRun: 1 },
    { blocks: 12, maxSequencesPerRun: 4 },
    { blocks: 20, maxSequencesPerRun: 8 },
  ])(
    'shares $blocks blocks among more requests than fit, and every block is released (runs of up to $maxSequencesPerRun)',
    async (options) => {
      const random = seededRandom(options.blocks + options.maxSequencesPerRun);
      const pick = (count: number): number => Math.floor(random() * count);
      const { decoder, cache, scheduler } = setUp({ ...options, contextTokens: 256 });
      const classes: RequestClass[] = ['keystroke', 'chat', 'summary', 'warm-up'];
      const all = Array.from({ length: 150 }, () => {
        const prompt = range(20 + pick(180), pick(50));
        return request(prompt, { requestClass: classes[pick(4)] ?? 'chat', maxTokens: pick(30) });
      });
      for (let first = 0; first < all.length; first += 25) {
        const outcomes = all.slice(first, first + 25).map((each) => scheduler.submit(each));
        for (const { finish } of await Promise.all(outcomes)) expect(finish).toMatch(/length|context/);
        const held = new Set([...decoder.live].flatMap(({ table }) => table.blocks));
        expect(decoder.pool.usedBlocks).toBe(held.size);
        expect(decoder.live.size).toBe(cache.idle.size);
      }
      for (const { prompt, received } of all) expect(received).toEqual(expectedTokens(prompt, received.length));
      expect(scheduler.statistics().suspensions).toBeGreaterThan(0);
      cache.clear();
      expect(decoder.pool.freeBlocks).toBe(options.blocks);
    },
  );

  it('takes the memory of a summary for a keystroke, and computes the summary to its end afterwards', async () => {
    // 256 tokens in all.
    const { scheduler } = setUp({ blocks: 8 });
    const keystroke = request(range(200, 7), { requestClass: 'keystroke' });
    const received: number[] = [];
    let pressed: Promise<unknown> | undefined;
    await scheduler.submit(
      request(range(150), {
        requestClass: 'summary',
        maxTokens: 20,
        deliver: (token) => {
          received.push(token);
          if (received.length === 5) pressed = scheduler.submit(keystroke);
          return 'continue';
        },
      }),
    );
    await pressed;
    expect(keystroke.received).toEqual(expectedTokens(range(200, 7), 5));
    expect(received).toEqual(expectedTokens(range(150), 20));
    expect(scheduler.statistics().suspensions).toBe(1);
  });

  it('lets the earlier of two chats that do not fit together finish first', async () => {
    const { scheduler } = setUp({ blocks: 8 });
    const done: string[] = [];
    const [first, second] = [request(range(120), { maxTokens: 60 }), request(range(120, 9), { maxTokens: 60 })];
    await Promise.all([
      scheduler.submit(first).then(() => done.push('first')),
      scheduler.submit(second).then(() => done.push('second')),
    ]);
    expect(done).toEqual(['first', 'second']);
    expect(second.received).toEqual(expectedTokens(range(120, 9), 60));
  });
});

describe('prompts on a device that takes the next pass before the last is computed', () => {
  /** What was submitted, run and computed, in order; a pass is computed when it is let go, or at once. */
  function pipelined(options: { readonly atOnce?: boolean; readonly beforeRun?: () => void } = {}) {
    const log: string[] = [];
    const waiting: (() => void)[] = [];
    const set = setUp({
      beforeRun: ([slice]) => {
        options.beforeRun?.();
        log.push(`${slice?.logits === 'none' ? 'submit' : 'run'} ${slice?.sequence.length}`);
      },
      afterSubmit: async ([slice]) => {
        const end = slice?.sequence.length;
        if (!options.atOnce) await new Promise<void>((resolve) => waiting.push(resolve));
        log.push(`computed ${end}`);
      },
    });
    const settle = async (): Promise<void> => {
      for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
    };
    return { ...set, log, settle, compute: () => waiting.shift()?.() };
  }

  it('submit a chunk before the last is waited for, and never a third', async () => {
    const { scheduler, log, settle, compute } = pipelined();
    const chat = request(range(30));
    const outcome = scheduler.submit(chat);
    await settle();
    expect(log).toEqual(['submit 0', 'submit 8']);
    compute();
    await settle();
    expect(log).toEqual(['submit 0', 'submit 8', 'computed 8', 'submit 16']);
    compute();
    await settle();
    // The last chunk, which asks for logits, is submitted before the third is waited for, too.
    expect(log.slice(4)).toEqual(['computed 16', 'run 24']);
    compute();
    await outcome;
    expect(chat.received).toEqual(expectedTokens(range(30), 5));
  });

  it('submit nothing more after a cancellation, and keep what was submitted', async () => {
    const { scheduler, log, settle, compute } = pipelined();
    const abort = new AbortController();
    const outcome = scheduler.submit(request(range(40), { signal: abort.signal }));
    await settle();
    abort.abort();
    compute();
    await settle();
    expect((await outcome).finish).toBe('cancelled');
    compute();
    await settle();
    expect(log).toEqual(['submit 0', 'submit 8', 'computed 8', 'computed 16']);
    const again = request(range(20));
    const second = scheduler.submit(again);
    await settle();
    expect((await second).cachedTokens).toBe(16);
    expect(again.received).toEqual(expectedTokens(range(20), 5));
  });

  it('let a keystroke go next', async () => {
    const { scheduler, log, settle, compute } = pipelined();
    const chat = request(range(40));
    const outcome = scheduler.submit(chat);
    await settle();
    const key = request([7, 7, 7], { requestClass: 'keystroke', maxTokens: 1 });
    const typed = scheduler.submit(key);
    compute();
    await settle();
    expect(log).toEqual(['submit 0', 'submit 8', 'computed 8', 'run 0']);
    compute();
    await typed;
    expect(key.received).toEqual(expectedTokens([7, 7, 7], 1));
    for (let i = 0; i < 5; i++) {
      await settle();
      compute();
    }
    await outcome;
    expect(chat.received).toEqual(expectedTokens(range(40), 5));
  });

  it('end a warm-up only when it is computed', async () => {
    const { scheduler, log } = pipelined({ atOnce: true });
    await scheduler.submit(request(range(20), { requestClass: 'warm-up', maxTokens: 0 }));
    expect(log).toEqual(['submit 0', 'computed 8', 'submit 8', 'computed 16', 'submit 16']);
  });

  it('are computed before the scheduler closes', async () => {
    const { scheduler, log, settle, compute } = pipelined();
    const outcome = scheduler.submit(request(range(40)));
    await settle();
    const closed = scheduler.close();
    for (let i = 0; i < 3; i++) {
      compute();
      await settle();
    }
    await closed;
    expect((await outcome).finish).toBe('cancelled');
    expect(log).toEqual(['submit 0', 'submit 8', 'computed 8', 'computed 16']);
  });
});

describe('tuning while idle', () => {
  /** A tuner of `count` steps, each of which is compiled when it is let go; `log` has steps and passes. */
  function tuned(count: number, isDue = true) {
    const log: string[] = [];
    const compiling: (() => void)[] = [];
    let left = count;
    const tuner: Tuner = {
      isDue,
      report: undefined,
      ready: async () => {
        if (left === 0) return false;
        await new Promise<void>((resolve) => compiling.push(resolve));
        return true;
      },
      step: async () => {
        left--;
        log.push('step');
        await settled();
        log.push('stepped');
      },
    };
    const decoder = new FakeDecoder({
      vocabularySize,
      maxTokensPerRun: 8,
      tuner,
      beforeRun: () => void log.push('pass'),
    });
    const scheduler = new Scheduler({
      decoder,
      cache: new PrefixCache({ decoder, maxIdle: () => 2 }),
      maxPendingPerClass: 64,
      patienceMs: patient,
      now: () => 0,
      yieldToEventLoop: () => new Promise((resolve) => setImmediate(resolve)),
      tunesWhileIdle: true,
    });
    return { scheduler, log, compile: () => compiling.shift()?.() };
  }
  const settled = async (): Promise<void> => {
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
  };

  it('takes its steps without any request, and ends', async () => {
    const { scheduler, log, compile } = tuned(3);
    for (let i = 0; i < 6; i++) {
      compile();
      await settled();
      await settled();
    }
    expect(log.filter((entry) => entry === 'step')).toHaveLength(3);
    await scheduler.close();
  });

  it('lets a request go next: it waits only for the tuning step in progress', async () => {
    const { scheduler, log, compile } = tuned(3);
    compile();
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(log).toEqual(['step']);
    const chat = request(range(20), { maxTokens: 2 });
    const outcome = scheduler.submit(chat);
    // The next step is compiled meanwhile, and waits.
    for (let i = 0; i < 30; i++) {
      compile();
      await new Promise((resolve) => setImmediate(resolve));
    }
    await outcome;
    expect(log.slice(0, 6)).toEqual(['step', 'stepped', 'pass', 'pass', 'pass', 'pass']);
    expect(chat.received).toEqual(expectedTokens(range(20), 2));
    // Its second step waits for a compiler that never answers.
    const again = request(range(9), { maxTokens: 1 });
    await scheduler.submit(again);
    expect(again.received).toEqual(expectedTokens(range(9), 1));
    await scheduler.close();
  });

  it('does not happen on a device that was tuned before', async () => {
    const { scheduler, log, compile } = tuned(3, false);
    compile();
    await settled();
    expect(log).toEqual([]);
    await scheduler.close();
  });
});
