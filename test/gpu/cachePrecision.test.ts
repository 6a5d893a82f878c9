/**
 * Keys and values in 8 bits and in f16: the GPU's logits are those of the reference whose cache is rounded in the same way. Not to the last bit: a
 * value that stands between two multiples is rounded to either by the last bit of f32. Relative noise of 1e-6 in the reference's own keys and
 * values moves its logits by a squared error of up to 2e-7 that way, where the rounding itself moves them by 3e-4 to 3e-3; the kernels
 * alone are held to 1e-9 (heads.test.ts, latent.test.ts).
 */
import { describe, expect, it } from 'vitest';
import type { Backend, Decoder } from '../../engine/backend/backend.ts';
import { referenceBackend } from '../../engine/backend/reference/index.ts';
import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { openModel } from '../../engine/model/open.ts';
import type { CachePrecision } from '../../engine/protocol/models.ts';
import { readGolden } from '../unit/goldens.ts';
import { fixtureFile } from '../unit/shared.ts';
import { askedGoldens, lavapipe } from './adapters.ts';
import { normalisedError } from './kernel.ts';

const webgpu = createWebgpuBackend({ gpu: { validate: true } });
const all = ['llama', 'qwen3-moe', 'gpt-oss', 'deepseek-v3'];
const usual = lavapipe ? ['gpt-oss'] : ['gpt-oss', 'deepseek-v3'];

async function withDecoder<Result>(
  backend: Backend,
  family: string,
  cachePrecision: CachePrecision,
  run: (decoder: Decoder) => Promise<Result>,
) {
  const model = await openModel(fixtureFile(`goldens/${family}`));
  try {
    const options = { contextTokens: 256, cachePrecision };
    const decoder = await backend.load(model.spec, model.weights, options);
    try {
      return await run(decoder);
    } finally {
      await decoder.dispose();
    }
  } finally {
    await model.file.close();
  }
}

/** A prompt in tiles, then rows and single tokens from the cache, then the same from a fork whose last page is copied. */
async function logitsOf(decoder: Decoder, ids: readonly number[]): Promise<Float32Array> {
  const rows: number[] = [];
  const feed = async (sequence: ReturnType<Decoder['createSequence']>, end: number) => {
    const tokens = ids.slice(sequence.length, end);
    for (const logits of await decoder.run([{ sequence, tokens, logits: 'all' }])) rows.push(...logits);
  };
  const sequence = decoder.createSequence();
  for (const end of [50, 53, 54, 70]) await feed(sequence, end);
  const fork = sequence.fork();
  await feed(fork, 71);
  await feed(sequence, 75);
  return Float32Array.from(rows);
}

describe('an 8-bit KV cache', () => {
  for (const family of askedGoldens === undefined ? usual : all) {
    it(`${family}: the logits of the reference with the same rounding`, async () => {
      const { ids, logits: golden } = await readGolden(fixtureFile(`goldens/${family}/golden.safetensors`));
      const expected = await withDecoder(referenceBackend, family, 'q8', (decoder) => logitsOf(decoder, ids));
      const actual = await withDecoder(webgpu, family, 'q8', async (decoder) => {
        expect(decoder.notes.join(' ')).toContain('kept in 8 bits');
        expect(decoder.memory().cacheBytesPerValue).toBeLessThan(1.3);
        return logitsOf(decoder, ids);
      });
      const prompt = (50 * golden.length) / ids.length;
      const moved = normalisedError(expected.subarray(0, prompt), golden.subarray(0, prompt));
      const error = normalisedError(actual, expected);
      expect(error).toBeLessThan(moved / 100);
    });
  }
});

/** On lavapipe prompts attend by subgroup matrices here, as with no other precision; without them errors are as large. */
describe('a KV cache in f16', () => {
  for (const family of askedGoldens === undefined ? usual : all) {
    it(`${family}: the logits of the reference with the same rounding`, async () => {
      const { ids, logits: golden } = await readGolden(fixtureFile(`goldens/${family}/golden.safetensors`));
      const expected = await withDecoder(referenceBackend, family, 'f16', (decoder) => logitsOf(decoder, ids));
      const actual = await withDecoder(webgpu, family, 'f16', (decoder) => logitsOf(decoder, ids));
      const prompt = (50 * golden.length) / ids.length;
      const moved = normalisedError(expected.subarray(0, prompt), golden.subarray(0, prompt));
      expect(normalisedError(actual, expected)).toBeLessThan(moved / 10);
    });
  }
});
