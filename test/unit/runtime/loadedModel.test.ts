import { cp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '../../../engine/model/open.ts';
import { decoderFor, loadModel } from '../../../engine/runtime/loadedModel.ts';
import { fixtureFile } from '../shared.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

async function checkpoint(files: Readonly<Record<string, string>>): Promise<string> {
  const path = temporaryFolder();
  await cp(fixtureFile('goldens/qwen3'), path, { recursive: true });
  for (const [name, text] of Object.entries(files)) await writeFile(join(path, name), text);
  return path;
}

const load = (path: string, backend: 'onnx' | 'reference') =>
  loadModel({
    id: 'test',
    name: 'test',
    path,
    backend,
    contextTokens: 64,
    onProgress: () => {},
    signal: new AbortController().signal,
  });

describe.each(['onnx', 'reference'] as const)('a model loaded by %s', (backend) => {
  it('may lack a vocabulary', async () => {
    const loaded = await load(await checkpoint({}), backend);
    expect(loaded.text).toBeUndefined();
    expect(loaded.card).toMatchObject({ backend, chat: false });
    await loaded.close();
  });

  // It is read while the backend loads: the failure must end the load, not the process.
  it('is refused for a damaged vocabulary, by what is wrong with it', async () => {
    const path = await checkpoint({ 'tokenizer.json': '{' });
    await expect(load(path, backend)).rejects.toMatchObject({
      code: 'invalid-input',
      message: expect.stringContaining('tokenizer.json'),
    });
  });
});

describe('a model with longrope', () => {
  const factorsOf = async (asked: { readonly contextTokens?: number; readonly mostContextTokens?: number }) => {
    const { readTokenizer, ...model } = await openCheckpoint(fixtureFile('goldens/phi3-longrope'));
    const [long, short] = [model.spec.layers[0]?.attention.rope, model.spec.layers[0]?.attention.rope?.shortContext];
    const request = { backend: 'reference', onProgress: () => {}, signal: new AbortController().signal } as const;
    const { decoder } = await decoderFor(model, { ...request, ...asked });
    const loaded = decoder.spec.layers.map(({ attention }) => attention.rope?.frequencyFactors);
    await decoder.dispose();
    await model.file.close();
    const kinds = [long, short].map((factors) => factors?.frequencyFactors);
    return loaded.map((factors) => ['long', 'short'][kinds.indexOf(factors)]);
  };

  it('takes the factors of the context that it is loaded with', async () => {
    expect(await factorsOf({})).toEqual(['long', 'long', 'long']);
    expect(await factorsOf({ contextTokens: 65 })).toEqual(['long', 'long', 'long']);
    expect(await factorsOf({ contextTokens: 64 })).toEqual(['short', 'short', 'short']);
    expect(await factorsOf({ mostContextTokens: 64 })).toEqual(['short', 'short', 'short']);
  });
});
