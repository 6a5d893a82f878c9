/**
 * The golden checkpoints against any backend: tiny random models of every family, with the logits and the greedy text
 * that Hugging Face transformers computes from them (test/fixtures/goldens/README.md).
 */
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest';
import type { Backend, Decoder, LoadOptions } from '../../engine/backend/backend.ts';
import { dequantise } from '../../engine/formats/dequantise.ts';
import { openSafetensors } from '../../engine/formats/safetensors.ts';
import type { Sequence } from '../../engine/kv/blockCache.ts';
import type { Model } from '../../engine/model/open.ts';
import { openModel } from '../../engine/model/open.ts';
import { withContext } from '../../engine/model/spec/describe.ts';
import { figure } from '../figures.ts';
import { goldenFamilies } from '../goldenFamilies.ts';
import { fixtureFile } from './shared.ts';

export interface GoldenCase {
  readonly name: string;
  /** Directory or GGUF file. */
  readonly path: string;
  readonly golden: string;
}

export interface GoldenBounds {
  /**
   * Largest |logit − golden| in units of the golden logits' standard deviation. Correct float32 arithmetic stays
   * below 1e-4 (test/fixtures/goldens/README.md).
   */
  readonly maxDeviation: number;
  /** Whether all 32 greedy tokens must be the same; asked of float32 arithmetic, where near ties do not flip. */
  readonly sameGreedyText: boolean;
}

export const float32Bounds: GoldenBounds = { maxDeviation: 1e-4, sameGreedyText: true };

function goldenCase(name: string, path: string, golden: string): GoldenCase {
  return { name, path: fixtureFile(`goldens/${path}`), golden: fixtureFile(`goldens/${golden}/golden.safetensors`) };
}

/** Every golden as the family publishes it, and as GGUF. */
export const goldenCases: readonly GoldenCase[] = goldenFamilies.flatMap((name) => [
  goldenCase(`${name} safetensors`, name, name),
  // The FP8 checkpoint exists as a GGUF of floats only, which is too large to keep here and shows nothing new.
  ...(name === 'deepseek-v3-fp8' ? [] : [goldenCase(`${name} GGUF`, `gguf/${name}-bf16.gguf`, name)]),
]);

export interface Golden {
  readonly ids: readonly number[];
  /** Teacher forced. `[tokens, vocabulary]` */
  readonly logits: Float32Array;
  readonly deviation: number;
  /** What follows `ids`. */
  readonly greedy: readonly number[];
  /** The embedding, then each layer's output, the last after the final norm. `[layers + 1, tokens, hidden]` */
  readonly hidden: Float32Array;
}

export async function readGolden(path: string): Promise<Golden> {
  const file = await openSafetensors(path);
  const values = async (name: string) => dequantise(file.tensors.get(name)?.type ?? 'F32', await file.read(name));
  const logits = await values('logits');
  const golden = {
    ids: Array.from(await values('input_ids')),
    logits,
    deviation: standardDeviation(logits),
    greedy: Array.from(await values('greedy')),
    hidden: file.tensors.has('hidden') ? await values('hidden') : new Float32Array(),
  };
  await file.close();
  return golden;
}

interface GoldenLogits extends Pick<GoldenBounds, 'maxDeviation'> {
  readonly expected: Golden;
  readonly decoder: Pick<Decoder, 'spec'>;
  /** Fields recorded with the deviation. */
  readonly figures: Readonly<Record<string, unknown>>;
}

/** The logits of rows `[first, first + rows)` are the golden ones. `[rows, vocabulary]` */
export function expectGoldenLogits(logits: Float32Array, first: number, of: GoldenLogits): void {
  const { expected, decoder, figures, maxDeviation } = of;
  const { vocabularySize } = decoder.spec;
  const wanted = expected.logits.subarray(first * vocabularySize, first * vocabularySize + logits.length);
  expect(logits.length).toBe(wanted.length);
  const deviation = largestDifference(logits, wanted) / expected.deviation;
  figure({ ...figures, deviation });
  expect(deviation).toBeLessThan(maxDeviation);
}

/** Registers the tests of one golden on one backend; `wanted` leaves some out where a device is slow. */
export function checkGolden(
  backend: Backend,
  golden: GoldenCase,
  bounds: GoldenBounds,
  options: Partial<LoadOptions> = {},
  wanted = /(?:)/,
): void {
  const check = (name: string, body: (context: TestContext) => Promise<void>) => {
    if (wanted.test(name)) it(name, body);
  };
  describe(`${golden.name} on ${backend.name}`, () => {
    let model: Model;
    let expected: Golden;
    let decoder: Decoder;

    beforeAll(async () => {
      model = await openModel(golden.path);
      expected = await readGolden(golden.golden);
      decoder = await backend.load(model.spec, model.weights, { contextTokens: 256, ...options });
    });
    afterAll(async () => {
      await decoder?.dispose();
      await model?.file.close();
    });

    const expectLogits = (logits: Float32Array, first: number) =>
      expectGoldenLogits(logits, first, { ...bounds, expected, decoder, figures: { golden: golden.name } });

    /** Feeds golden ids from the sequence's position up to `end`, in chunks of these sizes in turn. */
    const feed = async (sequence: Sequence, sizes: readonly number[], end = expected.ids.length) => {
      for (let turn = 0; sequence.length < end; turn++) {
        const first = sequence.length;
        const size = Math.min(sizes[turn % sizes.length] ?? 1, decoder.maxTokensPerRun);
        const tokens = expected.ids.slice(first, Math.min(first + size, end));
        const [logits] = await decoder.run([{ sequence, tokens, logits: 'all' }]);
        expectLogits(logits ?? new Float32Array(), first);
      }
    };

    check('gives the golden logits for a whole prompt', async () => {
      const sequence = decoder.createSequence();
      await feed(sequence, [expected.ids.length]);
      sequence.dispose();
    });

    check('gives the golden logits token by token from the cache', async () => {
      const sequence = decoder.createSequence();
      await feed(sequence, [1]);
      sequence.dispose();
    });

    check('gives the golden logits in uneven chunks', async () => {
      const sequence = decoder.createSequence();
      await feed(sequence, [3, 1, 17, 64, 2]);
      sequence.dispose();
    });

    check('gives the golden logits in steps of 2 to 16 tokens', async () => {
      const sequence = decoder.createSequence();
      await feed(
        sequence,
        Array.from({ length: 15 }, (_, i) => i + 2),
      );
      sequence.dispose();
    });

    check('continues with the golden greedy text', async () => {
      const sequence = decoder.createSequence();
      await feed(sequence, [64], expected.ids.length - 1);
      const text: number[] = [];
      let next = expected.ids.at(-1) ?? 0;
      while (text.length < expected.greedy.length) {
        const [logits] = await decoder.run([{ sequence, tokens: [next], logits: 'last' }]);
        next = argmax(logits ?? new Float32Array());
        text.push(next);
      }
      figure({ golden: golden.name, sameGreedy: String(text.every((token, i) => token === expected.greedy[i])) });
      if (bounds.sameGreedyText) expect(text).toEqual(expected.greedy);
      else expect(text).toHaveLength(expected.greedy.length);
      sequence.dispose();
    });

    check('keeps two sequences in one run apart', async ({ skip }) => {
      if (decoder.maxSequencesPerRun < 2) skip('this decoder runs one sequence at a time');
      const first = decoder.createSequence();
      const second = decoder.createSequence();
      await feed(second, [40], 40);
      for (let turn = 0; turn < 6; turn++) {
        const batch = [first, second].map((sequence, i) => ({
          sequence,
          tokens: expected.ids.slice(sequence.length, sequence.length + 1 + ((2 * turn + 3 * i) % 7)),
          logits: 'all' as const,
        }));
        const starts = batch.map(({ sequence }) => sequence.length);
        const logits = await decoder.run(batch);
        for (const [i, rows] of logits.entries()) expectLogits(rows, starts[i] ?? 0);
      }
      first.dispose();
      second.dispose();
    });

    check('keeps two sequences in turn apart', async () => {
      const sequences = [decoder.createSequence(), decoder.createSequence()];
      for (let end = 9; end <= 90; end += 9) {
        for (const [i, sequence] of sequences.entries()) await feed(sequence, [4 + i], end + 5 * i);
      }
      for (const sequence of sequences) sequence.dispose();
    });

    check('forgets what was truncated', async () => {
      const sequence = decoder.createSequence();
      await feed(sequence, [64], 120);
      await decoder.run([{ sequence, tokens: expected.ids.slice(0, 9), logits: 'none' }]);
      const kept = sequence.truncate(77);
      expect(kept).toBeLessThanOrEqual(77);
      expect(sequence.length).toBe(kept);
      await feed(sequence, [31]);
      sequence.dispose();
    });

    check('forks into two sequences that continue independently', async () => {
      const sequence = decoder.createSequence();
      await feed(sequence, [64], 90);
      const fork = sequence.fork();
      await decoder.run([{ sequence, tokens: expected.ids.slice(0, 20), logits: 'none' }]);
      await feed(fork, [30], 130);
      expect(sequence.length).toBe(110);
      sequence.truncate(90);
      await feed(sequence, [25], 130);
      sequence.dispose();
      await feed(fork, [70]);
      fork.dispose();
    });

    check('gives rows for the last token, for all, or for none, as asked', async () => {
      const sequence = decoder.createSequence();
      const none = await decoder.run([{ sequence, tokens: expected.ids.slice(0, 5), logits: 'none' }]);
      expect(none.map((rows) => rows.length)).toEqual([0]);
      const last = await decoder.run([{ sequence, tokens: expected.ids.slice(5, 12), logits: 'last' }]);
      expectLogits(last[0] ?? new Float32Array(), 11);
      expect(last[0]).toHaveLength(decoder.spec.vocabularySize);
      sequence.dispose();
    });

    check('refuses what does not fit the context and changes nothing', async () => {
      const sequence = decoder.createSequence();
      await feed(sequence, [64], 64);
      const size = Math.min(decoder.maxTokensPerRun, decoder.contextTokens);
      while (sequence.length + size <= decoder.contextTokens) {
        await decoder.run([{ sequence, tokens: new Array(size).fill(3), logits: 'none' }]);
      }
      const before = sequence.length;
      const tooMuch = new Array(decoder.contextTokens - before + 1).fill(3);
      await expect(decoder.run([{ sequence, tokens: tooMuch, logits: 'last' }])).rejects.toMatchObject({
        code: 'context-overflow',
      });
      expect(sequence.length).toBe(before);
      sequence.truncate(64);
      await feed(sequence, [64], 128);
      sequence.dispose();
    });
  });
}

/** Within the original context, transformers takes longrope's short factors, as a decoder does that was loaded for no more. */
export function checkShortContext(backend: Backend, { maxDeviation }: Pick<GoldenBounds, 'maxDeviation'>): void {
  for (const { name, path, golden } of goldenCases.filter(({ name }) => name.startsWith('phi3-longrope'))) {
    it(`${name} within its original context on ${backend.name} gives the golden logits of short factors`, async () => {
      const model = await openModel(path);
      const expected = { ...(await readGolden(golden)), logits: await readTensor(golden, 'short') };
      const spec = withContext(model.spec, 64);
      const decoder = await backend.load(spec, model.weights, { contextTokens: 64 });
      const sequence = decoder.createSequence();
      for (const [first, end] of [
        [0, 40],
        [40, 64],
      ] as const) {
        const tokens = expected.ids.slice(first, end);
        const [logits = new Float32Array()] = await decoder.run([{ sequence, tokens, logits: 'all' }]);
        expectGoldenLogits(logits, first, { maxDeviation, expected, decoder, figures: { golden: name, within: 64 } });
      }
      await decoder.dispose();
      await model.file.close();
    });
  }
}

async function readTensor(path: string, name: string): Promise<Float32Array> {
  const file = await openSafetensors(path);
  const values = dequantise(file.tensors.get(name)?.type ?? 'F32', await file.read(name));
  await file.close();
  return values;
}

export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if ((values[i] ?? 0) > (values[best] ?? 0)) best = i;
  return best;
}

/** NaN anywhere gives infinity. */
export function largestDifference(a: Float32Array, b: Float32Array): number {
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] ?? Number.NaN) - (b[i] ?? Number.NaN));
    if (!(difference <= largest)) largest = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
  }
  return largest;
}

export function standardDeviation(values: Float32Array): number {
  let sum = 0;
  let squares = 0;
  for (const value of values) {
    sum += value;
    squares += value * value;
  }
  const mean = sum / values.length;
  return Math.sqrt(squares / values.length - mean * mean);
}
