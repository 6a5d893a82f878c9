/** The index's embedding model, loaded as the indexer and the command line load it. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openEmbedder } from '../../../engine/runtime/loadedModel.ts';
import { embeddingVectors, makeEmbeddingModel, queryPrefix } from '../embeddingModel.ts';
import { folderOf, repositoryOf } from '../index/folder.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { makeTinyModel } from './tinyModel.ts';

let made: Awaited<ReturnType<typeof makeEmbeddingModel>>;
let storeDirectory: string;
beforeAll(async () => {
  made = await makeEmbeddingModel();
  storeDirectory = temporaryFolder();
});
afterAll(() => made.remove());

const never = new AbortController().signal;
const open = (model = made.path) => openEmbedder(model, never, { backend: 'onnx', storeDirectory });
const cosine = (a: Float32Array, b: readonly number[]): number =>
  a.reduce((sum, value, i) => sum + value * (b[i] ?? Number.NaN), 0);

describe('an embedding model for the index', () => {
  it('gives documents the vectors of Hugging Face, and questions an instruction before them', async () => {
    const embedder = await open();
    expect(embedder.dimensions).toBe(128);
    for (const { text, vector } of await embeddingVectors()) {
      expect(cosine(await embedder.document(text, never), vector)).toBeCloseTo(1, 5);
    }
    const [asked, written] = [await embedder.question('x'), await embedder.document(`${queryPrefix}x`, never)];
    expect(cosine(asked, [...written])).toBeCloseTo(1, 5);
    await embedder.close();
  });

  it('reads the beginning of a text that is too long, and its end token', async () => {
    const embedder = await open();
    const long = 'word '.repeat(2000);
    const cut = await embedder.document(long, never);
    expect(cosine(cut, [...(await embedder.document(`${long} and more`, never))])).toBeCloseTo(1, 5);
    await embedder.close();
  });

  it('must be an embedding model, and must exist', async () => {
    const tiny = await makeTinyModel();
    await expect(open(tiny.path)).rejects.toMatchObject({ code: 'unsupported' });
    await tiny.remove();
    await expect(open('qwen3-embedding-0.6b')).rejects.toMatchObject({
      code: 'not-found',
      message: expect.stringContaining('hearth models pull qwen3-embedding-0.6b'),
    });
  });

  it('answers a question while documents wait', async () => {
    const embedder = await open();
    const order: string[] = [];
    const documents = Array.from({ length: 4 }, (_, i) =>
      embedder.document('text '.repeat(100 + i), never).then(() => order.push('document')),
    );
    const question = embedder.question('now').then(() => order.push('question'));
    await Promise.all([...documents, question]);
    expect(order.indexOf('question')).toBeLessThan(2);
    await embedder.close();
  });

  it('finds documents by its own vectors', async () => {
    const repository = await repositoryOf(await folderOf({ 'a.txt': 'alpha beta\n', 'b.txt': 'gamma delta\n' }));
    repository.useEmbeddings({ model: made.path, open: () => open() });
    await repository.settled();
    expect(repository.state.embeddings).toMatchObject({ phase: 'idle', done: 2 });
    // No word is in any file: what is found is found by its vector.
    expect(await repository.searchByMeaning('omega', 5)).toHaveLength(2);
    expect(repository.search('omega', 5)).toEqual([]);
  });
});
