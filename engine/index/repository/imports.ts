/** Which files import which: resolves import names to files of the index, as far as names alone allow. */
import type { DatabaseSync } from 'node:sqlite';
import { limits } from '../../limits.ts';

/** Number of files that import each path. */
export function importersOf(database: DatabaseSync): Map<string, number> {
  const files = new FileNames(database);
  const seen = new Set<string>();
  const importers = new Map<string, number>();
  const rows = database
    .prepare('SELECT path, target FROM imports JOIN files ON files.id = imports.file LIMIT ?')
    .all(limits.repository.imports);
  for (const row of rows) {
    const from = String(row['path']);
    for (const to of files.imported(from, String(row['target']))) {
      const edge = `${from}\n${to}`;
      if (to === from || seen.has(edge)) continue;
      seen.add(edge);
      importers.set(to, (importers.get(to) ?? 0) + 1);
    }
  }
  return importers;
}

/** Modules that Rust's `mod name;` declares, named as in `use`: the grammar's query finds only `use`. */
export function modulesOf(path: string, text: string): string[] {
  if (!path.endsWith('.rs')) return [];
  return [...text.matchAll(/^[ \t]*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;/gm)].map(([, name]) => `self::${name}`);
}

class FileNames {
  readonly #paths = new Set<string>();
  readonly #byStem = new Map<string, string[]>();
  /** Go's packages: their files by folder, without tests. */
  readonly #packages = new Map<string, string[]>();

  constructor(database: DatabaseSync) {
    const add = (map: Map<string, string[]>, key: string, path: string): void => {
      const paths = map.get(key);
      if (paths) paths.push(path);
      else map.set(key, [path]);
    };
    for (const row of database.prepare("SELECT path FROM files WHERE skipped = ''").iterate()) {
      const path = String(row['path']);
      this.#paths.add(path);
      add(this.#byStem, stemOf(path), path);
      if (path.endsWith('.go') && !path.endsWith('_test.go')) add(this.#packages, folderOf(path), path);
    }
  }

  imported(from: string, target: string): readonly string[] {
    if (from.endsWith('.go')) return this.#ofPackage(target);
    if (from.endsWith('.rs')) return alternatives(target).flatMap((path) => this.#ofModule(from, path) ?? []);
    const found = resolve(from, target, this.#byStem);
    return found === undefined ? [] : [found];
  }

  /** `example.com/module/a/b` is the folder `a/b`, wherever the module is; the module itself is the root. */
  #ofPackage(target: string): readonly string[] {
    const parts = target.replaceAll('"', '').split('/');
    // Imports of the standard library have no host.
    if (!parts[0]?.includes('.')) return [];
    for (let start = 1; start < parts.length; start++) {
      const found = this.#packages.get(parts.slice(start).join('/'));
      if (found) return found;
    }
    return [];
  }

  #ofModule(from: string, path: string): string | undefined {
    const parts = path.split('::').map((part) => part.trim());
    const folder = this.#folderOfModules(from, parts);
    if (folder === undefined) return undefined;
    // The last parts may be items of the module.
    for (let end = parts.length; end > 0; end--) {
      const base = [...folder, ...parts.slice(0, end)].join('/');
      const found = [`${base}.rs`, `${base}/mod.rs`].find((own) => this.#paths.has(own));
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** The folder where the rest of the path begins; removes the path's first parts. */
  #folderOfModules(from: string, parts: string[]): string[] | undefined {
    const [first] = parts;
    const folder = from.split('/').slice(0, -1);
    const name = stemName(from);
    const own = rootFiles.has(name) ? folder : [...folder, name];
    if (first === 'crate') {
      parts.shift();
      for (let depth = folder.length; depth >= 0; depth--) {
        const root = folder.slice(0, depth);
        if (['lib.rs', 'main.rs'].some((file) => this.#paths.has([...root, file].join('/')))) return root;
      }
      return undefined;
    }
    if (first !== 'self' && first !== 'super') return undefined;
    while (parts[0] === 'self' || parts[0] === 'super') if (parts.shift() === 'super') own.pop();
    return own;
  }
}

/** Files whose submodules are in the same folder. */
const rootFiles = new Set(['lib', 'main', 'mod', 'build']);
const folderOf = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf('/')));
const stemName = (path: string): string => path.slice(path.lastIndexOf('/') + 1).replace(/\.rs$/, '');

/** `a::{b, c::{d}}` is `a::b` and `a::c::d`. */
function alternatives(target: string): string[] {
  const plain = target.replaceAll(/\s+as\s+\w+/g, '').replaceAll(/\s+/g, '');
  const open = plain.indexOf('{');
  if (open < 0) return [plain];
  const inside = plain.slice(open + 1, plain.lastIndexOf('}'));
  const branches: string[] = [];
  let depth = 0;
  let branch = '';
  for (const char of `${inside},`) {
    if (char === '{') depth++;
    if (char === '}') depth--;
    if (char !== ',' || depth > 0) branch += char;
    else {
      branches.push(branch);
      branch = '';
    }
  }
  return branches.filter((own) => own !== '').flatMap((own) => alternatives(plain.slice(0, open) + own));
}

/** The last part of a path without its extension, or its folder's name for a file that represents its folder. */
function stemOf(path: string): string {
  const parts = withoutEnding(path).split('/');
  const last = parts.at(-1) ?? '';
  return folderFiles.has(last) ? (parts.at(-2) ?? last) : last;
}

const folderFiles = new Set(['index', '__init__', 'mod', 'lib', 'main']);
const withoutEnding = (path: string): string => path.replace(/\.[^./]*$/, '').replace(/\.d$/, '');

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
