import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  attentionFactor,
  inverseFrequencies,
  llama3FrequencyFactors,
  yarnAttentionFactor,
  yarnCorrectionRange,
} from '../../../engine/model/spec/rope.ts';
import type { RopeSpec, YarnSpec } from '../../../engine/model/spec/spec.ts';
import { describeShared, fixtureFile, sharedFile } from '../shared.ts';

function yarn(
  theta: number,
  dimensions: number,
  settings: Omit<YarnSpec, 'attentionFactor' | 'betaFast' | 'betaSlow'>,
) {
  const attention = yarnAttentionFactor(settings.factor);
  const rope: RopeSpec = {
    theta,
    dimensions,
    layout: 'half-split',
    yarn: { ...settings, betaFast: 32, betaSlow: 1, attentionFactor: attention },
  };
  return rope;
}

const gptOss = yarn(150_000, 64, { factor: 32, originalContextTokens: 4096, truncate: false });
const gptOssTruncated = yarn(150_000, 64, { factor: 32, originalContextTokens: 4096, truncate: true });
const qwen3 = yarn(1e6, 128, { factor: 4, originalContextTokens: 32_768, truncate: true });
const deepseek = yarn(10_000, 64, { factor: 40, originalContextTokens: 4096, truncate: true });

function rangeOf(rope: RopeSpec): { low: number; high: number } {
  if (!rope.yarn) throw new Error('no YaRN');
  return yarnCorrectionRange(rope, rope.yarn);
}

function largestRatioError(actual: ArrayLike<number>, expected: readonly number[]): number {
  expect(actual.length).toBe(expected.length);
  return Math.max(...expected.map((value, i) => Math.abs((actual[i] ?? Number.NaN) / value - 1)));
}

interface TransformersTable {
  readonly inv_freq: readonly number[];
  readonly attention_scaling: number;
  readonly positions: readonly number[];
  readonly cos: readonly (readonly number[])[];
}

/** From transformers 5.12.1, which computes in float32 (test/fixtures/goldens/make_goldens.py, rope_tables). */
const transformers: Record<string, TransformersTable> = JSON.parse(
  readFileSync(fixtureFile('goldens/rope.json'), 'utf8'),
);

describe('inverse frequencies', () => {
  it.each([
    ['gpt-oss-20b', gptOss],
    ['qwen3-yarn4', qwen3],
    ['deepseek-v3', deepseek],
  ])('of %s are those of transformers', (name, rope) => {
    expect(largestRatioError(inverseFrequencies(rope), transformers[name]?.inv_freq ?? [])).toBeLessThan(5e-7);
  });

  it('turn the first pairs as far as transformers does at position 131071', () => {
    const { inv_freq: frequencies = [], positions = [], cos = [] } = transformers['gpt-oss-20b'] ?? {};
    const own = inverseFrequencies(gptOss);
    for (const [i, position] of positions.entries()) {
      // transformers' frequencies are float32, so the angle may be off by their rounding times the position.
      const bound = 1e-6 + position * 2 ** -24;
      const worst = Math.max(
        ...(cos[i] ?? []).map((value, pair) => Math.abs(Math.cos(position * (own[pair] ?? 0)) - value)),
      );
      expect(worst).toBeLessThan(bound);
    }
    expect(frequencies).toHaveLength(own.length);
  });

  it('without scaling fall geometrically from 1 to nearly 1 / theta', () => {
    const plain = inverseFrequencies({ theta: 10_000, dimensions: 4, layout: 'half-split' });
    expect([...plain]).toEqual([1, 0.01]);
  });

  it('are divided by the linear factor', () => {
    const linear = inverseFrequencies({ theta: 10_000, dimensions: 4, layout: 'half-split', linearFactor: 4 });
    expect([...linear]).toEqual([0.25, 0.0025]);
  });

  it('are divided by the factors of a GGUF', () => {
    const scaled = inverseFrequencies({
      theta: 10_000,
      dimensions: 4,
      layout: 'interleaved',
      frequencyFactors: [1, 8],
    });
    expect([...scaled]).toEqual([1, 0.00125]);
  });
});

describe('YaRN', () => {
  it('multiplies cos and sin by the factor that transformers states', () => {
    expect(attentionFactor(gptOss)).toBeCloseTo(transformers['gpt-oss-20b']?.attention_scaling ?? 0, 12);
    expect(attentionFactor(qwen3)).toBeCloseTo(transformers['qwen3-yarn4']?.attention_scaling ?? 0, 12);
    // DeepSeek states mscale and mscale_all_dim, which cancel out.
    expect(yarnAttentionFactor(40, 1, 1)).toBe(transformers['deepseek-v3']?.attention_scaling);
  });

  it('does nothing at a factor of one or less', () => {
    expect(yarnAttentionFactor(1)).toBe(1);
    expect(yarnAttentionFactor(0.5)).toBe(1);
  });

  it('keeps its range at least a thousandth wide, so that nothing is divided by zero', () => {
    const tight = yarn(10_000, 4, { factor: 2, originalContextTokens: 1, truncate: true });
    const range = rangeOf(tight);
    expect(range.high).toBeGreaterThan(range.low);
    expect([...inverseFrequencies(tight)].every(Number.isFinite)).toBe(true);
  });
});

describe('Llama 3 scaling', () => {
  it('gives the divisors of transformers for Llama 3.1', () => {
    const factors = llama3FrequencyFactors(500_000, 128, {
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalContextTokens: 8192,
    });
    // From transformers' `_compute_llama3_parameters` written out by wavelength in Python floats.
    const expected = [
      [0, 1],
      [28, 1],
      [29, 1.207483871283662],
      [30, 1.5534146285049255],
      [31, 2.0263132059050553],
      [34, 5.257326588708467],
      [35, 8],
      [63, 8],
    ] as const;
    for (const [pair, divisor] of expected) expect(factors[pair]).toBeCloseTo(divisor, 10);
  });
});

describeShared('YaRN in float64', ['reference/yarn_inv_freq.json'], () => {
  interface Table {
    readonly low: number;
    readonly high: number;
    readonly inv_freq: readonly number[];
    readonly cos_sin_scale: number;
  }
  const tables: Record<string, Table> = JSON.parse(readFileSync(sharedFile('reference/yarn_inv_freq.json'), 'utf8'));

  it.each([
    ['gpt-oss truncate=false (transformers, openai/gpt-oss)', gptOss],
    ['gpt-oss truncate=true (what llama.cpp ggml_rope_yarn_corr_dims and mlx-lm YarnRoPE compute)', gptOssTruncated],
    ['DeepSeek-V3', deepseek],
    ['Qwen3 yarn factor 4 original 32768', qwen3],
  ])('%s', (name, rope) => {
    const table = tables[name];
    if (!table) throw new Error(`no table ${name}`);
    const range = rangeOf(rope);
    expect(range.low).toBeCloseTo(table.low, 10);
    expect(range.high).toBeCloseTo(table.high, 10);
    expect(largestRatioError(inverseFrequencies(rope), table.inv_freq)).toBeLessThan(1e-13);
  });
});
