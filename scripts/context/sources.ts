/** The repositories that retrieval is measured on: sources with their tests, as their packages carry them. */
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { devCache } from '../shared/paths.ts';
import { run } from '../shared/process.ts';

export interface Source {
  readonly name: string;
  readonly language: string;
  /** Fetches and unpacks into an empty folder. */
  readonly fetch: (folder: string) => Promise<void>;
}

const npm = (specifier: string) => async (folder: string) => {
  await run('npm', ['pack', '--silent', specifier], { cwd: folder, output: 'quiet' });
  await unpack(folder);
};

const pypi = (specifier: string) => async (folder: string) => {
  const options = ['download', '--quiet', '--no-deps', '--no-binary', ':all:'];
  await run('python3', ['-m', 'pip', ...options, specifier], { cwd: folder, output: 'quiet' });
  await unpack(folder);
};

export const sources: readonly Source[] = [
  { name: 'zod 4.1.12', language: 'TypeScript', fetch: npm('zod@4.1.12') },
  { name: 're2 1.24.0', language: 'C++', fetch: npm('re2@1.24.0') },
  { name: 'django 5.2.8', language: 'Python', fetch: pypi('django==5.2.8') },
];

/** Where the source lies; fetched once. */
export async function sourceFolder(source: Source): Promise<string> {
  const folder = join(devCache, 'context', source.name.replaceAll(' ', '-'));
  if (existsSync(folder)) return folder;
  const half = `${folder}.part`;
  rmSync(half, { recursive: true, force: true });
  mkdirSync(half, { recursive: true });
  await source.fetch(half);
  cpSync(half, folder, { recursive: true });
  rmSync(half, { recursive: true });
  return folder;
}

async function unpack(folder: string): Promise<void> {
  const archive = readdirSync(folder).find((name) => /\.(tgz|tar\.gz)$/.test(name));
  if (archive === undefined) throw new Error(`Nothing was fetched into ${folder}.`);
  await run('tar', ['xzf', archive], { cwd: folder, output: 'quiet' });
  rmSync(join(folder, archive));
}
