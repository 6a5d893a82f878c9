import { describe, expect, it } from 'vitest';
import { ConfidenceMeter, isSureEnough } from '../../../engine/tasks/complete.ts';

/** Logits of a distribution over five tokens, of which the last ends a text. */
const logits = Float32Array.from([0.5, 0.25, 0.125, 0.0625, 0.0625], Math.log);
const endIds = new Set([4]);

describe('how sure a model is', () => {
  it('is the mean of the log-probabilities of its tokens', () => {
    const meter = new ConfidenceMeter(endIds, 0);
    expect(meter.logProbability).toBeUndefined();
    meter.sampled(logits, 0);
    meter.sampled(logits, 2);
    expect(meter.logProbability).toBeCloseTo((Math.log(0.5) + Math.log(0.125)) / 2, 5);
  });

  it('counts the token that a text was made to begin with', () => {
    const meter = new ConfidenceMeter(endIds, { id: 1, logProbability: Math.log(0.25) });
    meter.sampled(logits, 0);
    expect(meter.logProbability).toBeCloseTo((Math.log(0.25) + Math.log(0.5)) / 2, 5);
    expect(meter.otherFirst).toEqual([]);
  });

  it('leaves out tokens that may not come', () => {
    const meter = new ConfidenceMeter(endIds, 2);
    meter.sampled(Float32Array.from([Number.NEGATIVE_INFINITY, 1, Number.NEGATIVE_INFINITY]), 1);
    expect(meter.logProbability).toBe(0);
    expect(meter.otherFirst).toEqual([]);
  });

  it('remembers the likeliest other beginnings, none of them an end', () => {
    const meter = new ConfidenceMeter(endIds, 3);
    meter.sampled(logits, 1);
    expect(meter.otherFirst.map(({ id }) => id)).toEqual([0, 2, 3]);
    expect(meter.otherFirst[0]?.logProbability).toBeCloseTo(Math.log(0.5), 5);
  });

  it('decides what is shown: more to the eager, less to those who want quiet', () => {
    const shown = [-0.1, -0.4, -3].map((own) =>
      (['eager', 'balanced', 'quiet'] as const).filter((confidence) => isSureEnough(own, confidence)),
    );
    expect(shown).toEqual([['eager', 'balanced', 'quiet'], ['eager', 'balanced'], ['eager']]);
    expect(isSureEnough(undefined, 'quiet')).toBe(true);
  });
});
