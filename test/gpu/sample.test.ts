import { describe, expect, it } from 'vitest';
import type { SamplingParams } from '../../engine/backend/backend.ts';
import { candidatesOf, greedy, penalise, sample, type TokenHistory, without } from '../../engine/backend/sampler.ts';
import {
  chunksOf,
  chunkTokens,
  forbiddenWords,
  historyWords,
  packSettings,
  partWords,
  sampleChunksKernel,
  samplesOnGpu,
} from '../../engine/backend/webgpu/kernels/sampleChunks.ts';
import { sampleDrawKernel } from '../../engine/backend/webgpu/kernels/sampleDraw.ts';
import { bitsOf } from '../../engine/sampling/logitsProcessor.ts';
import { normalisedError, randomGenerator, randomValues, runKernelOutputs, useGpu } from './kernel.ts';

const held = useGpu();
const steps = 3;

type Case = Partial<SamplingParams> & { readonly uniform: number; readonly forbidden?: readonly number[] };

/** Rows as `Words`, one after the other. */
const joined = (rows: readonly Float32Array[]) => Float32Array.from(rows.flatMap((row) => [...row]));

const noHistory: TokenHistory = { sequence: new Set(), generated: new Set() };

function packHistory(vocabulary: number, { sequence, generated }: TokenHistory): Uint32Array {
  const words = new Uint32Array(historyWords(vocabulary));
  const mark = (id: number, bit: number) => {
    words[id >> 4] = (words[id >> 4] ?? 0) | (bit << (2 * (id & 15)));
  };
  for (const id of sequence) mark(id, 1);
  for (const id of generated) mark(id, 2);
  return words;
}

/** Draws once for every case, all in one dispatch, each from the same logits; the drawn ids at step 1 of 3. */
async function draw(logits: Float32Array, cases: readonly Case[], history = noHistory, gpu = held.gpu) {
  const vocabulary = logits.length;
  const rows = cases.length;
  const settings = cases.map((each) => {
    const forbids = each.forbidden !== undefined;
    return packSettings({ ...greedy, ...each }, { forbids, vocabularySize: vocabulary });
  });
  const words = Uint32Array.from(settings.flatMap((each) => [...each]));
  const marks = Uint32Array.from(cases.flatMap(() => [...packHistory(vocabulary, history)]));
  const bans = Uint32Array.from(
    cases.flatMap(({ forbidden = [] }) => {
      const bits = bitsOf(forbidden, vocabulary);
      expect(bits).toHaveLength(forbiddenWords(vocabulary));
      return [...bits];
    }),
  );
  const [adjusted, parts, sorted] = await runKernelOutputs(
    gpu,
    sampleChunksKernel(gpu.capabilities),
    [words, marks, bans],
    [
      joined(cases.map(() => logits)),
      rows * chunksOf(vocabulary) * partWords,
      rows * chunksOf(vocabulary) * 2 * chunkTokens,
    ],
    [chunksOf(vocabulary), rows],
  );
  if (!adjusted || !parts || !sorted) throw new Error('three outputs');
  const uniforms = Float32Array.from(cases.flatMap(({ uniform }) => [0.5, uniform, 0.5]));
  const before = Uint32Array.from(cases.flatMap(() => [1, 77, 0, 0]));
  const partBits = new Uint32Array(parts.buffer, 0, parts.length);
  const inputRows = Uint32Array.from(cases.flatMap((_, row) => [40, 3, 9, row]));
  const [after, drawn, next] = await runKernelOutputs(
    gpu,
    sampleDrawKernel(steps, gpu.capabilities),
    [words, uniforms, Float32Array.from(adjusted), partBits, sorted],
    [marks, before, inputRows],
    [rows],
  );
  const bits = new Uint32Array(drawn?.buffer ?? new ArrayBuffer(0), 0, rows * (steps + 1));
  const nextRows = new Uint32Array(next?.buffer ?? new ArrayBuffer(0), 0, inputRows.length);
  const stride = historyWords(vocabulary);
  return cases.map((_, row) => ({
    drawn: [...bits.subarray(row * (steps + 1), (row + 1) * (steps + 1))],
    adjusted: adjusted.subarray(row * vocabulary, (row + 1) * vocabulary),
    next: [...nextRows.subarray(4 * row, 4 * row + 4)],
    history: new Uint32Array(after?.buffer ?? new ArrayBuffer(0), 4 * row * stride, stride),
  }));
}

/** The CPU's choice, or that of a uniform as near as f32 sums can tell. */
async function check(logits: Float32Array, cases: readonly Case[], history = noHistory, gpu = held.gpu): Promise<void> {
  const results = await draw(logits, cases, history, gpu);
  for (const [row, { uniform, forbidden = [], ...settings }] of cases.entries()) {
    const allowed = without(logits, forbidden);
    const full = { ...greedy, ...settings };
    const choices = [0, -2e-6, 2e-6].map((shift) =>
      sample(allowed, full, history, () => Math.min(Math.max(Math.fround(uniform) + shift, 0), 1 - 1e-9)),
    );
    const [count, earlier, id = -1, later] = results[row]?.drawn ?? [];
    expect([count, earlier, later]).toEqual([2, 77, 0]);
    // The next run's row: one position further, with the token that was drawn.
    expect(results[row]?.next).toEqual([41, 3, id, row + 1]);
    expect(choices, `case ${row}`).toContain(id);
    expect(((results[row]?.history[id >> 4] ?? 0) >> (2 * (id & 15))) & 3).toBe(3);
  }
}

/** As a model's: a few likely tokens, a long tail. */
function peaked(count: number, seed: number): Float32Array {
  const next = randomGenerator(seed);
  return Float32Array.from({ length: count }, () => -3 * Math.log(1 / (next() + 1e-9) - 1 + 1e-9) * next());
}

const uniforms = [0, 0.1, 0.37, 0.62, 0.88, 0.999];
const forAll = (settings: Partial<SamplingParams>): Case[] => uniforms.map((uniform) => ({ ...settings, uniform }));

describe('a token sampled on the GPU equals the one sampled on the CPU', () => {
  it('greedy, the lowest id of ties', async () => {
    const logits = peaked(2500, 1);
    logits[1024] = 50;
    logits[1025] = 50;
    logits[2400] = 50;
    await check(logits, [{ uniform: 0.9 }]);
    const [result] = await draw(logits, [{ uniform: 0.9 }]);
    expect(result?.drawn[2]).toBe(1024);
  });

  it('from one token', () => check(Float32Array.of(-3), [{ uniform: 0.5 }, { uniform: 0.5, temperature: 1 }]));

  it('with top-k, top-p and min-p from lists', async () => {
    const logits = peaked(2500, 2);
    await check(logits, [
      ...forAll({ temperature: 0.7, topK: 20, topP: 0.8 }),
      ...forAll({ temperature: 1.5, topK: 64 }),
      ...forAll({ temperature: 0.6, topP: 0.5 }),
      ...forAll({ temperature: 1, minP: 0.2 }),
      ...forAll({ temperature: 1, topK: 40, topP: 0.95, minP: 0.1 }),
    ]);
  });

  it('from all tokens, and from wide nuclei', async () => {
    // So flat that any nucleus holds hundreds; equal logits stand at its border.
    const logits = randomValues(2500, 3, 2).map((value) => Math.round(8 * value) / 8);
    const settings = { temperature: 1, topP: 0.9 };
    expect(candidatesOf(logits, { ...greedy, ...settings }, noHistory).ids.length).toBeGreaterThan(64);
    await check(logits, [
      ...forAll({ temperature: 1 }),
      ...forAll(settings),
      ...forAll({ temperature: 1, minP: 0.1 }),
      ...forAll({ temperature: 2, topP: 0.7, minP: 0.3 }),
    ]);
  });

  it('with penalties on earlier tokens', async () => {
    const logits = peaked(2500, 4);
    const ids = [...logits.keys()].sort((a, b) => (logits[b] ?? 0) - (logits[a] ?? 0));
    const history = { sequence: new Set(ids.slice(0, 30)), generated: new Set(ids.slice(0, 10)) };
    const settings = { repetitionPenalty: 1.3, presencePenalty: 0.5 };
    await check(logits, [{ ...settings, uniform: 0 }, ...forAll({ ...settings, temperature: 1, topK: 20 })], history);
    const [result] = await draw(logits, [{ ...settings, uniform: 0 }], history);
    expect(normalisedError(result?.adjusted ?? [], penalise(logits, { ...greedy, ...settings }, history))).toBeLessThan(
      1e-13,
    );
  });

  it('without forbidden tokens, which differ for each sequence', async () => {
    const logits = peaked(2500, 8);
    const likely = [...logits.keys()].sort((a, b) => (logits[b] ?? 0) - (logits[a] ?? 0)).slice(0, 5);
    const history = { sequence: new Set(likely), generated: new Set(likely) };
    const settings = [
      {},
      { temperature: 1, topK: 20, topP: 0.9, repetitionPenalty: 1.2 },
      { temperature: 1 },
      { temperature: 1, topP: 0.95, presencePenalty: 0.3 },
    ];
    const cases = settings.flatMap((each): Case[] => [
      ...forAll(each),
      ...forAll(each).map((one) => ({ ...one, forbidden: likely })),
    ]);
    await check(logits, cases, history);
    for (const [row, { drawn }] of (await draw(logits, cases, history)).entries())
      if (cases[row]?.forbidden) expect(likely).not.toContain(drawn[2]);
  });

  it('from the vocabulary of GPT-OSS with 201,088 tokens', () =>
    check(peaked(201_088, 5), [
      { uniform: 0.4 },
      { temperature: 1, uniform: 0.73 },
      { temperature: 1, topK: 50, topP: 0.9, uniform: 0.5 },
      { temperature: 3, topP: 0.9, uniform: 0.6 },
    ]));

  it('never if it is excluded; none for NaN logits', async () => {
    const logits = new Float32Array(100).fill(Number.NEGATIVE_INFINITY);
    logits[70] = -1000;
    await check(logits, [
      { uniform: 0.5 },
      { temperature: 1, uniform: 0.99 },
      { temperature: 0.1, topK: 64, uniform: 0.99 },
    ]);
    logits[3] = Number.NaN;
    const [result] = await draw(logits, [{ temperature: 1, uniform: 0.5 }]);
    expect(result?.drawn[2]).toBe(0xffffffff);
  });
});

describe('without subgroups', () => {
  const poorest = useGpu(true);
  it('reduces through workgroup memory', () =>
    check(
      randomValues(1500, 6, 2),
      [...forAll({ temperature: 1 }), ...forAll({ temperature: 1, topP: 0.9 }), ...forAll({ temperature: 1, topK: 9 })],
      noHistory,
      poorest.gpu,
    ));
});

it('leaves sampling parameters to the CPU that it doesn’t support', () => {
  const settings = { ...greedy, temperature: 1 };
  expect(samplesOnGpu({ ...settings, topK: 64 }, 201_088)).toBe(true);
  expect(samplesOnGpu({ ...settings, topK: 65 }, 201_088)).toBe(false);
  expect(samplesOnGpu(settings, 262_145)).toBe(false);
});
