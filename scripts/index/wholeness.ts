/** Checks an index against its folder, independently of the indexer. */
import { execFileSync } from 'node:child_process';
import { lstatSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { isDeepStrictEqual } from 'node:util';
import { partsOf } from '../../engine/index/syntax/source.ts';

export interface Wholeness {
  /** Files listed by git, without symbolic links. */
  readonly filesByGit: number;
  readonly missing: number;
  readonly tooMany: number;
  /** Files parsed again, and the number whose chunks or symbols differ from the index. */
  readonly compared: number;
  readonly different: number;
}

export async function wholenessOf(directory: string, database: string, compared: number): Promise<Wholeness> {
  const index = new DatabaseSync(database);
  index.exec("INSERT INTO terms(terms) VALUES ('integrity-check')");
  const indexed = index.prepare('SELECT id, path, skipped FROM files ORDER BY path').all();
  const inGit = new Set(filesByGit(directory));
  const inIndex = new Set(indexed.map(({ path }) => String(path)));
  const readable = indexed.filter(({ skipped }) => skipped === '');
  const step = Math.max(1, Math.floor(readable.length / compared));
  const sample = readable.filter((_, i) => i % step === 0);
  let different = 0;
  for (const { id, path } of sample) {
    if (!(await isAsOnDisk(index, Number(id), directory, String(path)))) different += 1;
  }
  index.close();
  return {
    filesByGit: inGit.size,
    missing: [...inGit].filter((path) => !inIndex.has(path)).length,
    tooMany: [...inIndex].filter((path) => !inGit.has(path)).length,
    compared: sample.length,
    different,
  };
}

function filesByGit(directory: string): string[] {
  const repository = mkdtempSync(join(tmpdir(), 'hearth-git-'));
  try {
    const git = ['--git-dir', join(repository, 'git'), '--work-tree', directory];
    execFileSync('git', [...git, 'init', '--quiet'], { stdio: 'ignore' });
    const options = { encoding: 'utf8', maxBuffer: 1e9, cwd: directory } as const;
    const list = execFileSync('git', [...git, 'ls-files', '--others', '--exclude-standard', '-z'], options);
    return list.split('\0').filter((path) => path !== '' && lstatSync(join(directory, path)).isFile());
  } finally {
    rmSync(repository, { recursive: true });
  }
}

async function isAsOnDisk(index: DatabaseSync, file: number, directory: string, path: string): Promise<boolean> {
  const rows = (sql: string) =>
    index
      .prepare(sql)
      .all(file)
      .map((row) => JSON.stringify(Object.values(row)));
  const { chunks, definitions } = await partsOf(path, readFileSync(join(directory, path), 'utf8'));
  const symbols = definitions.map(({ name, firstLine, lastLine, nameLine }) => [name, firstLine, lastLine, nameLine]);
  return (
    isDeepStrictEqual(
      rows('SELECT first_line, last_line FROM chunks WHERE file = ? ORDER BY first_line'),
      chunks.map(({ firstLine, lastLine }) => JSON.stringify([firstLine, lastLine])),
    ) &&
    isDeepStrictEqual(
      rows('SELECT name, first_line, last_line, name_line FROM symbols WHERE file = ?').sort(),
      symbols.map((own) => JSON.stringify(own)).sort(),
    )
  );
}
