/** Every backend's contract for a prompt: its logits have the same bits, or nearly, however it is cut into passes. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Backend, Decoder } from '../../engine/backend/backend.ts';
import type { Model } from '../../engine/model/open.ts';
import { openModel } from '../../engine/model/open.ts';
import { type BenchType, writeRandomModel } from '../../scripts/bench/randomModel.ts';
import { temporaryFolder } from './temporaryFolder.ts';

const shape = {
  layers: 2,
  hiddenSize: 128,
  intermediateSize: 256,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 32,
  vocabularySize: 512,
  ropeTheta: 1e4,
  contextTokens: 2048,
};
const shapes: readonly (readonly [string, typeof shape, BenchType])[] = [
  ['two query heads a KV head', shape, 'Q4_0'],
  ['one query head a KV head', { ...shape, numAttentionHeads: 2 }, 'Q8_0'],
];
const prompt = Array.from({ length: 300 }, (_, i) => (i * 7919 + 13) % 512);
const chunkings: Readonly<Record<string, readonly number[]>> = {
  'one token behind the rest': [200, 99, 1],
  halves: [150, 150],
  'four tokens behind the rest': [200, 96, 4],
  quarters: [75, 75, 75, 75],
  'uneven parts': [37, 200, 52, 11],
  'spans of 128': [128, 128, 44],
  'parts of three': new Array<number>(100).fill(3),
  'single tokens': new Array<number>(300).fill(1),
};
const answered = 12;

const distance = (some: Float32Array, others: Float32Array): number =>
  some.reduce((most, value, i) => Math.max(most, Math.abs(value - (others[i] ?? Number.NaN))), 0);

/**
 * @param within largest difference of a logit.
 * @param without chunkings that are left out.
 */
export function checkChunkings(backend: Backend, within = 0, without: readonly string[] = []): void {
  describe.each(shapes)(`A prompt on ${backend.name}, %s`, (name, own, type) => {
    let model: Model;
    let decoder: Decoder;

    beforeAll(async () => {
      const path = join(temporaryFolder(), 'random.gguf');
      writeRandomModel(name, own, type, path);
      model = await openModel(path);
      decoder = await backend.load(model.spec, model.weights, { contextTokens: 1024 });
    });
    afterAll(async () => {
      await decoder?.dispose();
      await model?.file.close();
    });

    /** Logits of the prompt's last token, and the greedy answer. */
    const answerOf = async (parts: readonly number[]): Promise<{ logits: Float32Array; answer: number[] }> => {
      const sequence = decoder.createSequence();
      const run = async (tokens: readonly number[]) =>
        (await decoder.run([{ sequence, tokens, logits: 'last' }]))[0] ?? new Float32Array();
      let logits: Float32Array = new Float32Array();
      for (const count of parts) logits = await run(prompt.slice(sequence.length, sequence.length + count));
      const first = logits;
      const answer: number[] = [];
      for (let i = 0; i < answered; i++) {
        answer.push(logits.indexOf(Math.max(...logits)));
        logits = await run(answer.slice(-1));
      }
      sequence.dispose();
      return { logits: first, answer };
    };

    it('has the same logits and the same answer however it is cut into passes', { timeout: 300_000 }, async () => {
      const whole = await answerOf([200, 100]);
      expect(whole.logits).toHaveLength(512);
      const others: string[] = [];
      for (const [cut, parts] of Object.entries(chunkings)) {
        if (without.includes(cut)) continue;
        const { logits, answer } = await answerOf(parts);
        const difference = distance(logits, whole.logits);
        if (!(difference <= within)) others.push(`${cut}: logits differ by ${difference}`);
        if (answer.join() !== whole.answer.join()) others.push(`${cut}: another answer`);
      }
      expect(others).toEqual([]);
    });

    it('has the same logits beside other sequences', { timeout: 300_000 }, async (context) => {
      if (decoder.maxSequencesPerRun < 3) context.skip('This backend runs one sequence at a time.');
      const alone = await answerOf([200, 100]);
      const [own, ...others] = [0, 1, 2].map(() => decoder.createSequence());
      if (!own) throw new Error('There is no sequence.');
      for (const [first, end] of [
        [0, 120],
        [120, 250],
        [250, 299],
        [299, 300],
      ]) {
        const beside = others.map((sequence, i) => ({
          sequence,
          tokens: prompt.slice(i, i + 3),
          logits: 'last' as const,
        }));
        const [logits] = await decoder.run([
          { sequence: own, tokens: prompt.slice(first, end), logits: 'last' },
          ...beside,
        ]);
        if (end === prompt.length)
          expect(distance(logits ?? new Float32Array(1), alone.logits)).toBeLessThanOrEqual(within);
      }
    });

    it('has the same answer after one of several sequences, cut off and forked', { timeout: 300_000 }, async () => {
      const whole = await answerOf([200, 100]);
      const sequence = decoder.createSequence();
      await decoder.run([{ sequence, tokens: prompt.slice(0, 256), logits: 'none' }]);
      await decoder.run([{ sequence, tokens: [5, 6, 7, 8], logits: 'none' }]);
      sequence.truncate(190);
      const fork = sequence.fork();
      await decoder.run([{ sequence, tokens: [9, 10], logits: 'none' }]);
      const [logits] = await decoder.run([{ sequence: fork, tokens: prompt.slice(190), logits: 'last' }]);
      expect(logits).toHaveLength(512);
      expect(distance(logits ?? new Float32Array(), whole.logits)).toBeLessThanOrEqual(within);
    });
  });
}
