import { describe, expect, it } from 'vitest';
import {
  argmax,
  candidatesOf,
  emptyHistory,
  greedy,
  penalise,
  type SamplerSettings,
  sample,
  type TokenHistory,
} from '../../../engine/backend/sampler.ts';
import { HearthError } from '../../../engine/errors.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';

const plain: SamplerSettings = { ...greedy, temperature: 1 };
/** Logits whose softmax is `probabilities`. */
const logitsOf = (...probabilities: number[]): Float32Array => Float32Array.from(probabilities, Math.log);

/** Token to probability, from the candidates' weights. */
function probabilities(logits: Float32Array, settings: SamplerSettings, history = emptyHistory): Map<number, number> {
  const { ids, weights } = candidatesOf(logits, settings, history);
  const sum = weights.reduce((a, b) => a + b, 0);
  return new Map([...ids].map((id, i) => [id, (weights[i] ?? 0) / sum]));
}

function expectDistribution(actual: Map<number, number>, expected: Record<number, number>): void {
  expect([...actual.keys()].sort((a, b) => a - b)).toEqual(Object.keys(expected).map(Number));
  for (const [id, probability] of Object.entries(expected)) {
    expect(actual.get(Number(id))).toBeCloseTo(probability, 6);
  }
}

describe('the sampled distribution', () => {
  const logits = logitsOf(0.1, 0.5, 0.15, 0.25);

  it('is the softmax when nothing is set', () => {
    expectDistribution(probabilities(logits, plain), { 0: 0.1, 1: 0.5, 2: 0.15, 3: 0.25 });
  });

  it('is flattened and sharpened by temperature', () => {
    // By hand: p^(1/2) is .316228, .707107, .387298, .5, sum 1.910633; p^2 is .01, .25, .0225, .0625, sum .345.
    expectDistribution(probabilities(logits, { ...plain, temperature: 2 }), {
      0: 0.316228 / 1.910633,
      1: Math.SQRT1_2 / 1.910633,
      2: 0.387298 / 1.910633,
      3: 0.5 / 1.910633,
    });
    expectDistribution(probabilities(logits, { ...plain, temperature: 0.5 }), {
      0: 0.01 / 0.345,
      1: 0.25 / 0.345,
      2: 0.0225 / 0.345,
      3: 0.0625 / 0.345,
    });
  });

  it('keeps the k most probable tokens', () => {
    expectDistribution(probabilities(logits, { ...plain, topK: 2 }), { 1: 2 / 3, 3: 1 / 3 });
    expectDistribution(probabilities(logits, { ...plain, topK: 99 }), { 0: 0.1, 1: 0.5, 2: 0.15, 3: 0.25 });
  });

  it('keeps the fewest tokens whose mass reaches p', () => {
    expectDistribution(probabilities(logits, { ...plain, topP: 0.76 }), { 1: 0.5 / 0.9, 2: 0.15 / 0.9, 3: 0.25 / 0.9 });
    expectDistribution(probabilities(logits, { ...plain, topP: 0.74 }), { 1: 2 / 3, 3: 1 / 3 });
    expectDistribution(probabilities(logits, { ...plain, topP: 0.3 }), { 1: 1 });
    expectDistribution(probabilities(logits, { ...plain, topP: 0 }), { 1: 1 });
  });

  it('drops what is less probable than min-p of the best', () => {
    expectDistribution(probabilities(logits, { ...plain, minP: 0.4 }), { 1: 2 / 3, 3: 1 / 3 });
  });

  it('applies temperature before top-p, as transformers does', () => {
    // At temperature 2 the best two have mass (.707107 + .5) / 1.910633 = .632, so .7 takes the third as well;
    // with the temperature last (llama.cpp) .7 would have taken two.
    expect([...probabilities(logits, { ...plain, temperature: 2, topP: 0.7 }).keys()].sort()).toEqual([1, 2, 3]);
  });

  it('measures top-p within top-k', () => {
    // Within the best two, .5 / .75 = .667 reaches .6 alone.
    expectDistribution(probabilities(logits, { ...plain, topK: 2, topP: 0.6 }), { 1: 1 });
  });

  it('measures top-p before min-p removes anything', () => {
    // Top-p .76 keeps three; min-p .4 then leaves two.
    expectDistribution(probabilities(logits, { ...plain, topP: 0.76, minP: 0.4 }), { 1: 2 / 3, 3: 1 / 3 });
  });

  it('prefers the lower id among equals', () => {
    const equal = logitsOf(0.25, 0.25, 0.25, 0.25);
    expect([...probabilities(equal, { ...plain, topK: 2 }).keys()].sort()).toEqual([0, 1]);
    expect([...probabilities(equal, { ...plain, topP: 0.5 }).keys()].sort()).toEqual([0, 1]);
    expect(argmax(equal)).toBe(0);
  });

  it('survives logits of any size without overflow', () => {
    const huge = Float32Array.from([3e38, 3e38, -3e38]);
    expectDistribution(probabilities(huge, plain), { 0: 0.5, 1: 0.5 });
    expectDistribution(probabilities(Float32Array.from([1000, 999]), plain), { 0: 0.7310586, 1: 0.2689414 });
  });

  it('never samples a masked token', () => {
    const masked = Float32Array.from([Number.NEGATIVE_INFINITY, 0, Number.NEGATIVE_INFINITY]);
    for (const topK of [0, 2, 3]) expect(sample(masked, { ...plain, topK }, emptyHistory, () => 0.999999999)).toBe(1);
  });
});

describe('penalties', () => {
  const history: TokenHistory = { sequence: new Set([0, 1, 2]), generated: new Set([2]) };
  const logits = Float32Array.from([2, -1, 3, 0.5]);

  it('divide positive and multiply negative logits of every token seen', () => {
    expect([...penalise(logits, { ...greedy, repetitionPenalty: 2 }, history)]).toEqual([1, -2, 1.5, 0.5]);
  });

  it('subtract the presence penalty once from what was generated', () => {
    expect([...penalise(logits, { ...greedy, presencePenalty: 1.5 }, history)]).toEqual([2, -1, 1.5, 0.5]);
  });

  it('add the bias first and ignore ids outside the vocabulary', () => {
    const logitBias = new Map([
      [1, 5],
      [99, 100],
    ]);
    expect([...penalise(logits, { ...greedy, logitBias, repetitionPenalty: 2 }, history)]).toEqual([1, 2, 1.5, 0.5]);
  });

  it('leave the caller’s logits alone', () => {
    penalise(logits, { ...greedy, repetitionPenalty: 2, presencePenalty: 1, logitBias: new Map([[0, 1]]) }, history);
    expect([...logits]).toEqual([2, -1, 3, 0.5]);
  });

  it('change greedy sampling', () => {
    expect(sample(logits, greedy, history, Math.random)).toBe(2);
    expect(sample(logits, { ...greedy, presencePenalty: 2 }, history, Math.random)).toBe(0);
    expect(sample(logits, { ...greedy, logitBias: new Map([[3, 100]]) }, history, Math.random)).toBe(3);
  });
});

describe('sampling', () => {
  it('is greedy at temperature 0 and asks for no random number', () => {
    const never = (): number => {
      throw new Error('asked for a random number');
    };
    expect(sample(logitsOf(0.2, 0.5, 0.3), greedy, emptyHistory, never)).toBe(1);
  });

  it('follows the distribution: chi-square over 20,000 samples for each of five seeds', () => {
    const logits = logitsOf(0.4, 0.3, 0.15, 0.1, 0.05);
    const settings = { ...plain, topP: 0.93 };
    // Top-p keeps four tokens of mass .95.
    const expected = [0.4, 0.3, 0.15, 0.1].map((p) => (20_000 * p) / 0.95);
    for (const seed of [1, 2, 3, 4, 5]) {
      const random = seededRandom(seed);
      const counts = [0, 0, 0, 0, 0];
      for (let i = 0; i < 20_000; i++) {
        const token = sample(logits, settings, emptyHistory, random);
        counts[token] = (counts[token] ?? 0) + 1;
      }
      expect(counts[4]).toBe(0);
      const chiSquare = expected.reduce((sum, e, i) => sum + ((counts[i] ?? 0) - e) ** 2 / e, 0);
      // 16.27 is the 0.999 quantile for three degrees of freedom.
      expect(chiSquare).toBeLessThan(16.27);
    }
  });

  it('throws on logits that are NaN or infinite', () => {
    expect(() => sample(Float32Array.from([1, Number.NaN]), plain, emptyHistory, Math.random)).toThrow(HearthError);
    expect(() => argmax(Float32Array.from([Number.POSITIVE_INFINITY, 1]))).toThrow('results are not finite numbers');
    // A mask that allows nothing is a fault of the grammar, not of the model.
    expect(() => argmax(Float32Array.from([Number.NEGATIVE_INFINITY]))).toThrow('None of 1 tokens is allowed.');
  });
});

describe('a vocabulary of 200,000', () => {
  const random = seededRandom(11);
  const logits = Float32Array.from({ length: 200_000 }, () => 6 * (random() + random() + random() - 1.5));

  it('gives the same candidates as a full sort', () => {
    const weights = [...logits].map((logit, id) => ({ id, weight: Math.exp(logit / 0.8) }));
    weights.sort((a, b) => b.weight - a.weight || a.id - b.id);
    const sum = weights.reduce((total, { weight }) => total + weight, 0);
    for (const topP of [0.01, 0.5, 0.95, 0.999]) {
      let mass = 0;
      const expected: number[] = [];
      for (const { id, weight } of weights) {
        expected.push(id);
        mass += weight;
        if (mass >= topP * sum) break;
      }
      const actual = candidatesOf(logits, { ...plain, temperature: 0.8, topP }, emptyHistory).ids;
      expect(Int32Array.from(actual).sort()).toEqual(Int32Array.from(expected).sort());
    }
    for (const topK of [1, 40, 5000]) {
      const expected = weights.slice(0, topK).map(({ id }) => id);
      const actual = candidatesOf(logits, { ...plain, topK }, emptyHistory).ids;
      expect(Int32Array.from(actual).sort()).toEqual(Int32Array.from(expected).sort());
    }
  });
});
