import { describe, expect, it } from 'vitest';
import { judge, makeMutant, seeds, type Verdict } from '../../fuzz/mutants.ts';

/** A slice of the campaign that `npm run fuzz:formats` runs in full. */
const campaign = 1;
const count = 5000;

describe('damaged model files', () => {
  it.each(seeds)('$format ($name) is accepted undamaged', ({ format, name, bytes }) => {
    expect(judge({ format, seed: name, bytes })).toBe('accepted');
  });

  it(`are refused by typed errors or are sound, each within a second of processor time (${count} mutants)`, () => {
    const verdicts: Record<Verdict, number> = { accepted: 0, 'invalid-input': 0, unsupported: 0 };
    for (let number = 0; number < count; number++) {
      const mutant = makeMutant(campaign, number);
      const started = process.cpuUsage();
      try {
        verdicts[judge(mutant)]++;
      } catch (error) {
        throw new Error(`mutant ${number} of campaign ${campaign} (${mutant.format})`, { cause: error });
      }
      const { user, system } = process.cpuUsage(started);
      expect((user + system) / 1000, `mutant ${number}`).toBeLessThan(1000);
    }
    // The damage is neither harmless nor so coarse that only the first check is met.
    expect(verdicts.accepted).toBeGreaterThan(count / 100);
    expect(verdicts['invalid-input']).toBeGreaterThan(count / 2);
    expect(verdicts.unsupported).toBeGreaterThan(0);
  });

  it('are the same in every run', () => {
    expect(makeMutant(7, 123)).toEqual(makeMutant(7, 123));
    expect(makeMutant(7, 123).bytes).not.toEqual(makeMutant(7, 124).bytes);
  });
});
