import { cp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadModel } from '../../../engine/runtime/loadedModel.ts';
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
