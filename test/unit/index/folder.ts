/** A temporary folder of files, and its index. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
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

/** Open, and up to date. The database lies in memory unless `options` names a file. */
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

afterEach(async () => {
  for (const repository of repositories.splice(0)) await repository.close();
});
