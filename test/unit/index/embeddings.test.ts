import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { cancelled, notFound } from '../../../engine/errors.ts';
import type { Embedder } from '../../../engine/index/repository/embeddings.ts';
import type { Repository } from '../../../engine/index/repository/repository.ts';
import { dot, packed } from '../../../engine/index/repository/vectors.ts';
import { folderOf, repositoryOf, write } from './folder.ts';

/** A vector with one direction for each of these words; synonyms share one. */
const directions = [
  ['dog', 'hound'],
  ['cat', 'feline'],
  ['boat', 'ship'],
  ['tree', 'oak'],
] as const;

function vectorOf(text: string): Float32Array {
  const vector = Float32Array.from(directions, (words) => words.filter((word) => text.includes(word)).length + 0.01);
  const length = Math.hypot(...vector);
  return vector.map((value) => value / length);
}

class ScriptedEmbedder implements Embedder {
  readonly dimensions = directions.length;
  readonly documents: string[] = [];
  closed = false;
  /** Called before each document. */
  before: (text: string, signal: AbortSignal) => Promise<void> = async () => {};

  async document(text: string, signal: AbortSignal): Promise<Float32Array> {
    await this.before(text, signal);
    if (signal.aborted) throw cancelled();
    this.documents.push(text);
    return vectorOf(text);
  }

  async question(text: string): Promise<Float32Array> {
    return vectorOf(text);
  }

  async close(): Promise<void> {
    this.closed = true;
  }
}

const sources = {
  'a.txt': 'The hound barks.\n',
  'b.txt': 'A feline sleeps.\n',
  'c.txt': 'The ship sails.\n',
  'd.txt': 'A dog and his tail.\n',
};

const use = async (repository: Repository, embedder = new ScriptedEmbedder(), model = 'scripted') => {
  repository.useEmbeddings({ model, open: async () => embedder });
  await repository.settled();
  return embedder;
};
const found = async (repository: Repository, question: string): Promise<string[]> =>
  (await repository.searchByMeaning(question, 4)).map(({ path }) => path);

describe('vectors of chunks', () => {
  it('find what words alone do not; what both find comes first', async () => {
    const repository = await repositoryOf(await folderOf(sources));
    expect(repository.search('cat', 4)).toEqual([]);
    expect(await found(repository, 'cat')).toEqual([]);
    await use(repository);
    expect((await found(repository, 'cat'))[0]).toBe('b.txt');
    expect((await found(repository, 'dog')).slice(0, 2)).toEqual(['d.txt', 'a.txt']);
    expect(repository.search('dog', 4).map(({ path }) => path)).toEqual(['d.txt']);
  });

  it('decide between chunks of the same words, and put none before an exact name', async () => {
    const repository = await repositoryOf(
      await folderOf({
        'a.ts': 'export const tank = "the feline";\n',
        'b.ts': 'export const tank = "the hound";\n',
        'c.ts': 'export function fillTank() {\n  return "a ship";\n}\n',
        'd.ts': 'export const animal = "hound";\n',
      }),
    );
    await use(repository);
    expect((await found(repository, 'tank of the dog'))[0]).toBe('b.ts');
    expect((await found(repository, 'tank of the cat'))[0]).toBe('a.ts');
    expect((await found(repository, 'is fillTank of the dog'))[0]).toBe('c.ts');
  });

  it('are computed once from path and lines, with reported progress', async () => {
    const states: string[] = [];
    const repository = await repositoryOf(await folderOf(sources), {
      onState: ({ embeddings }) => embeddings && states.push(`${embeddings.phase} ${embeddings.done}`),
    });
    const { documents } = await use(repository);
    expect([...documents].sort()).toEqual(Object.entries(sources).map(([path, text]) => `${path}\n${text.trim()}`));
    expect(repository.state.embeddings).toEqual({ model: 'scripted', phase: 'idle', done: 4, total: 4 });
    expect(states).toContain('loading 0');
    expect(states.at(-1)).toBe('idle 4');
    repository.indexer.rescan();
    await repository.settled();
    expect(documents).toHaveLength(4);
  });

  it('follow the files: a saved file is embedded again, a restored one is not', async () => {
    const folder = await folderOf(sources);
    const repository = await repositoryOf(folder);
    const { documents } = await use(repository);
    const save = async (text: string) => {
      await write(folder, { 'a.txt': text });
      repository.indexer.update(['a.txt']);
      await repository.indexer.settled();
      await repository.settled();
    };
    await save('An oak, not a tree.\n');
    expect(documents.at(-1)).toBe('a.txt\nAn oak, not a tree.');
    expect((await found(repository, 'a tree'))[0]).toBe('a.txt');
    await save(sources['a.txt']);
    expect(documents).toHaveLength(5);
    expect((await found(repository, 'hound'))[0]).toBe('a.txt');
    expect(repository.state.embeddings).toMatchObject({ done: 4, total: 4 });
  });

  it('are kept when the index is closed, even if only half are done', async () => {
    const folder = await folderOf(sources);
    const database = join(await folderOf({}), 'index.db');
    const first = await repositoryOf(folder, { database });
    const stopping = new ScriptedEmbedder();
    let closing: Promise<void> | undefined;
    stopping.before = async () => {
      if (stopping.documents.length === 2) closing = first.close();
    };
    first.useEmbeddings({ model: 'scripted', open: async () => stopping });
    await first.settled();
    await closing;
    expect([stopping.documents.length, stopping.closed]).toEqual([2, true]);
    const second = await repositoryOf(folder, { database });
    expect(second.embeddingModel).toBe('scripted');
    const { documents } = await use(second);
    expect(documents).toHaveLength(2);
    expect((await found(second, 'ship'))[0]).toBe('c.txt');
  });

  it('are deleted when the model changes or is removed', async () => {
    const folder = await folderOf(sources);
    const database = join(await folderOf({}), 'index.db');
    await use(await repositoryOf(folder, { database }));
    const other = await repositoryOf(folder, { database });
    expect((await use(other, new ScriptedEmbedder(), 'other')).documents).toHaveLength(4);
    await other.close();
    const absent = await repositoryOf(folder, { database });
    const open = async () => Promise.reject(notFound('It is not here.'));
    absent.useEmbeddings({ model: 'absent', open });
    await absent.settled();
    expect(absent.state.embeddings).toMatchObject({ phase: 'failed', done: 0, total: 4 });
    expect(absent.embeddingModel).toBe('other');
    await absent.close();
    const none = await repositoryOf(folder, { database });
    none.forgetEmbeddings();
    expect(none.embeddingModel).toBeUndefined();
  });

  it('wait while they are paused, and go on from there', async () => {
    const repository = await repositoryOf(await folderOf(sources));
    const embedder = new ScriptedEmbedder();
    embedder.before = async () => {
      if (embedder.documents.length === 1) repository.pause();
    };
    repository.useEmbeddings({ model: 'scripted', open: async () => embedder });
    await repository.settled();
    expect(repository.state.embeddings).toMatchObject({ phase: 'paused', done: 1 });
    embedder.before = async () => {};
    repository.resume();
    await repository.settled();
    expect(repository.state.embeddings).toMatchObject({ phase: 'idle', done: 4 });
    expect(new Set(embedder.documents).size).toBe(embedder.documents.length);
  });

  it('that cannot be computed leave the search by words, with the reason; resuming tries again', async () => {
    const repository = await repositoryOf(await folderOf(sources));
    let attempts = 0;
    const embedder = new ScriptedEmbedder();
    const open = async () => {
      if (++attempts === 1) throw notFound('The model is not on this machine.');
      return embedder;
    };
    repository.useEmbeddings({ model: 'scripted', open });
    await repository.settled();
    expect(repository.state.embeddings).toMatchObject({
      phase: 'failed',
      problem: expect.stringContaining('The model is not on this machine.'),
    });
    expect(await found(repository, 'dog')).toEqual(['d.txt']);
    repository.indexer.rescan();
    await repository.settled();
    expect(attempts).toBe(1);
    repository.resume();
    await repository.settled();
    expect(repository.state.embeddings).toMatchObject({ phase: 'idle', done: 4 });
    expect(repository.state.embeddings).not.toHaveProperty('problem');
  });

  it('are dropped if their chunk changed while they were computed', async () => {
    const folder = await folderOf({ 'a.txt': 'The hound barks.\n' });
    const repository = await repositoryOf(folder);
    const embedder = new ScriptedEmbedder();
    embedder.before = async (text) => {
      if (!text.includes('hound')) return;
      await write(folder, { 'a.txt': 'A feline sleeps.\n' });
      repository.indexer.update(['a.txt']);
      await repository.indexer.settled();
    };
    await use(repository, embedder);
    await repository.settled();
    expect(repository.state.embeddings).toMatchObject({ done: 1, total: 1 });
    expect((await found(repository, 'cat'))[0]).toBe('a.txt');
    expect(embedder.documents.at(-1)).toContain('feline');
  });
});

describe('a stored vector', () => {
  it('keeps dot products within one percent', () => {
    const vector = Float32Array.from({ length: 256 }, (_, i) => Math.sin(i * i));
    const length = Math.hypot(...vector);
    const unit = vector.map((value) => value / length);
    expect(dot(unit, packed(unit))).toBeCloseTo(1, 2);
    const other = Float32Array.from({ length: 256 }, (_, i) => Math.cos(3 * i) / Math.sqrt(128));
    const exact = unit.reduce((sum, value, i) => sum + value * (other[i] ?? 0), 0);
    expect(dot(other, packed(unit))).toBeCloseTo(exact, 2);
  });

  it('with another number of dimensions never matches', () => {
    expect(dot(Float32Array.of(1), packed(Float32Array.of(1, 0)))).toBe(Number.NEGATIVE_INFINITY);
  });
});
