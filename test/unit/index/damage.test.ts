import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, expect, it, vi } from 'vitest';
import { openDatabase } from '../../../engine/index/repository/database.ts';
import type { Embedder } from '../../../engine/index/repository/embeddings.ts';
import { IndexService } from '../../../engine/index/repository/repository.ts';
import { changeIndex } from '../../fuzz/changedIndex.ts';
import { ordinaryUser } from '../../fuzz/damage.ts';
import { fillIndexDisk } from '../../fuzz/fullIndexDisk.ts';
import { bundle } from '../runtime/bundle.ts';
import { folderOf, write } from './folder.ts';

const sources = Object.fromEntries(
  Array.from({ length: 60 }, (_, file) => [
    `src/f${file}.ts`,
    `export function thing${file}() { return ${file}; }\n`.repeat(20),
  ]),
);

async function indexed(): Promise<{ folder: string; database: string }> {
  const folder = await folderOf(sources);
  const database = join(await folderOf({}), 'index.db');
  const service = serviceOf();
  await service.open({ database, folders: [{ name: '', directory: folder }], excludes: [] });
  await service.repository.indexer.settled();
  await service.close();
  return { folder, database };
}

const serviceOf = (
  embedder: () => Promise<Embedder> = () => Promise.reject(new Error('no model here')),
): IndexService => new IndexService(() => undefined, embedder);

describe('An index', () => {
  it.skipIf(process.platform === 'win32')('is readable by its owner only, even if it was not before', async () => {
    const { database } = await indexed();
    const open = await openDatabase(database);
    const modes = () => ['', '-wal', '-shm'].map((suffix) => (statSync(database + suffix).mode & 0o777).toString(8));
    expect(modes()).toEqual(['600', '600', '600']);
    open.close();
    chmodSync(database, 0o644);
    const again = await openDatabase(database);
    expect(modes()).toEqual(['600', '600', '600']);
    again.close();
  });

  it('is kept if it cannot be opened for a reason other than damage', async () => {
    const { database } = await indexed();
    const bytes = statSync(database).size;
    const locked = new DatabaseSync(database);
    locked.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE');
    await expect(openDatabase(database)).rejects.toThrow(/could not be opened .* kept as it is/);
    locked.exec('ROLLBACK');
    locked.close();
    expect(statSync(database).size).toBe(bytes);
    const again = await openDatabase(database);
    expect(again.prepare('SELECT count(*) AS n FROM files').get()?.['n']).toBe(60);
    again.close();
  }, 20_000);

  it.each([
    ['its beginning', 0, 512],
    ['its schema', 100, 4000],
    ['all pages but the first', 4096, Number.POSITIVE_INFINITY],
  ])('is rebuilt if it is damaged: %s', async (_, from, to) => {
    const { folder, database } = await indexed();
    const bytes = readFileSync(database);
    bytes.fill(0xa5, from, Math.min(to, bytes.length));
    writeFileSync(database, bytes);
    const service = serviceOf();
    await service.open({ database, folders: [{ name: '', directory: folder }], excludes: [] });
    await vi.waitFor(
      () => expect(service.repository.state).toMatchObject({ phase: 'idle', files: 60, pending: 0 }),
      10_000,
    );
    expect(service.repository.search('thing7', 3)[0]?.path).toBe('src/f7.ts');
    await service.close();
  });

  it('is rebuilt if a search finds damage, though nothing is written', async () => {
    const { folder, database } = await indexed();
    const service = serviceOf();
    await service.open({ database, folders: [{ name: '', directory: folder }], excludes: [] });
    await service.repository.indexer.settled();
    const { symbols } = service.implementation();
    const isFound = async () => (await symbols({ name: 'thing7', limit: 1 }, new AbortController().signal))[0]?.path;
    // SQLite looks for changes of other processes in the file beside it, and then reads the pages again.
    const other = new DatabaseSync(database);
    other.exec('UPDATE files SET content = content; PRAGMA wal_checkpoint(TRUNCATE)');
    const bytes = readFileSync(database);
    writeFileSync(database, bytes.fill(0xa5, 4096));
    await expect(isFound()).rejects.toThrow('The repository index was damaged and is being rebuilt from the sources.');
    other.close();
    await vi.waitFor(async () => expect(await isFound()).toBe('src/f7.ts'), 10_000);
    await service.close();
  });

  it.each([
    ['of embedded chunks', 'embedded'],
    ['of vectors', 'vectors'],
  ])('is rebuilt if its table %s is damaged', async (_, table) => {
    const vector = Float32Array.of(0.6, 0.8);
    const embedder: Embedder = {
      dimensions: 2,
      document: async () => vector,
      question: async () => vector,
      close: async () => {},
    };
    const { folder, database } = await indexed();
    const options = {
      ...{ database, folders: [{ name: '', directory: folder }], excludes: [] },
      embeddings: { model: 'scripted' },
    };
    const areThere = (service: IndexService) =>
      vi.waitFor(() => {
        const { files, chunks, embeddings } = service.repository.state;
        expect([files, embeddings?.phase, embeddings?.done]).toEqual([60, 'idle', chunks]);
      }, 10_000);
    const first = serviceOf(async () => embedder);
    await first.open(options);
    await areThere(first);
    await first.close();
    const damaged = new DatabaseSync(database);
    if ('enableDefensive' in damaged) damaged.enableDefensive(false);
    damaged.exec('PRAGMA writable_schema = ON');
    // The root of an index in place of a table's: SQLite finds that only when it reads the table.
    const index = "(SELECT rootpage FROM sqlite_schema WHERE name = 'chunks_file')";
    damaged.exec(`UPDATE sqlite_schema SET rootpage = ${index} WHERE name = '${table}'`);
    damaged.close();
    const service = serviceOf(async () => embedder);
    await service.open(options);
    await areThere(service);
    await service.repository.embeddingsOpened();
    expect((await service.repository.searchByMeaning('thing7', 3)).length).toBeGreaterThan(0);
    await vi.waitFor(() => {
      const read = new DatabaseSync(database, { readOnly: true });
      const check = read.prepare('PRAGMA integrity_check').get();
      read.close();
      expect(check).toEqual({ integrity_check: 'ok' });
    }, 10_000);
    await areThere(service);
    await service.close();
  });

  it('is opened if its owner lost the permission to read it, or if folders are beside it', async () => {
    const { folder, database } = await indexed();
    chmodSync(database, 0);
    for (const suffix of ['-wal', '-shm']) mkdirSync(database + suffix);
    const service = serviceOf();
    await service.open({ database, folders: [{ name: '', directory: folder }], excludes: [] });
    await write(folder, { 'src/fresh.ts': 'export const fresh = 1;\n' });
    service.repository.indexer.update(['src/fresh.ts']);
    await service.repository.indexer.settled();
    expect(service.repository.state).toMatchObject({ files: 61 });
    expect(service.repository.state.problem).toBeUndefined();
    await service.close();
  });

  /** A slice of `npm run fuzz:files`. */
  it('whose files change underneath its process, or between two, finds everything again', async () => {
    const indexer = await bundle('engine/indexer.ts');
    try {
      const figures = await changeIndex(indexer.path, 15);
      expect(figures.problems).toEqual([]);
      expect(figures.changes).toBeGreaterThan(3);
      expect(figures.same).toBeGreaterThan(figures.changes / 2);
    } finally {
      await indexer.remove();
    }
  });

  it.skipIf(process.platform === 'win32')('is served in a process that was started with a low priority', async () => {
    const indexer = await bundle('engine/indexer.ts');
    // Root may raise priorities.
    const user = process.geteuid?.() === 0 ? { uid: ordinaryUser, gid: ordinaryUser } : {};
    const child = spawn('nice', ['-n', '15', process.execPath, indexer.path], {
      ...user,
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    try {
      const ended = once(child, 'exit').then(([status]) => `ended with ${status}`);
      const answer = once(child, 'message').then(([message]) => JSON.stringify(message));
      child.send({ jsonrpc: '2.0', id: 1, method: 'state', params: {} });
      expect(await Promise.race([answer, ended])).toContain('"id":1');
    } finally {
      child.kill();
      await indexer.remove();
    }
  });

  /** A slice of `npm run fuzz:disk`. */
  it('that finds the disk full continues in the same process, and is complete once there is space', async (context) => {
    if (process.platform !== 'linux') context.skip('Only Linux limits the files of a running process from outside.');
    const indexer = await bundle('engine/indexer.ts');
    try {
      const figures = await fillIndexDisk(indexer.path, 12);
      expect(figures.problems).toEqual([]);
      expect(figures.refused).toBe(2);
    } finally {
      await indexer.remove();
    }
  });
});
