import { setTimeout as wait } from 'node:timers/promises';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { slowPolls } from '../../../engine/backend/webgpu/device/polling.ts';

/** A stand-in for `globalThis` that counts the calls of the original. */
function slowed() {
  const original = Object.assign((callback: () => void) => setImmediate(callback), { calls: 0 });
  const target = {
    setImmediate: Object.assign(
      (callback: () => void) => {
        original.calls++;
        return original(callback);
      },
      { [promisify.custom]: async () => 'promised' },
    ),
  };
  slowPolls(target);
  return { target, original };
}

/** What a native addon's function looks like. */
const ofAddon = (run: () => void) =>
  Object.assign(
    // An arrow function would have no `prototype`.
    function addon(this: unknown) {
      run();
    },
    { toString: () => 'function () { [native code] }' },
  );

/** Polls until `ms` have passed, as Dawn's binding does. @returns the number of polls. */
function pollFor(target: { setImmediate: (callback: () => void) => unknown }, ms: number): Promise<number> {
  const end = performance.now() + ms;
  let polls = 0;
  return new Promise((resolve) => {
    const poll = ofAddon(() => {
      polls++;
      if (performance.now() < end) target.setImmediate(poll);
      else resolve(polls);
    });
    target.setImmediate(poll);
  });
}

test('a short wait is polled in every turn, a long one every millisecond after its start', async () => {
  const { target, original } = slowed();
  const polls = await pollFor(target, 60);
  const slow = polls - original.calls;
  expect(original.calls).toBeGreaterThan(0);
  // 50 ms are left; without slowing there would be thousands.
  expect(slow).toBeGreaterThan(0);
  expect(slow).toBeLessThanOrEqual(100);
  await wait(5);
  const before = original.calls;
  await pollFor(target, 1);
  expect(original.calls).toBeGreaterThan(before);
});

test('other callbacks get the original, with their arguments', async () => {
  const { target, original } = slowed();
  const polling = pollFor(target, 30);
  await wait(15);
  const before = original.calls;
  await new Promise<void>((resolve) => target.setImmediate(() => resolve()));
  await new Promise<void>((resolve) => target.setImmediate(resolve.bind(undefined)));
  expect(original.calls).toBe(before + 2);
  expect(await promisify(target.setImmediate)()).toBe('promised');
  await polling;
});

test('a poll that throws ends its wait', async () => {
  const queue: (() => void)[] = [];
  const target = { setImmediate: (callback: () => void) => queue.push(callback) };
  slowPolls(target);
  const failing = ofAddon(() => {
    throw new Error('lost');
  });
  target.setImmediate(failing);
  expect(() => queue[0]?.()).toThrow('lost');
  await wait(15);
  target.setImmediate(failing);
  expect(queue).toHaveLength(2);
});
