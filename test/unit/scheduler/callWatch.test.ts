/** Time is counted in looks, one a second. */
import { describe, expect, it } from 'vitest';
import { argmax } from '../../../engine/backend/sampler.ts';
import { PrefixCache } from '../../../engine/kv/prefixCache.ts';
import { limits } from '../../../engine/limits.ts';
import { Scheduler } from '../../../engine/scheduler/scheduler.ts';
import { CallWatch, SharedDevice } from '../../../engine/scheduler/sharing.ts';
import { FakeDecoder } from './fakeDecoder.ts';
import { patient } from './setUp.ts';

/** @returns after how many seconds a call counts as hung, of `most` at most. */
function hungAfter(calls: CallWatch, most = 10_000): number | undefined {
  for (let seconds = 1; seconds <= most; seconds++) if (calls.look() !== undefined) return seconds;
  return undefined;
}

function pass(calls: CallWatch, decoder: object, tokens: number, seconds: number): void {
  const call = calls.begin({ decoder, tokens });
  expect(hungAfter(calls, seconds)).toBeUndefined();
  call.end();
}

describe('a call into native code counts as hung', () => {
  it('never once it has returned', () => {
    const calls = new CallWatch();
    pass(calls, {}, 1, 5);
    expect(hungAfter(calls)).toBeUndefined();
  });

  it('after a quarter of an hour if no earlier call was measured, counted from its last progress', () => {
    const calls = new CallWatch();
    const call = calls.begin();
    expect(hungAfter(calls, 900)).toBeUndefined();
    call.goesOn();
    expect(hungAfter(calls)).toBe(901);
  });

  it('after a minute, or thirty times the slowest pass before, as a pass of the same decoder', () => {
    const [calls, decoder] = [new CallWatch(), {}];
    pass(calls, decoder, 1, 0);
    const quick = calls.begin({ decoder, tokens: 1 });
    expect(hungAfter(calls)).toBe(61);
    quick.end();
    const [slower, slow] = [new CallWatch(), {}];
    pass(slower, slow, 128, 9);
    slower.begin({ decoder: slow, tokens: 16 });
    expect(hungAfter(slower)).toBe(301);
  });

  it('later with more tokens than any pass before, and as unknown for another decoder', () => {
    const [calls, decoder] = [new CallWatch(), {}];
    pass(calls, decoder, 1, 1);
    const prompt = calls.begin({ decoder, tokens: 256 });
    expect(hungAfter(calls, 30 * 2 * 256)).toBeUndefined();
    prompt.end();
    calls.begin({ decoder: {}, tokens: 1 });
    expect(hungAfter(calls)).toBe(901);
  });
});

it('a pass that does not return is seen while the scheduler waits for it, and passes that return are not', async () => {
  const device = new SharedDevice({ patienceMs: patient, now: () => 0 });
  let runs = 0;
  const beforeRun = (): Promise<void> | void => (++runs > 3 ? new Promise(() => {}) : undefined);
  const decoder = new FakeDecoder({ vocabularySize: 50, beforeRun });
  const scheduler = new Scheduler({
    decoder,
    device,
    cache: new PrefixCache({ decoder, maxIdle: () => 2 }),
    maxPendingPerClass: 64,
    patienceMs: patient,
    now: () => 0,
    yieldToEventLoop: () => new Promise((resolve) => setImmediate(resolve)),
  });
  const deliver = () => 'continue' as const;
  const request = { requestClass: 'chat' as const, choose: argmax, deliver, maxTokens: 3 };
  await scheduler.submit({ ...request, prompt: [1, 2] });
  expect(hungAfter(device.calls)).toBeUndefined();
  void scheduler.submit({ ...request, prompt: [7, 8, 9] });
  while (runs < 4) await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setImmediate(resolve));
  expect(hungAfter(device.calls)).toBeGreaterThan(limits.hang.passSeconds);
});
