import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { hostileModel, judgeHostile, readSeeds } from '../../fuzz/loadPath.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

/** A slice of the campaign that `npm run fuzz:load` runs in full. */
const campaign = 2;
const count = 60;

describe('hostile models', () => {
  it(`are answered or refused in one line by inspect and generate (${count} of 10,000)`, {
    timeout: 120_000,
  }, async () => {
    process.env['HEARTH_HOME'] = join(temporaryFolder(), 'store');
    const [seeds, folder] = [await readSeeds(), join(temporaryFolder(), 'model')];
    const verdicts: string[] = [];
    for (let number = 0; number < count; number++) {
      const hostile = hostileModel(seeds, campaign, number);
      try {
        verdicts.push(...Object.values(await judgeHostile(hostile, folder, number)));
      } catch (error) {
        throw new Error(`mutant ${number} of campaign ${campaign} (${hostile.what})`, { cause: error });
      }
    }
    // The damage is neither harmless nor so coarse that only the first check is met.
    for (const verdict of ['answered', 'refused']) {
      expect(verdicts.filter((each) => each === verdict).length, verdict).toBeGreaterThan(count / 5);
    }
  });

  it('are accepted by both when they are undamaged', { timeout: 60_000 }, async () => {
    for (const [number, files] of (await readSeeds()).entries()) {
      const judged = await judgeHostile({ what: 'undamaged', files }, join(temporaryFolder(), 'model'), number);
      expect(judged).toEqual({ inspect: 'answered', generate: 'answered' });
    }
  });
});
