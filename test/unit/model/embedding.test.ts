import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { GgufValue } from '../../../engine/formats/ggufMetadata.ts';
import { ggufKeys } from '../../../engine/formats/ggufMetadata.ts';
import { embeddingFromGguf, openModel } from '../../../engine/model/open.ts';
import { type EmbeddingModelOptions, makeEmbeddingModel, queryPrefix } from '../embeddingModel.ts';
import { fixtureFile } from '../shared.ts';

async function made(options: EmbeddingModelOptions = {}): Promise<string> {
  const { path, remove } = await makeEmbeddingModel(options);
  onTestFinished(remove);
  return path;
}

const inGguf = (keys: Readonly<Record<string, GgufValue>>) =>
  embeddingFromGguf(ggufKeys(new Map(Object.entries({ 'general.architecture': 'qwen3', ...keys }))), 'qwen3');

describe('an embedding model', () => {
  it('is a folder whose pooling takes the last token; it needs no head', async () => {
    const { spec, weights, embedding, file } = await openModel(await made());
    expect(spec.headless).toBe(true);
    expect(weights.head).toBe(weights.embedding);
    expect(embedding).toEqual({ queryPrefix });
    await file.close();
  });

  it('may be published without `model.` before the names of its tensors', async () => {
    const { spec, file } = await openModel(await made({ bareNames: true }));
    expect(spec.headless).toBe(true);
    await file.close();
  });

  it('without prompts of its own takes those of its family', async () => {
    const path = await made();
    await rm(join(path, 'config_sentence_transformers.json'));
    const { embedding, file } = await openModel(path);
    expect(embedding?.queryPrefix).toMatch(/^Instruct: .*\nQuery:$/);
    await file.close();
  });

  it('that pools in another way is refused by name', async () => {
    const path = await made({ pooling: { pooling_mode_mean_tokens: true, pooling_mode_lasttoken: false } });
    await expect(openModel(path)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('pooling_mode_lasttoken'),
    });
    const wrong = await made({ pooling: { pooling_mode_lasttoken: 'yes' } });
    await expect(openModel(wrong)).rejects.toMatchObject({ code: 'invalid-input' });
  });

  it('is recognised in a GGUF by its pooling', () => {
    expect(inGguf({})).toBeUndefined();
    expect(inGguf({ 'qwen3.pooling_type': 0 })).toBeUndefined();
    expect(inGguf({ 'qwen3.pooling_type': 3 })?.queryPrefix).toMatch(/^Instruct: /);
    expect(() => inGguf({ 'qwen3.pooling_type': 1 })).toThrow(/qwen3.pooling_type.*mean/);
    expect(() => inGguf({ 'qwen3.pooling_type': 4 })).toThrow(/rank/);
    expect(() => inGguf({ 'qwen3.pooling_type': 3, 'qwen3.attention.causal': false })).toThrow(/causal/);
  });

  it('is never a decoder without pooling', async () => {
    const { spec, embedding, file } = await openModel(fixtureFile('goldens/qwen3'));
    expect([spec.headless, embedding]).toEqual([undefined, undefined]);
    await file.close();
  });
});
