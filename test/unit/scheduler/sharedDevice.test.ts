/** Two schedulers, as of a chat model and a completion model, on one device. */
import { describe, expect, it } from 'vitest';
import { argmax } from '../../../engine/backend/sampler.ts';
import { PrefixCache } from '../../../engine/kv/prefixCache.ts';
import type { RequestClass } from '../../../engine/scheduler/job.ts';
import { Scheduler } from '../../../engine/scheduler/scheduler.ts';
import { SharedDevice } from '../../../engine/scheduler/sharing.ts';
import { FakeDecoder } from './fakeDecoder.ts';

const patienceMs = { keystroke: Number.POSITIVE_INFINITY, chat: 1000, summary: 5000, 'warm-up': 100_000 };

function setUp() {
  let clockMs = 0;
  let running = 0;
  /** Who ran, pass by pass. */
  const passes: string[] = [];
  const now = (): number => clockMs;
  const device = new SharedDevice({ patienceMs, now });
  const schedulerOf = (name: string): Scheduler => {
    const decoder = new FakeDecoder({
      vocabularySize: 50,
      contextTokens: 8192,
      maxTokensPerRun: 512,
      beforeRun: async () => {
        running++;
        expect(running).toBe(1);
        await new Promise((resolve) => setImmediate(resolve));
        running--;
        passes.push(name);
        clockMs += 50;
      },
    });
    const cache = new PrefixCache({ decoder, maxIdle: () => 2 });
    const yieldToEventLoop = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
    return new Scheduler({ decoder, cache, device, maxPendingPerClass: 64, patienceMs, now, yieldToEventLoop });
  };
  return { chat: schedulerOf('chat'), completion: schedulerOf('completion'), passes };
}

const request = (requestClass: RequestClass, promptTokens: number, maxTokens: number, onToken = () => {}) => ({
  requestClass,
  prompt: Array.from({ length: promptTokens }, (_, i) => i % 50),
  maxTokens,
  choose: argmax,
  deliver: () => {
    onToken();
    return 'continue' as const;
  },
});

describe('two schedulers on one device', () => {
  it('run one pass at a time, and both finish', async () => {
    const { chat, completion } = setUp();
    const outcomes = await Promise.all([
      chat.submit(request('chat', 300, 20)),
      completion.submit(request('keystroke', 300, 20)),
      chat.submit(request('summary', 300, 20)),
    ]);
    expect(outcomes.map(({ generatedTokens }) => generatedTokens)).toEqual([20, 20, 20]);
  });

  it('let a keystroke of one go before the chat of the other after one pass', async () => {
    const { chat, completion, passes } = setUp();
    let typed: Promise<unknown> | undefined;
    let passesBefore = 0;
    const onToken = (): void => {
      if (typed !== undefined) return;
      passesBefore = passes.length;
      typed = completion.submit(request('keystroke', 20, 5));
    };
    await chat.submit(request('chat', 20, 15, onToken));
    await typed;
    const after = passes.slice(passesBefore);
    const first = after.indexOf('completion');
    expect(first).toBeLessThanOrEqual(1);
    expect(after.slice(first, first + 5)).toEqual(Array.from({ length: 5 }, () => 'completion'));
  });

  it('let a chat continue under endless keystrokes, once its patience is over', async () => {
    const { chat, completion, passes } = setUp();
    await Promise.all([chat.submit(request('chat', 10, 3)), completion.submit(request('keystroke', 20, 200))]);
    const last = passes.lastIndexOf('chat');
    expect(passes.filter((name) => name === 'chat')).toHaveLength(3);
    expect(last).toBeLessThan(passes.lastIndexOf('completion'));
    // Its patience is 1,000 ms, and a pass takes 50 ms.
    expect(last).toBeGreaterThan(40);
  });

  it('shorten the prefill passes of one while somebody types into the other', async () => {
    const { chat, completion } = setUp();
    const decoder = chat.decoder;
    if (!(decoder instanceof FakeDecoder)) throw new Error('The scheduler has another decoder.');
    const long = Array.from({ length: 4000 }, (_, i) => i % 50);
    await completion.submit(request('keystroke', 20, 2));
    await chat.submit({ ...request('chat', 1, 1), prompt: long });
    // Nothing is measured yet. Alone, the first pass takes 128 tokens.
    expect(decoder.runs[0]?.tokens).toHaveLength(16);
    expect(Math.max(...decoder.runs.map(({ tokens }) => tokens.length))).toBe(512);
  });
});
