import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, expect, it, vi } from 'vitest';
import { openDatabase } from '../../../engine/index/repository/database.ts';
import { IndexService } from '../../../engine/index/repository/repository.ts';
import { folderOf } from './folder.ts';

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

const serviceOf = () =>
  new IndexService(
    () => undefined,
    () => Promise.reject(new Error('no model here')),
  );

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
});
