/** A map of the repository: its most imported files with the names they define, within a budget of characters. */
import type { DatabaseSync } from 'node:sqlite';
import { limits } from '../../limits.ts';
import type { Names, SymbolPlace } from './names.ts';

export interface MapRequest {
  readonly maxChars: number;
  /** Files to put first, say those of a question. */
  readonly focus?: readonly string[] | undefined;
}

export interface RepositoryMap {
  readonly text: string;
  /** Files in it, of all that are indexed. */
  readonly files: number;
  readonly ofFiles: number;
}

/** One file takes at most this share, so that a file of constants does not fill the map. */
const fileShare = 0.1;
const leastFileChars = 200;

export function repositoryMap(
  database: DatabaseSync,
  names: Names,
  { maxChars, focus = [] }: MapRequest,
): RepositoryMap {
  const paths = rankedPaths(database, importGraph(database), focus);
  const entries: { path: string; text: string }[] = [];
  let chars = 0;
  for (const path of paths) {
    const text = entryOf(path, names.outline(path), Math.max(leastFileChars, maxChars * fileShare));
    if (chars + text.length > maxChars) {
      if (chars > maxChars / 2) break;
      continue;
    }
    chars += text.length;
    entries.push({ path, text });
  }
  // By path, so that the map changes little from one question to the next and a prompt's beginning stays cached.
  entries.sort((a, b) => (a.path < b.path ? -1 : 1));
  return { text: entries.map(({ text }) => text).join(''), files: entries.length, ofFiles: paths.length };
}

/** Focus, then the most imported, then the least deep. */
function rankedPaths(database: DatabaseSync, { importers }: ImportGraph, focus: readonly string[]): string[] {
  const first = new Set(focus);
  const rows = database
    .prepare("SELECT path FROM files WHERE skipped = ''")
    .all()
    .map((row) => String(row['path']));
  const ranked = rows.map((path) => ({
    path,
    focused: first.has(path) ? 1 : 0,
    importers: importers.get(path) ?? 0,
    depth: path.split('/').length,
  }));
  ranked.sort(
    (a, b) => b.focused - a.focused || b.importers - a.importers || a.depth - b.depth || (a.path < b.path ? -1 : 1),
  );
  return ranked.map(({ path }) => path);
}

/** The path, then its outer names a line each, members behind their container. */
function entryOf(path: string, outline: readonly SymbolPlace[], maxChars: number): string {
  let text = `${path}\n`;
  for (const own of outline.filter(({ container }) => container === '')) {
    const members = outline.filter(({ container, kind }) => container === own.name && kind === 'method');
    const list = members.length > 0 ? `: ${members.map(({ name }) => name).join(', ')}` : '';
    const line = `  ${own.kind} ${own.name}${list}\n`;
    if (text.length + line.length > maxChars) return `${text}  …\n`;
    text += line;
  }
  return text;
}

// Which files import which: the names of imports resolved to files of the index, as far as names alone allow.

interface ImportGraph {
  /** By path: the files that it imports. */
  readonly imports: ReadonlyMap<string, ReadonlySet<string>>;
  /** By path: how many files import it. */
  readonly importers: ReadonlyMap<string, number>;
}

function importGraph(database: DatabaseSync): ImportGraph {
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
