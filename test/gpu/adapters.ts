/** The adapter under the tests, which scripts/on-adapter.ts chose, and how much of them is run. */
import { describe } from 'vitest';

export const lavapipe = process.env['HEARTH_TEST_ADAPTER'] === 'lavapipe';

/** Pattern of the golden models to test, or `all` (`npm run proof:gpu`); undefined for the part that `npm test` has time for. */
export const askedGoldens = process.env['HEARTH_TEST_GOLDENS'];

/**
 * Tests that `npm test` runs on lavapipe alone, where they take a tenth of the time: their kernels are those of the golden models, which SwiftShader
 * runs in every family.
 */
export async function onLavapipe(tests: () => void | Promise<void>): Promise<void> {
  const title = 'SwiftShader (skipped: it takes minutes here and runs on lavapipe; npm run proof:gpu runs it on both)';
  if (lavapipe || askedGoldens !== undefined) await tests();
  else describe.skip(title, tests);
}
