import { expect, it } from 'vitest';
import { changeFiles } from '../../fuzz/changedFiles.ts';

/** A slice of `npm run fuzz:files`. */
it('files that change underneath a start or a use cost no answer, or end in one line', {
  timeout: 120_000,
}, async () => {
  const figures = await changeFiles(9);
  expect(figures.problems).toEqual([]);
  expect(figures.changes).toBeGreaterThan(10);
  expect(figures.same).toBeGreaterThan(figures.changes / 2);
});
