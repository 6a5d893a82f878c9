/**
 * Rotary position embedding (Su et al. 2021) and its extensions, in float64. A backend multiplies the position by
 * `inverseFrequencies`, and cos and sin by `attentionFactor`. All context extension happens here.
 */
import type { QueryTemperature, RopeSpec, YarnSpec } from './spec.ts';

/** Radians a position, for each pair of a head. `[dimensions / 2]` */
export function inverseFrequencies(rope: RopeSpec): Float64Array {
  const plain = new Float64Array(rope.dimensions / 2);
  for (let i = 0; i < plain.length; i++) plain[i] = rope.theta ** ((-2 * i) / rope.dimensions);
  if (rope.yarn) return yarnFrequencies(plain, rope, rope.yarn);
  return plain.map((frequency, i) => frequency / ((rope.frequencyFactors?.[i] ?? 1) * (rope.linearFactor ?? 1)));
}

/** Factor on cos and sin; the scores of rotated dimensions scale with its square. */
export function attentionFactor(rope: RopeSpec): number {
  return rope.yarn?.attentionFactor ?? rope.attentionFactor ?? 1;
}

/** Factor on the query at `position`; 1 within the original context. */
export function queryFactor(temperature: QueryTemperature | undefined, position: number): number {
  if (!temperature) return 1;
  return 1 + temperature.beta * Math.log1p(Math.floor(position / temperature.originalContextTokens));
}

/**
 * YaRN (Peng et al. 2023, section 3.2), as in transformers' `_compute_yarn_parameters`: divides low frequencies by the
 * factor, keeps high ones and blends those in between. Static: the same for every sequence length.
 */
function yarnFrequencies(plain: Float64Array, rope: RopeSpec, yarn: YarnSpec): Float64Array {
  const { low, high } = yarnCorrectionRange(rope, yarn);
  return plain.map((frequency, i) => {
    const interpolated = Math.min(Math.max((i - low) / (high - low), 0), 1);
    return (frequency / yarn.factor) * interpolated + frequency * (1 - interpolated);
  });
}

/**
 * The range of pairs that YaRN blends: from the pair that completes `betaFast` turns within the original context to the
 * one that completes `betaSlow`.
 */
export function yarnCorrectionRange(rope: RopeSpec, yarn: YarnSpec): { readonly low: number; readonly high: number } {
  const pairThatTurns = (rotations: number): number =>
    (rope.dimensions * Math.log(yarn.originalContextTokens / (rotations * 2 * Math.PI))) / (2 * Math.log(rope.theta));
  let low = pairThatTurns(yarn.betaFast);
  let high = pairThatTurns(yarn.betaSlow);
  if (yarn.truncate) {
    low = Math.floor(low);
    high = Math.ceil(high);
  }
  low = Math.max(low, 0);
  // `dimensions - 1`, not `dimensions / 2 - 1`, as in the paper's code and in transformers.
  high = Math.min(high, rope.dimensions - 1);
  return { low, high: low === high ? high + 0.001 : high };
}

/** YaRN's attention temperature: `0.1 · mscale · ln(factor) + 1`. */
export function yarnMscale(factor: number, mscale = 1): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
}

/** The factor on cos and sin if the configuration doesn't set one. */
export function yarnAttentionFactor(factor: number, mscale?: number, mscaleAllDim?: number): number {
  return mscale && mscaleAllDim ? yarnMscale(factor, mscale) / yarnMscale(factor, mscaleAllDim) : yarnMscale(factor);
}

export interface LongropeScaling {
  readonly longFactors: readonly number[];
  readonly shortFactors: readonly number[];
  readonly originalContextTokens: number;
  readonly attentionFactor: number;
}

/** longrope (Ding et al. 2024), for a context beyond the original one. */
export function longrope(
  scaling: LongropeScaling,
): Pick<RopeSpec, 'frequencyFactors' | 'shortContext' | 'attentionFactor'> {
  const { longFactors, shortFactors, originalContextTokens, attentionFactor } = scaling;
  return {
    frequencyFactors: longFactors,
    shortContext: { originalContextTokens, frequencyFactors: shortFactors },
    attentionFactor,
  };
}

/** longrope's factor on cos and sin if none is set (transformers' `_compute_longrope_parameters`): it grows with the extension. */
export function longropeAttentionFactor(contextTokens: number, originalContextTokens: number): number {
  const extension = contextTokens / originalContextTokens;
  return extension <= 1 ? 1 : Math.sqrt(1 + Math.log(extension) / Math.log(originalContextTokens));
}

export interface Llama3Scaling {
  readonly factor: number;
  readonly lowFreqFactor: number;
  readonly highFreqFactor: number;
  readonly originalContextTokens: number;
}

/** `rope_type: llama3` as divisors of the plain frequencies (transformers' `_compute_llama3_parameters`). */
export function llama3FrequencyFactors(theta: number, dimensions: number, scaling: Llama3Scaling): number[] {
  const { factor, lowFreqFactor, highFreqFactor, originalContextTokens } = scaling;
  return Array.from(inverseFrequencies({ theta, dimensions, layout: 'half-split' }), (frequency) => {
    const turns = (originalContextTokens * frequency) / (2 * Math.PI);
    if (turns < lowFreqFactor) return factor;
    if (turns > highFreqFactor) return 1;
    const smooth = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}
