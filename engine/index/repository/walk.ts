/** The files of a folder that belong into the index. */
import { type Dirent, lstatSync, readdirSync, type Stats } from 'node:fs';
import { join } from 'node:path';
import { IgnoreRules } from './ignored.ts';

export interface FoundFile {
  /** Relative to the folder, with `/`. */
  readonly path: string;
  readonly bytes: number;
  readonly modifiedMs: number;
}

/** The files of one folder after the other, those of `from` first. Links are not followed: they may lead out, or round. */
export function* walk(directory: string, rules: IgnoreRules, from = ''): Generator<FoundFile[]> {
  const folders = [from];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    const files: FoundFile[] = [];
    for (const entry of entriesOf(join(directory, folder))) {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
      const isFolder = entry.isDirectory();
      if ((!isFolder && !entry.isFile()) || rules.ignores(path, isFolder)) continue;
      if (isFolder) folders.push(path);
      else {
        const found = fileAt(directory, path);
        if (found) files.push(found);
      }
    }
    yield files;
  }
}

/** Undefined where there is no such file; a link is none. */
export function fileAt(directory: string, path: string): FoundFile | undefined {
  const stats = statsOf(join(directory, path));
  return stats?.isFile() ? { path, bytes: stats.size, modifiedMs: stats.mtimeMs } : undefined;
}

export const isFolder = (path: string): boolean => statsOf(path)?.isDirectory() ?? false;

/** Whether a link is among the folders that a path leads through. */
export function leadsThroughLink(directory: string, path: string): boolean {
  const parts = path.split('/').slice(0, -1);
  return parts.some((_, i) => statsOf(join(directory, ...parts.slice(0, i + 1)))?.isSymbolicLink() ?? false);
}

function statsOf(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch {
    // A part of the path is a file, or not ours to look into.
    return undefined;
  }
}

function entriesOf(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch {
    // Gone meanwhile, or not ours to read.
    return [];
  }
}

// The folders that are indexed together, and how paths in them are named.

export interface Folder {
  /** '' where it is the only one; else what its paths begin with, before a slash. */
  readonly name: string;
  /** Absolute. */
  readonly directory: string;
}

export interface Root {
  /** `name/`, or ''. */
  readonly prefix: string;
  readonly directory: string;
  readonly rules: () => IgnoreRules;
}

export class Roots {
  readonly all: readonly Root[];
  readonly #rules = new Map<string, IgnoreRules>();

  constructor(folders: readonly Folder[], excludes: readonly string[]) {
    this.all = folders.map(({ name, directory }) => ({
      prefix: name === '' ? '' : `${name}/`,
      directory,
      rules: () => {
        const rules = this.#rules.get(directory) ?? new IgnoreRules(directory, excludes);
        this.#rules.set(directory, rules);
        return rules;
      },
    }));
  }

  /** Undefined for a path that leads out of its folder, or into none. */
  locate(path: string): { readonly root: Root; readonly inside: string } | undefined {
    const root = this.all.find(({ prefix }) => path.startsWith(prefix));
    const inside = root && path.slice(root.prefix.length);
    if (!root || inside === undefined || inside === '' || inside.split('/').includes('..')) return undefined;
    return { root, inside };
  }

  /** They are read from disk again. */
  forgetRules(): void {
    this.#rules.clear();
  }
}
