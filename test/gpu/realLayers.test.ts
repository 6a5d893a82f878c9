/**
 * One layer each of GPT-OSS-20B, Qwen3-30B-A3B and DeepSeek-V3 in their published dimensions, with random weights in the
 * published types, against the reference: a prompt, then tokens from the cache. Minutes and gigabytes: npm run proof:gpu.
 */
import { existsSync } from 'node:fs';
import { freemem } from 'node:os';
import { describe, expect, it } from 'vitest';
import type { Backend } from '../../engine/backend/backend.ts';
import { referenceBackend } from '../../engine/backend/reference/index.ts';
import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { readConfig, specFromConfig } from '../../engine/model/open.ts';
import { describeModel } from '../../engine/model/spec/describe.ts';
import type { DecoderSpec } from '../../engine/model/spec/spec.ts';
import type { DecoderWeights } from '../../engine/model/weights/weights.ts';
import { figure } from '../figures.ts';
import { sharedFile } from '../unit/shared.ts';
import { askedGoldens } from './adapters.ts';
import { normalisedError } from './kernel.ts';
import { type MatrixTypes, randomDecoderWeights } from './randomWeights.ts';

const webgpu = createWebgpuBackend({ gpu: { validate: true }, cachePrecision: 'f32' });
const prompt = [3, 500, 77, 12, 410];
const following = [5, 9];

/** One layer of the published model; embedding and head are shortened to 512 tokens. */
async function oneLayer(model: string, layer: number): Promise<DecoderSpec> {
  const spec = specFromConfig(await readConfig(sharedFile(`models/${model}/config.json`)));
  return { ...spec, vocabularySize: 512, layers: spec.layers.slice(layer, layer + 1) };
}

/** Logits of every token, the prompt's and those that follow one by one. */
async function logitsOn(backend: Backend, spec: DecoderSpec, weights: DecoderWeights): Promise<Float32Array[]> {
  const decoder = await backend.load(spec, weights, { contextTokens: 64 });
  const sequence = decoder.createSequence();
  const results = await decoder.run([{ sequence, tokens: prompt, logits: 'all' }]);
  for (const token of following) results.push(...(await decoder.run([{ sequence, tokens: [token], logits: 'last' }])));
  await decoder.dispose();
  return results;
}

const cases: readonly (readonly [string, number, MatrixTypes])[] = [
  ['gpt-oss-20b', 1, { attention: 'BF16', experts: 'MXFP4' }],
  ['Qwen3-30B-A3B', 0, { attention: 'Q4_K', experts: 'Q4_K' }],
  ['DeepSeek-V3', 3, { attention: 'F8_E4M3', experts: 'F8_E4M3' }],
];

describe('one layer with its published dimensions equals the logits of the reference', () => {
  for (const [model, layer, types] of cases) {
    it(`${model}, layer ${layer}, ${types.experts} experts`, { timeout: 1_500_000 }, async ({ skip }) => {
      if (askedGoldens !== 'all') return skip('takes minutes and gigabytes: npm run proof:gpu');
      if (!existsSync(sharedFile(`models/${model}/config.json`))) return skip(`../shared lacks models/${model}`);
      const spec = await oneLayer(model, layer);
      const weights = randomDecoderWeights(spec, types);
      const { weightBytes } = describeModel({ spec, weights });
      if (freemem() < 1.3 * weightBytes)
        return skip(`${(weightBytes / 1e9).toFixed(1)} GB of weights and not enough memory`);
      const start = performance.now();
      const actual = await logitsOn(webgpu, spec, weights);
      const seconds = Math.round((performance.now() - start) / 1000);
      const expected = await logitsOn(referenceBackend, spec, weights);
      const errors = actual.map((logits, i) => normalisedError(logits, expected[i] ?? []));
      const error = Math.max(...errors);
      figure({ layer: `${model}, layer ${layer}`, error, weightBytes, seconds });
      expect(error).toBeLessThan(1e-9);
    });
  }
});
