import { describe, expect, it } from 'vitest';
import { operations } from '../proof/complexity.ts';

/** A slice of `npm run proof:complexity`, which measures how their work grows. */
describe('operations on plain and on hostile input', () => {
  it.each(operations)('give a result at ten times the usual input: $name', { timeout: 30_000 }, async ({ run }) => {
    await expect(Promise.resolve(run(10))).resolves.not.toThrow();
  });
});
