/** A temporary folder of files, and its index. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach } from 'vitest';
import { Repository, type RepositoryOptions } from '../../../engine/index/repository/repository.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

const repositories: Repository[] = [];

export async function folderOf(contents: Readonly<Record<string, string | Uint8Array>>): Promise<string> {
  const folder = temporaryFolder();
  await write(folder, contents);
  return folder;
}

export async function write(folder: string, contents: Readonly<Record<string, string | Uint8Array>>): Promise<void> {
  for (const [path, content] of Object.entries(contents)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), content);
  }
}

/** Open, and up to date. The database is in memory unless `options` names a file. */
export async function repositoryOf(folder: string, options: Partial<RepositoryOptions> = {}): Promise<Repository> {
  const repository = await Repository.open({
    database: ':memory:',
    folders: [{ name: '', directory: folder }],
    ...options,
  });
  repositories.push(repository);
  repository.indexer.rescan();
  await repository.indexer.settled();
  return repository;
}

/** What an index on disk holds, without ids: equal for equal folders. Words come with their chunk and place. */
export function tablesOf(path: string) {
  const database = new DatabaseSync(path);
  database.exec("INSERT INTO terms(terms) VALUES ('integrity-check')");
  database.exec('CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, terms, instance)');
  const all = (sql: string) =>
    database
      .prepare(sql)
      .all()
      .map((row) => JSON.stringify(Object.values(row)));
  const ofFile = 'JOIN files ON files.id = file';
  const found = {
    check: all('PRAGMA integrity_check'),
    files: all('SELECT path, last_part, bytes, digest, skipped, content FROM files ORDER BY path'),
    chunks: all(`SELECT path, first_line, last_line, chunks.digest FROM chunks ${ofFile} ORDER BY path, first_line`),
    symbols: all(
      `SELECT path, name_line, name, kind, container, first_line, last_line FROM symbols ${ofFile} ORDER BY 1, 2, 3`,
    ),
    imports: all(`SELECT path, target FROM imports ${ofFile} ORDER BY path, target`),
    terms: all(
      `SELECT path, first_line, col, offset, term FROM vocabulary JOIN chunks ON chunks.id = doc ${ofFile} ORDER BY 1, 2, 3, 4, 5`,
    ),
  };
  database.close();
  return found;
}

afterEach(async () => {
  for (const repository of repositories.splice(0)) await repository.close();
});
