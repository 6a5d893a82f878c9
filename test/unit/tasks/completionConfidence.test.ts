import { describe, expect, it } from 'vitest';
import { ConfidenceMeter, isSureEnough } from '../../../engine/tasks/complete.ts';

/** Logits of a distribution over five tokens, of which the last ends a text. */
const logits = Float32Array.from([0.5, 0.25, 0.125, 0.0625, 0.0625], Math.log);
const endIds = new Set([4]);

describe('the confidence of a completion', () => {
  it('is the mean of the log-probabilities of its tokens', () => {
    const meter = new ConfidenceMeter(endIds, 0);
    expect(meter.logProbability).toBeUndefined();
    meter.sampled(logits, 0);
    meter.sampled(logits, 2);
    expect(meter.logProbability).toBeCloseTo((Math.log(0.5) + Math.log(0.125)) / 2, 5);
  });

  it('counts a forced first token', () => {
    const meter = new ConfidenceMeter(endIds, { id: 1, logProbability: Math.log(0.25) });
    meter.sampled(logits, 0);
    expect(meter.logProbability).toBeCloseTo((Math.log(0.25) + Math.log(0.5)) / 2, 5);
    expect(meter.otherFirst).toEqual([]);
  });

  it('leaves out forbidden tokens', () => {
    const meter = new ConfidenceMeter(endIds, 2);
    meter.sampled(Float32Array.from([Number.NEGATIVE_INFINITY, 1, Number.NEGATIVE_INFINITY]), 1);
    expect(meter.logProbability).toBe(0);
    expect(meter.otherFirst).toEqual([]);
  });

  it('remembers the likeliest other first tokens, without end tokens', () => {
    const meter = new ConfidenceMeter(endIds, 3);
    meter.sampled(logits, 1);
    expect(meter.otherFirst.map(({ id }) => id)).toEqual([0, 2, 3]);
    expect(meter.otherFirst[0]?.logProbability).toBeCloseTo(Math.log(0.5), 5);
  });

  it('decides what is shown: more with eager, less with quiet', () => {
    const shown = [-0.1, -0.4, -3].map((own) =>
      (['eager', 'balanced', 'quiet'] as const).filter((confidence) => isSureEnough(own, { confidence })),
    );
    expect(shown).toEqual([['eager', 'balanced', 'quiet'], ['eager', 'balanced'], ['eager']]);
    expect(isSureEnough(undefined, { confidence: 'quiet' })).toBe(true);
  });

  it('asks for half the distance from certainty at strictness 1, for twice at -1', () => {
    const shown = [-0.2, -0.3, -0.9, -1.1].map((own) =>
      [1, 0, -1].filter((strictness) => isSureEnough(own, { confidence: 'balanced', strictness })),
    );
    expect(shown).toEqual([[1, 0, -1], [0, -1], [-1], []]);
    expect(isSureEnough(-9, { confidence: 'eager', strictness: 1 })).toBe(true);
  });
});
