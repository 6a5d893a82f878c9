import { expect, it } from 'vitest';
import { changeFiles } from '../../fuzz/changedFiles.ts';
import { fillChats, fillDisk, fillSnapshots } from '../../fuzz/fullDisk.ts';

/** A slice of `npm run fuzz:files`. */
it('files that change during a start or in use lose no answer, or end it with one line', {
  timeout: 120_000,
}, async () => {
  const figures = await changeFiles(9);
  expect(figures.problems).toEqual([]);
  expect(figures.changes).toBeGreaterThan(10);
  expect(figures.same).toBeGreaterThan(figures.changes / 2);
});

/** A slice of `npm run fuzz:disk`. */
it('a disk that becomes full damages no file, and ends a load with one line', {
  timeout: 120_000,
}, async () => {
  const figures = await fillDisk(8);
  expect(figures.problems).toEqual([]);
  expect(figures.moments).toBeGreaterThan(2);
  expect(figures.refused).toBeGreaterThan(0);
});

it('a disk that becomes full at any write leaves no partial snapshot, and no answer fails', async () => {
  const figures = await fillSnapshots();
  expect(figures.problems).toEqual([]);
  expect(figures.refused).toBeGreaterThan(3);
});

it('a chat stays on screen while the disk is full, and is written completely once there is room', async () => {
  const figures = await fillChats();
  expect(figures.problems).toEqual([]);
  expect(figures.same).toBe(figures.moments / 2);
});
