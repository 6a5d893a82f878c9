/** Repositories for the retrieval benchmark: package sources with their tests. */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { devCache } from '../shared/paths.ts';
import { run } from '../shared/process.ts';

export interface Source {
  readonly name: string;
  readonly language: string;
  /** Downloads and unpacks into an empty folder. */
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

/** Debian's package contains the source as an archive. */
const debianSource = (name: string) => async (folder: string) => {
  await run('apt-get', ['download', '--quiet', name], { cwd: folder, output: 'quiet' });
  const [deb = ''] = readdirSync(folder);
  await run('dpkg-deb', ['--extract', deb, 'package'], { cwd: folder, output: 'quiet' });
  const archive = join('package', 'usr', 'src', `${name}.tar.xz`);
  await run('tar', ['xf', archive, '--strip-components', '1'], { cwd: folder, output: 'quiet' });
  for (const used of [deb, 'package']) rmSync(join(folder, used), { recursive: true });
  // Debian's packaging has an ignore file that ignores everything.
  const rules = join(folder, '.gitignore');
  writeFileSync(rules, readFileSync(rules, 'utf8').replace(/^\/\*$/m, ''));
};

export const linuxSource: Source = { name: 'linux 6.12', language: 'C', fetch: debianSource('linux-source-6.12') };

export const sources: readonly Source[] = [
  { name: 'zod 4.1.12', language: 'TypeScript', fetch: npm('zod@4.1.12') },
  { name: 're2 1.24.0', language: 'C++', fetch: npm('re2@1.24.0') },
  { name: 'django 5.2.8', language: 'Python', fetch: pypi('django==5.2.8') },
];

/** Returns the folder of the source, downloading it once. */
export async function sourceFolder(source: Source): Promise<string> {
  const folder = join(devCache, 'context', source.name.replaceAll(' ', '-'));
  if (existsSync(folder)) return folder;
  const half = `${folder}.part`;
  rmSync(half, { recursive: true, force: true });
  mkdirSync(half, { recursive: true });
  await source.fetch(half);
  renameSync(half, folder);
  return folder;
}

async function unpack(folder: string): Promise<void> {
  const archive = readdirSync(folder).find((name) => /\.(tgz|tar\.gz)$/.test(name));
  if (archive === undefined) throw new Error(`No archive was downloaded into ${folder}.`);
  await run('tar', ['xzf', archive], { cwd: folder, output: 'quiet' });
  rmSync(join(folder, archive));
}
