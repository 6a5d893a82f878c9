/** Models that ggml computes, its memory, and the backend that is chosen if none is named. */
import { readdir } from 'node:fs/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Decoder } from '../../../engine/backend/backend.ts';
import { isFasterOnGgml } from '../../../engine/backend/ggml/choice.ts';
import { ggmlBackend } from '../../../engine/backend/ggml/index.ts';
import { hasMatrixUnits } from '../../../engine/backend/processor/threads.ts';
import { HearthError } from '../../../engine/errors.ts';
import { type Model, openModel } from '../../../engine/model/open.ts';
import { type BackendChoice, type Candidate, candidates, loadDecoder } from '../../../engine/runtime/backends.ts';
import type { BenchType } from '../../../scripts/bench/randomModel.ts';
import { randomModel, randomShape } from '../randomModel.ts';
import { fixtureFile } from '../shared.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

async function open(path: string): Promise<Model> {
  const model = await openModel(path);
  onTestFinished(() => model.file.close());
  return model;
}

async function load(choice: BackendChoice, model: Model, among: readonly Candidate[] = candidates): Promise<Decoder> {
  const { decoder } = await loadDecoder(choice, model.spec, model.weights, { contextTokens: 256, threads: 1 }, among);
  onTestFinished(() => decoder.dispose());
  return decoder;
}

describe('ggml on the processor', () => {
  it.each(['Q4_0', 'Q4_K_M', 'Q6_K', 'Q8_0', 'MXFP4'] as const)(
    'keeps %s weights in as many bytes as the file, and writes no copy to disk',
    async (type) => {
      const model = await randomModel(type);
      const cacheDirectory = temporaryFolder();
      const decoder = await ggmlBackend.load(model.spec, model.weights, {
        contextTokens: 256,
        threads: 1,
        cacheDirectory,
        digest: 'of-a-model',
      });
      onTestFinished(() => decoder.dispose());
      const inFile = Array.from(model.file.tensors.values(), ({ byteLength }) => byteLength).reduce((a, b) => a + b);
      const { weightBytes } = decoder.memory();
      // Matrix units need four more bytes for a block of 34 (Q8_0).
      expect(weightBytes).toBeGreaterThanOrEqual(inFile);
      expect(weightBytes).toBeLessThanOrEqual(inFile * (hasMatrixUnits() ? 38 / 34 : 1));
      expect(await readdir(cacheDirectory)).toEqual([]);
    },
  );

  it('fills the cache of a one-layer model without computing logits, and continues with the same logits', async () => {
    const decoder = await load('ggml', await randomModel('Q4_0'));
    const [quiet, asked] = [decoder.createSequence(), decoder.createSequence()];
    await decoder.run([{ sequence: quiet, tokens: [5, 6, 7], logits: 'none' }]);
    await decoder.run([{ sequence: asked, tokens: [5, 6, 7], logits: 'all' }]);
    const [one] = await decoder.run([{ sequence: quiet, tokens: [8], logits: 'last' }]);
    const [other] = await decoder.run([{ sequence: asked, tokens: [8], logits: 'last' }]);
    expect(one).toHaveLength(512);
    expect(one).toEqual(other);
  });

  it.each([
    ['two KV heads', 2],
    ['a KV head for each query head', 32],
  ])('has the same logits whether or not attention is computed in blocks, with %s', async (_, numKeyValueHeads) => {
    const blocked = { ...randomShape, numAttentionHeads: 32, numKeyValueHeads, headDim: 16, contextTokens: 2048 };
    const model = await randomModel('Q8_0', blocked);
    const { decoder } = await loadDecoder('ggml', model.spec, model.weights, { contextTokens: 2048, threads: 1 });
    onTestFinished(() => decoder.dispose());
    const prompt = Array.from({ length: 1401 }, (__, i) => (i * 7919 + 13) % 512);
    const logitsOf = async (tokensAtOnce: number): Promise<Float32Array | null | undefined> => {
      const sequence = decoder.createSequence();
      let logits: Float32Array | null | undefined;
      for (let first = 0; first < prompt.length; first += tokensAtOnce) {
        [logits] = await decoder.run([{ sequence, tokens: prompt.slice(first, first + tokensAtOnce), logits: 'last' }]);
      }
      sequence.dispose();
      return logits;
    };
    // 2 MB of scores at once: of 256 tokens with 64 KV heads' columns in 1,024, several blocks of tokens and of heads; of 5, one.
    const whole = await logitsOf(256);
    expect(whole).toHaveLength(512);
    expect(await logitsOf(5)).toEqual(whole);
  });

  it.each(['deepseek-v3', 'qwen3-next', 'deepseek-v3-fp8'])(
    'refuses %s, which the other backend computes',
    async (name) => {
      const { spec, weights } = await open(fixtureFile(`goldens/${name}`));
      await expect(ggmlBackend.load(spec, weights, { contextTokens: 256 })).rejects.toMatchObject({
        code: 'unsupported',
      });
    },
  );

  it('is chosen for weights whose prompts it prefills as fast as ONNX Runtime', async (context) => {
    if (process.arch !== 'x64') context.skip('ggml is taken by itself on x64 alone');
    const taken = async (type: BenchType, matrixUnits: boolean) =>
      isFasterOnGgml((await randomModel(type)).weights, matrixUnits);
    for (const matrixUnits of [false, true]) {
      expect(await taken('Q4_K_M', matrixUnits)).toBe(true);
      expect(await taken('MXFP4', matrixUnits)).toBe(true);
      expect(await taken('Q8_0', matrixUnits)).toBe(matrixUnits);
    }
    expect((await load('cpu', await randomModel('Q4_K_M'))).backend).toBe('ggml');
    expect((await load('cpu', await randomModel('Q8_0'))).backend).toBe(hasMatrixUnits() ? 'ggml' : 'onnx');
    expect((await load('ggml', await randomModel('Q8_0'))).backend).toBe('ggml');
  });

  it('leaves models to ONNX Runtime if its library cannot be used', async () => {
    const broken: Candidate = {
      name: 'ggml',
      open: async () => ({
        name: 'ggml',
        load: async () => {
          throw new HearthError('unavailable', 'The package @node-llama-cpp/linux-x64 is not installed.');
        },
      }),
    };
    const { spec, weights } = await randomModel('Q4_K_M');
    const others = candidates.filter(({ name }) => name === 'onnx');
    const { decoder, notes } = await loadDecoder('cpu', spec, weights, { contextTokens: 256 }, [broken, ...others]);
    onTestFinished(() => decoder.dispose());
    expect(decoder.backend).toBe('onnx');
    expect(notes).toEqual(["Not on 'ggml': The package @node-llama-cpp/linux-x64 is not installed."]);
  });
});
