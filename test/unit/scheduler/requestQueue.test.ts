/** The queue alone under simulated loads: a virtual clock, no decoder, no timers. */
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { type RequestClass, requestClasses } from '../../../engine/scheduler/job.ts';
import { type QueueLimits, RequestQueue } from '../../../engine/scheduler/requestQueue.ts';
import { patient } from './setUp.ts';

/** What a request still has to do. */
class Simulated {
  readonly requestClass: RequestClass;
  readonly arrivedMs: number;
  readonly owner: object | undefined;
  admitted = false;
  waitingTokens: number;
  readonly draftTokens = 0;
  readonly samples = true;
  answerTokens: number;
  servedMs = 0;
  longestGapMs = 0;
  lastStepMs: number;

  constructor(
    requestClass: RequestClass,
    promptTokens: number,
    answerTokens: number,
    { nowMs, owner }: { readonly nowMs: number; readonly owner?: object | undefined },
  ) {
    this.requestClass = requestClass;
    this.owner = owner;
    this.waitingTokens = promptTokens;
    this.answerTokens = answerTokens;
    this.arrivedMs = nowMs;
    this.lastStepMs = nowMs;
  }
}

const limits: QueueLimits = { chunkTokens: 128, maxSequences: 1, maxPendingPerClass: 1000, patienceMs: patient };

/** A processor: a step takes 10 ms and 1.5 ms for each token beyond the first of each sequence. */
class Simulation {
  readonly queue: RequestQueue<Simulated>;
  readonly done: Simulated[] = [];
  nowMs = 0;
  busyMs = 0;

  constructor(options: Partial<QueueLimits> = {}) {
    this.queue = new RequestQueue({ ...limits, ...options });
  }

  add(requestClass: RequestClass, promptTokens: number, answerTokens: number, owner?: object): Simulated {
    const request = new Simulated(requestClass, promptTokens, answerTokens, { nowMs: this.nowMs, owner });
    this.queue.add(request, this.nowMs);
    return request;
  }

  /** @returns whether anything was left to do. */
  step(): boolean {
    const step = this.queue.next(this.nowMs);
    if (step?.kind === 'admit') {
      step.request.admitted = true;
      return true;
    }
    if (!step) return false;
    const tookMs = step.slices.reduce((ms, { tokens }) => ms + 1.5 * (tokens - 1), 10);
    const allTokens = step.slices.reduce((sum, { tokens }) => sum + tokens, 0);
    this.nowMs += tookMs;
    this.busyMs += tookMs;
    this.queue.measured(step.slices, tookMs);
    this.queue.charge(step.slices, tookMs, this.nowMs);
    for (const { request, tokens, logits } of step.slices) {
      request.longestGapMs = Math.max(request.longestGapMs, this.nowMs - request.lastStepMs);
      request.lastStepMs = this.nowMs;
      request.servedMs += (tookMs * tokens) / allTokens;
      request.waitingTokens -= tokens;
      if (logits !== 'last') continue;
      request.answerTokens--;
      request.waitingTokens = 1;
      if (request.answerTokens > 0) continue;
      this.queue.delete(request);
      this.done.push(request);
    }
    return true;
  }
}

const longestStepMs = 10 + 1.5 * 128;

describe('the queue', () => {
  it('expects another keystroke for two seconds after one, but not at once', () => {
    const simulation = new Simulation();
    const chat = simulation.add('chat', 1, 1);
    expect(simulation.queue.isTypingBefore(chat, 0)).toBe(false);
    const key = simulation.add('keystroke', 1, 1);
    expect([50, 100, 1900, 2100].map((ms) => simulation.queue.isTypingBefore(chat, ms))).toEqual([
      false,
      true,
      true,
      false,
    ]);
    expect(simulation.queue.isTypingBefore(key, 100)).toBe(false);
  });

  it('computes a prompt in short passes while somebody types, otherwise in long ones', () => {
    const simulation = new Simulation();
    simulation.add('chat', 4000, 1);
    const stepMs = () => {
      const before = simulation.busyMs;
      simulation.step();
      return simulation.busyMs - before;
    };
    stepMs();
    expect(stepMs()).toBe(10 + 1.5 * 127);
    simulation.add('keystroke', 1, 1);
    while (simulation.done.length === 0) simulation.step();
    const pressedUntilMs = simulation.nowMs + 1500;
    stepMs();
    while (simulation.nowMs < pressedUntilMs) expect(stepMs()).toBeLessThanOrEqual(110);
    simulation.nowMs += 2000;
    expect(stepMs()).toBe(10 + 1.5 * 127);
  });

  it('prefers keystroke over chat over summary over warm-up, whatever the order of arrival', () => {
    const simulation = new Simulation();
    for (const name of requestClasses.toReversed()) simulation.add(name, 300, 3);
    while (simulation.step());
    expect(simulation.done.map(({ requestClass }) => requestClass)).toEqual(requestClasses);
  });

  it('makes a keystroke wait for at most one step under any load', () => {
    const random = seededRandom(1);
    const simulation = new Simulation({ patienceMs: { ...patient, chat: 1000, summary: 5000 } });
    for (let i = 0; i < 30; i++) simulation.add(i % 2 === 0 ? 'chat' : 'summary', 2000, 200);
    const waits: number[] = [];
    for (let press = 0; press < 300; press++) {
      for (let steps = Math.floor(random() * 20); steps > 0; steps--) simulation.step();
      // A key does not wait for the end of a step to be pressed.
      const beganMs = simulation.nowMs;
      simulation.step();
      const pressedMs = beganMs + random() * (simulation.nowMs - beganMs);
      const keystroke = simulation.add('keystroke', 20, 5);
      while (simulation.queue.has(keystroke)) simulation.step();
      const ownMs = keystroke.servedMs;
      waits.push(simulation.nowMs - pressedMs - ownMs);
    }
    waits.sort((a, b) => a - b);
    const at = (share: number): string => (waits[Math.floor(share * (waits.length - 1))] ?? 0).toFixed(0);
    console.log(
      `a keystroke beside 30 chats and summaries waits ${at(0.5)} ms (median), ${at(0.95)} (p95), ${at(1)} (longest); the longest step takes ${longestStepMs} ms`,
    );
    // A class that was held up for its patience gets one step in between, which is rare.
    expect(waits[Math.floor(0.95 * waits.length)]).toBeLessThanOrEqual(longestStepMs);
    expect(waits.at(-1)).toBeLessThanOrEqual(2 * longestStepMs);
  });

  it("doesn't starve a chat under endless keystrokes", () => {
    const simulation = new Simulation({ patienceMs: { ...patient, chat: 1000, summary: 5000 } });
    const chat = simulation.add('chat', 500, 20);
    const summary = simulation.add('summary', 500, 20);
    while (simulation.queue.has(summary)) {
      if (![...simulation.queue].some(({ requestClass }) => requestClass === 'keystroke'))
        simulation.add('keystroke', 50, 10);
      simulation.step();
    }
    expect(simulation.done).toContain(chat);
    expect(chat.longestGapMs).toBeLessThan(1000 + 2 * longestStepMs);
    expect(summary.longestGapMs).toBeLessThan(5000 + 3 * longestStepMs);
  });

  it('gives requests of a class equal shares, within one step', () => {
    const simulation = new Simulation();
    const chats = [100, 4000, 700, 30].map((promptTokens) => simulation.add('chat', promptTokens, 10_000));
    for (let i = 0; i < 3000; i++) simulation.step();
    const served = chats.map(({ servedMs }) => servedMs);
    expect(Math.max(...served) - Math.min(...served)).toBeLessThanOrEqual(longestStepMs);
  });

  it("doesn't starve a request behind new ones", () => {
    const simulation = new Simulation();
    const old = simulation.add('chat', 6000, 100);
    for (let i = 0; i < 50; i++) simulation.step();
    while (simulation.queue.has(old)) {
      while (simulation.queue.size < 4) simulation.add('chat', 100, 5);
      simulation.step();
    }
    // An ideal processor that is shared by four takes four times as long as one that is not.
    expect(simulation.nowMs - old.arrivedMs).toBeLessThan(4 * old.servedMs + 50 * longestStepMs);
    expect(old.longestGapMs).toBeLessThan(20 * longestStepMs);
  });

  it.each([1, 2, 3, 4, 5])('loses no request under a random load, however long a pass takes (seed %i)', (seed) => {
    const random = seededRandom(seed);
    const pick = (count: number): number => Math.floor(random() * count);
    const simulation = new Simulation({
      maxSequences: 1 + pick(8),
      chunkTokens: 16 + pick(200),
      patienceMs: { keystroke: 1e9, chat: 1000, summary: 3000, 'warm-up': 20_000 },
    });
    const all: Simulated[] = [];
    const cancelled: Simulated[] = [];
    for (let i = 0; i < 1500; i++) {
      if (random() < 0.3) all.push(simulation.add(requestClasses[pick(4)] ?? 'chat', 1 + pick(600), 1 + pick(12)));
      if (random() < 0.03) {
        const victim = [...simulation.queue][pick(simulation.queue.size)];
        if (victim) {
          simulation.queue.delete(victim);
          cancelled.push(victim);
        }
      }
      // Load comes and goes.
      for (let steps = i % 300 < 150 ? 1 : 12; steps > 0; steps--) simulation.step();
    }
    while (simulation.step());
    expect(simulation.done.length + cancelled.length).toBe(all.length);
    expect(new Set([...simulation.done, ...cancelled]).size).toBe(all.length);
    expect(simulation.queue.size).toBe(0);
    for (const { answerTokens } of simulation.done) expect(answerTokens).toBe(0);
    // Never idle while something waits: the clock moves by work alone.
    expect(simulation.busyMs).toBeCloseTo(simulation.nowMs, 3);
  });

  it('refuses too many requests of one class, and still accepts other classes', () => {
    const simulation = new Simulation({ maxPendingPerClass: 2 });
    simulation.add('chat', 10, 1);
    simulation.add('chat', 10, 1);
    expect(() => simulation.add('chat', 10, 1)).toThrow(/already waiting/);
    simulation.add('keystroke', 10, 1);
    while (simulation.step());
    simulation.add('chat', 10, 1);
    expect(simulation.queue.size).toBe(1);
  });
});

describe('two windows', () => {
  const [one, other] = [{ window: 1 }, { window: 2 }];

  it('share the time of a class equally, however many requests each of them has', () => {
    const simulation = new Simulation();
    const many = Array.from({ length: 9 }, () => simulation.add('chat', 1, 1000, one));
    const single = simulation.add('chat', 1, 1000, other);
    for (let i = 0; i < 1000; i++) simulation.step();
    const ofMany = many.reduce((sum, { servedMs }) => sum + servedMs, 0);
    expect(single.servedMs / ofMany).toBeGreaterThan(0.97);
    expect(single.servedMs / ofMany).toBeLessThan(1.03);
    // Within a window too.
    const [most, least] = [Math.max, Math.min].map((of) => of(...many.map(({ servedMs }) => servedMs)));
    expect((most ?? 0) - (least ?? 0)).toBeLessThanOrEqual(2 * longestStepMs);
  });

  it('get all of it once the other is done', () => {
    const simulation = new Simulation();
    const short = simulation.add('chat', 1, 10, one);
    const long = simulation.add('chat', 1, 100, other);
    while (simulation.step());
    expect([short, long].map(({ servedMs }) => servedMs)).toEqual([100, 1000]);
    expect(simulation.nowMs).toBe(1100);
  });

  it('do not fill each other’s queue', () => {
    const simulation = new Simulation({ maxPendingPerClass: 2 });
    simulation.add('chat', 10, 1, one);
    simulation.add('chat', 10, 1, one);
    expect(() => simulation.add('chat', 10, 1, one)).toThrow(/already waiting/);
    simulation.add('chat', 10, 1, other);
  });

  it('wait for a keystroke of the other one', () => {
    const simulation = new Simulation();
    const chat = simulation.add('chat', 1, 100, one);
    for (let i = 0; i < 10; i++) simulation.step();
    const key = simulation.add('keystroke', 20, 3, other);
    const before = chat.servedMs;
    while (!simulation.done.includes(key)) simulation.step();
    expect(chat.servedMs).toBe(before);
  });
});

describe('insufficient memory', () => {
  it('is taken from the latest request of the worst class, never from the first in rank', () => {
    const { queue } = new Simulation();
    const add = (requestClass: RequestClass): Simulated => {
      const request = new Simulated(requestClass, 10, 10, { nowMs: 0 });
      queue.add(request, 0);
      request.admitted = true;
      return request;
    };
    const [keystroke, first, second, summary] = [add('keystroke'), add('chat'), add('chat'), add('summary')];
    expect(queue.victimFor(keystroke)).toBe(summary);
    summary.admitted = false;
    expect(queue.victimFor(first)).toBe(second);
    expect(queue.victimFor(second)).toBeUndefined();
    expect(queue.victimFor(summary)).toBeUndefined();
  });

  it('skips a blocked request until another one ends', () => {
    const simulation = new Simulation();
    const [first, second] = [simulation.add('chat', 10, 3), simulation.add('chat', 10, 3)];
    simulation.queue.block(second);
    while (simulation.queue.has(first)) simulation.step();
    expect(second.admitted).toBe(false);
    while (simulation.step());
    expect(simulation.done).toEqual([first, second]);
  });
});
