import { describe, expect, it } from 'vitest';
import { GrantedThreads } from '../../../engine/backend/processor/threads.ts';

/** A machine that gives each pass at most `processors` processors; passes take 20 ms. */
function run(threads: GrantedThreads, processors: number, fromMs: number, untilMs: number): number[] {
  const taken: number[] = [];
  for (let now = fromMs; now < untilMs; now += 20) {
    const count = threads.next(now);
    taken.push(count);
    threads.observe({ wallMs: 20, processorMs: 20 * Math.min(count, processors) }, now + 20);
  }
  return taken;
}

describe('the threads of a pass', () => {
  it('are all threads while no other program uses the processors', () => {
    expect(new Set(run(new GrantedThreads(8), 8, 0, 10_000))).toEqual(new Set([8]));
  });

  it('are as many as the system grants, and all again once it grants all', () => {
    const threads = new GrantedThreads(8);
    const contended = run(threads, 6.3, 0, 20_000);
    expect(contended[0]).toBe(8);
    // A count just below the maximum is found after five passes, and the maximum is tried again five times in this time.
    expect(contended.filter((count) => count === 6).length).toBeGreaterThanOrEqual(contended.length - 6 * 5);
    const alone = run(threads, 8, 20_000, 40_000);
    expect(alone.slice(-500)).toEqual(new Array(500).fill(8));
  });

  it('retry with all after half a second, then at doubling intervals of up to eight seconds', () => {
    const threads = new GrantedThreads(2);
    const tries = run(threads, 0.4, 0, 60_000).flatMap((count, i) => (count === 2 ? [20 * i] : []));
    const intervals = tries.slice(1).map((at, i) => at - (tries[i] ?? 0));
    expect(intervals.slice(0, 5)).toEqual([520, 1020, 2020, 4020, 8020]);
    expect(Math.max(...intervals)).toBe(8020);
  });

  it('stay at the maximum if the system counts time in steps of 10 ms', () => {
    const threads = new GrantedThreads(2);
    let [now, countedMs, spentMs] = [0, 0, 0];
    for (let pass = 0; pass < 1000; pass++) {
      expect(threads.next(now)).toBe(2);
      now += 11.2;
      spentMs += 2 * 11.2;
      const before = countedMs;
      countedMs = Math.floor(spentMs / 10) * 10;
      threads.observe({ wallMs: 11.2, processorMs: countedMs - before }, now);
    }
  });

  it('stay two where 1.78 of them are counted, and become one beside a program that keeps a processor busy', () => {
    expect(new Set(run(new GrantedThreads(2), 1.78, 0, 10_000))).toEqual(new Set([2]));
    for (const count of [2, 4, 8]) {
      expect(run(new GrantedThreads(count), (count * count) / (count + 1), 0, 400).at(-1)).toBe(count - 1);
    }
  });

  it('stay one if there is only one, and ignore passes too short to measure', () => {
    expect(new Set(run(new GrantedThreads(1), 0.2, 0, 5_000))).toEqual(new Set([1]));
    const threads = new GrantedThreads(4);
    threads.observe({ wallMs: 2, processorMs: 0 }, 2);
    expect(threads.next(2)).toBe(4);
  });
});
