/** Real edits: files changed between two versions of npm packages, or by commits of this repository. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';

export interface Edit {
  readonly path: string;
  readonly before: string;
  readonly after: string;
}

const lines = { before: 20, most: 400 };
const isSource = (path: string): boolean => /\.[cm]?[jt]s$/.test(path) && !/\.min\.|\.d\.[cm]?ts$/.test(path);

/** Starts some lines before the first change. Undefined if there is no change. */
function editOf(path: string, before: string, after: string): Edit | undefined {
  const [old, fresh] = [before.split('\n'), after.split('\n')];
  const first = fresh.findIndex((line, i) => line !== old[i]);
  if (before === '' || first < 0) return undefined;
  const start = Math.max(0, first - lines.before);
  const [from, to] = [old, fresh].map((text) => text.slice(start, start + lines.most).join('\n'));
  return { path, before: from ?? '', after: to ?? '' };
}

/** Downloads and unpacks a package version with npm, once. */
function unpacked(name: string, version: string): string {
  const directory = resolve('.cache/bench', `${name.replace('/', '-')}-${version}`);
  if (existsSync(join(directory, 'package'))) return join(directory, 'package');
  mkdirSync(directory, { recursive: true });
  const options = { cwd: directory, encoding: 'utf8' as const, shell: process.platform === 'win32' };
  const archive = execFileSync('npm', ['pack', `${name}@${version}`, '--silent'], options)
    .trim()
    .split('\n')
    .at(-1);
  execFileSync('tar', ['-xzf', archive ?? ''], options);
  return join(directory, 'package');
}

/** @param edit `PACKAGE@FROM..TO` */
export function* editsOfPackage(edit: string): Generator<Edit> {
  const [, name = '', from = '', to = ''] = /^(.+)@(.+)\.\.(.+)$/.exec(edit) ?? [];
  const [old, fresh] = [unpacked(name, from), unpacked(name, to)];
  for (const path of readdirSync(fresh, { recursive: true, encoding: 'utf8' }).sort()) {
    const file = join(fresh, path);
    if (!isSource(path) || !statSync(file).isFile()) continue;
    const found = editOf(`${name}/${path}`, textOf(join(old, path)), readFileSync(file, 'utf8'));
    if (found) yield found;
  }
}

/** Newest commit first. Added and removed files are skipped. */
export function* editsOfCommits(count: number): Generator<Edit> {
  if (count === 0) return;
  const log = git('log', `-${count}`, '--no-merges', '--diff-filter=M', '--name-only', '--format=commit %h');
  let commit = '';
  for (const line of log.split('\n')) {
    if (line.startsWith('commit ')) commit = line.slice('commit '.length);
    else if (isSource(line)) {
      const found = editOf(`${line} (${commit})`, git('show', `${commit}^:${line}`), git('show', `${commit}:${line}`));
      if (found) yield found;
    }
  }
}

const git = (...args: string[]): string => execFileSync('git', args, { encoding: 'utf8', maxBuffer: 1e8 });

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Skips new files.
    return '';
  }
}
