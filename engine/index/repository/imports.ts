/** Which files import which: the names of imports resolved to files of the index, as far as names alone allow. */
import type { DatabaseSync } from 'node:sqlite';
import { limits } from '../../limits.ts';

export interface ImportGraph {
  /** By path: the files that it imports. */
  readonly imports: ReadonlyMap<string, ReadonlySet<string>>;
  /** By path: how many files import it. */
  readonly importers: ReadonlyMap<string, number>;
}

export function importGraph(database: DatabaseSync): ImportGraph {
  const bySuffix = pathsByStem(database);
  const imports = new Map<string, Set<string>>();
  const importers = new Map<string, number>();
  const rows = database
    .prepare('SELECT path, target FROM imports JOIN files ON files.id = imports.file LIMIT ?')
    .all(limits.repository.imports);
  for (const row of rows) {
    const from = String(row['path']);
    const to = resolve(from, String(row['target']), bySuffix);
    if (to === undefined || to === from) continue;
    const own = imports.get(from) ?? new Set();
    if (own.has(to)) continue;
    imports.set(from, own.add(to));
    importers.set(to, (importers.get(to) ?? 0) + 1);
  }
  return { imports, importers };
}

/** The last part of a path without its ending, or its folder's name for a file that stands for its folder. */
function stemOf(path: string): string {
  const parts = withoutEnding(path).split('/');
  const last = parts.at(-1) ?? '';
  return folderFiles.has(last) ? (parts.at(-2) ?? last) : last;
}

const folderFiles = new Set(['index', '__init__', 'mod', 'lib', 'main']);
const withoutEnding = (path: string): string => path.replace(/\.[^./]*$/, '').replace(/\.d$/, '');

function pathsByStem(database: DatabaseSync): Map<string, string[]> {
  const byStem = new Map<string, string[]>();
  for (const row of database.prepare("SELECT path FROM files WHERE skipped = ''").iterate()) {
    const path = String(row['path']);
    const stem = stemOf(path);
    const paths = byStem.get(stem);
    if (paths) paths.push(path);
    else byStem.set(stem, [path]);
  }
  return byStem;
}

function resolve(from: string, target: string, byStem: ReadonlyMap<string, readonly string[]>): string | undefined {
  const parts = target.startsWith('.') ? relativeParts(from, target) : absoluteParts(target);
  const wanted = withoutSourceEnding(parts).filter((part) => part !== '');
  const stem = wanted.at(-1);
  if (stem === undefined) return undefined;
  const candidates = byStem.get(stem) ?? [];
  if (!target.startsWith('.') && wanted.length === 1 && candidates.length > 1) return undefined;
  return candidates.find((path) => endsWith(withoutFolderFile(withoutEnding(path).split('/')), wanted));
}

/** `./a.ts` and `../a` of JavaScript, `.a.b` and `..a` of Python. */
function relativeParts(from: string, target: string): string[] {
  const folder = from.split('/').slice(0, -1);
  const python = /^(\.+)([\w.]*)$/.exec(target);
  if (python && !target.includes('/') && from.endsWith('.py')) {
    const [, dots = '', rest = ''] = python;
    return [...folder.slice(0, folder.length - (dots.length - 1)), ...rest.split('.')];
  }
  for (const part of target.split('/')) {
    if (part === '..') folder.pop();
    else if (part !== '.') folder.push(part);
  }
  return folder;
}

/** `a/b.h`, `a.b.C`, `crate::a::b`, `A\B`. */
function absoluteParts(target: string): string[] {
  if (target.includes('/')) return target.split('/');
  if (/\.(h|hh|hpp|hxx|inc)$/.test(target)) return [target];
  return target.split(/::|\\|\./).filter((part) => !/^(crate|self|super|\{.*|\*)$/.test(part.trim()));
}

function withoutSourceEnding(parts: readonly string[]): string[] {
  const last = parts.at(-1) ?? '';
  const bare = last.replace(/\.([cm]?[jt]sx?|h|hh|hpp|hxx|inc|py|rb|php)$/, '');
  return withoutFolderFile([...parts.slice(0, -1), bare]);
}

const withoutFolderFile = (parts: readonly string[]): string[] =>
  parts.length > 1 && folderFiles.has(parts.at(-1) ?? '') ? parts.slice(0, -1) : [...parts];

function endsWith(path: readonly string[], wanted: readonly string[]): boolean {
  return wanted.length <= path.length && wanted.every((part, i) => path[path.length - wanted.length + i] === part);
}
