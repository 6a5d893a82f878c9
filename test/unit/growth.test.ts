import { describe, expect, it } from 'vitest';
import { growthOf, isSteep, operations } from '../proof/complexity.ts';
import './temporaryFolder.ts';

/** Operations that once grew faster, or whose input nobody bounds. */
const measured = new Set([
  'chat, turns',
  'completion prompt, one line',
  'markdown, paragraphs',
  'markdown, stars',
  'citations, slashes',
  'placement, a changed line',
  'next edit, one line',
  'journal, pieces',
]);

/** A slice of `npm run proof:complexity`, which measures how their work grows. */
describe('operations on plain and on hostile input', () => {
  it.each(operations)('give a result at ten times the usual input: $name', { timeout: 30_000 }, async ({ run }) => {
    await expect(Promise.resolve(run(10))).resolves.not.toThrow();
  });

  it.each(operations.filter(({ name }) => measured.has(name)))(
    'take no longer than n log n at a hundred times: $name',
    { timeout: 60_000 },
    async (operation) => {
      const first = await growthOf(operation);
      // Garbage collection beside a busy machine may look like growth, once.
      const isGrowth = isSteep(first) && isSteep(await growthOf(operation));
      expect(isGrowth, first.ms.join(', ')).toBe(false);
    },
  );
});
