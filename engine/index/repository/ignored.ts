/**
 * Decides which paths stay out of the index: those that git ignores, that the editor hides, or that are never sources.
 */

import { type Dirent, lstatSync, readdirSync, type Stats } from 'node:fs';
import { join } from 'node:path';
import ignore, { type Ignore } from 'ignore';
import { GitRepository, textOf } from './gitRepository.ts';

/**
 * Folders of version control systems, and of package managers, which contain tens of thousands of other projects'
 * files.
 */
const never = ['.git', '.hg', '.svn', '.jj', 'node_modules'];

/** Git's default where file systems ignore case. Elsewhere `*.s` must not exclude `head.S` (core.ignoreCase). */
const tellsNoCase = process.platform === 'darwin' || process.platform === 'win32';

/**
 * The rules of one folder, of the folders above it up to the top of its repository, and of the user. Paths are relative
 * to the folder, with `/` between parts and none at the end.
 */
export class IgnoreRules {
  #repository: GitRepository | undefined;
  /** The outermost folder with rules, and the path from there to the folder. */
  #top: string;
  #below: string;
  readonly #excluded: Ignore;
  readonly #ignoresCase: boolean;
  /** By folder, relative to the top; '' for the top. */
  readonly #byFolder = new Map<string, GitPatterns | undefined>();
  readonly #leftOut = new Map<string, boolean>();
  #tracked: Tracked | undefined;

  /** @param excludes globs as in VS Code's `files.exclude`. */
  constructor(directory: string, excludes: readonly string[]) {
    this.#repository = GitRepository.around(directory);
    this.#ignoresCase = this.#repository?.ignoresCase ?? tellsNoCase;
    const globs = excludes.flatMap(expandBraces).map(gitPattern);
    this.#excluded = ignore({ ignorecase: tellsNoCase }).add(never).add(globs);
    this.#top = this.#repository?.top ?? directory;
    this.#below = this.#repository?.pathOf(directory) ?? '';
    if (this.#below === '' || !this.#decide(this.#below, true)) return;
    // The surrounding repository ignores this folder, but the user opened it, so only the rules in it count.
    this.#repository = undefined;
    this.#top = directory;
    this.#below = '';
    this.#byFolder.clear();
  }

  /**
   * Whether a path is excluded. A file that git tracks never is, whatever the rules say, nor is a folder that contains
   * one.
   */
  ignores(path: string, isFolder: boolean): boolean {
    if (this.#excluded.ignores(path + (isFolder ? '/' : ''))) return true;
    const full = this.#below === '' ? path : `${this.#below}/${path}`;
    if (!this.#leavesOut(full, isFolder)) return false;
    this.#tracked ??= trackedIn(this.#repository);
    return !this.#tracked[isFolder ? 'folders' : 'files'].has(full);
  }

  /** Like `ignores`, but also checks the folders above, which the editor may hide. */
  ignoresAnywhere(path: string, isFolder: boolean): boolean {
    const parts = path.split('/');
    for (let i = 1; i < parts.length; i++) if (this.ignores(parts.slice(0, i).join('/'), true)) return true;
    return this.ignores(path, isFolder);
  }

  /** By rules alone. Everything in an excluded folder is excluded. */
  #leavesOut(path: string, isFolder: boolean): boolean {
    if (!isFolder) return this.#decide(path, false);
    const known = this.#leftOut.get(path) ?? this.#decide(path, true);
    this.#leftOut.set(path, known);
    return known;
  }

  #decide(path: string, isFolder: boolean): boolean {
    const parent = parentOf(path);
    if (parent && this.#leavesOut(parent, true)) return true;
    // A deeper .gitignore takes precedence (gitignore(5), "Patterns are read from…").
    for (let folder = parent; folder !== undefined; folder = parentOf(folder)) {
      const rules = this.#rulesOf(folder);
      if (!rules) continue;
      const inside = folder === '' ? path : path.slice(folder.length + 1);
      const verdict = rules.verdict(inside, isFolder);
      if (verdict !== undefined) return verdict === 'ignored';
    }
    return false;
  }

  #rulesOf(folder: string): GitPatterns | undefined {
    if (this.#byFolder.has(folder)) return this.#byFolder.get(folder);
    const own = textOf(join(this.#top, folder, '.gitignore'));
    const text = folder === '' && this.#repository ? `${this.#repository.rules}\n${own}` : own;
    const patterns = new GitPatterns(text, this.#ignoresCase);
    const rules = patterns.isEmpty ? undefined : patterns;
    this.#byFolder.set(folder, rules);
    return rules;
  }
}

interface Tracked {
  readonly files: ReadonlySet<string>;
  /** The folders that contain one of the files. */
  readonly folders: ReadonlySet<string>;
}

function trackedIn(repository: GitRepository | undefined): Tracked {
  const files = repository?.tracked() ?? new Set<string>();
  const folders = new Set<string>();
  for (const file of files) {
    for (let folder = parentOf(file); folder && !folders.has(folder); folder = parentOf(folder)) folders.add(folder);
  }
  return { files, folders };
}

function parentOf(path: string): string | undefined {
  if (path === '') return undefined;
  const slash = path.lastIndexOf('/');
  return slash < 0 ? '' : path.slice(0, slash);
}

/** Expands VS Code's `{a,b}`, which git does not have. */
function expandBraces(glob: string): string[] {
  const group = /\{([^{}]*)\}/.exec(glob);
  if (!group) return [glob];
  const [whole, choices = ''] = group;
  return choices
    .split(',')
    .flatMap((choice) => expandBraces(glob.slice(0, group.index) + choice + glob.slice(group.index + whole.length)));
}

/** A VS Code glob starts at the root; a git pattern without a slash applies in every folder. */
const gitPattern = (glob: string): string => (glob.startsWith('/') || glob.startsWith('**/') ? glob : `/${glob}`);

// Patterns of git (gitignore(5), wildmatch.c). A pattern is matched against one path alone, as in git. Libraries also
// match the folders above, although a rule in a deeper folder may have negated those.

type Verdict = 'ignored' | 'taken back' | undefined;

interface Pattern {
  readonly takesBack: boolean;
  readonly foldersOnly: boolean;
  /** Matches a path relative to the pattern's file, or its last part. */
  readonly matches: (path: string) => boolean;
}

/** The patterns of one file, or of several files that apply to one folder. */
class GitPatterns {
  /** The last one that matches decides. */
  readonly #backwards: readonly Pattern[];

  constructor(text: string, ignoresCase: boolean) {
    this.#backwards = bytes(text)
      .split(/\r?\n/)
      .flatMap((line) => patternOf(line, ignoresCase))
      .reverse();
  }

  get isEmpty(): boolean {
    return this.#backwards.length === 0;
  }

  verdict(path: string, isFolder: boolean): Verdict {
    const written = bytes(path);
    const found = this.#backwards.find(({ foldersOnly, matches }) => (isFolder || !foldersOnly) && matches(written));
    if (found === undefined) return undefined;
    return found.takesBack ? 'taken back' : 'ignored';
  }
}

/** Git matches bytes: `?` matches one of the two bytes of `ü`. */
const bytes = (text: string): string =>
  /[^\p{ASCII}]/u.test(text) ? Buffer.from(text, 'utf8').toString('latin1') : text;

function patternOf(line: string, ignoresCase: boolean): Pattern[] {
  if (line.startsWith('#')) return [];
  // Trailing blanks count only after a backslash.
  const trimmed = line.replace(/((?:\\.|[^\\ ])?) +$/, '$1');
  const takesBack = trimmed.startsWith('!');
  const written = takesBack ? trimmed.slice(1) : trimmed;
  const foldersOnly = written.endsWith('/');
  const body = foldersOnly ? written.slice(0, -1) : written;
  if (body === '') return [];
  const source = sourceOf(body.replace(/^\//, ''));
  if (source === undefined) return [];
  const pattern = new RegExp(`^${source}$`, ignoresCase ? 'is' : 's');
  const ofWholePath = body.includes('/');
  const matches = (path: string) => pattern.test(ofWholePath ? path : path.slice(path.lastIndexOf('/') + 1));
  return [{ takesBack, foldersOnly, matches }];
}

/** A regular expression; undefined if the glob matches nothing (an unclosed class, a backslash at the end). */
function sourceOf(glob: string): string | undefined {
  let source = '';
  for (let at = 0; at < glob.length; ) {
    const rest = glob.slice(at);
    const stars = /^\*+/.exec(rest)?.[0].length ?? 0;
    if (stars > 0) {
      const [piece, taken] = starsOf(glob, at, stars);
      source += piece;
      at += taken;
    } else if (rest.startsWith('?')) {
      source += '[^/]';
      at += 1;
    } else if (rest.startsWith('[')) {
      const set = classOf(rest);
      if (set === undefined) return undefined;
      source += set.source;
      at += set.length;
    } else {
      const isEscaped = rest.startsWith('\\');
      const char = rest.charAt(Number(isEscaped));
      if (isEscaped && rest.length === 1) return undefined;
      source += escaped(char);
      at += char.length + Number(isEscaped);
    }
  }
  return source;
}

/** Two stars between slashes or ends cross folders; other stars don't. */
function starsOf(glob: string, at: number, stars: number): [source: string, taken: number] {
  const opens = at === 0 || glob.charAt(at - 1) === '/';
  const after = glob.charAt(at + stars);
  if (stars < 2 || !opens || (after !== '' && after !== '/')) return ['[^/]*', stars];
  return after === '/' ? ['(?:.*/)?', stars + 1] : [at === 0 ? '.*' : '.+', stars];
}

const posix: Readonly<Record<string, string>> = {
  ...{ alpha: 'a-zA-Z', digit: '0-9', alnum: 'a-zA-Z0-9', upper: 'A-Z', lower: 'a-z', xdigit: '0-9a-fA-F' },
  ...{ space: String.raw`\s`, blank: String.raw` \t`, punct: String.raw`!-\/:-@\[-\x60\{-~` },
};

function classOf(text: string): { source: string; length: number } | undefined {
  const match = /^\[([!^]?)(\]?(?:\[:[a-z]+:\]|\\.|[^\]\\])*)\]/s.exec(text);
  if (match === null) return undefined;
  const [whole, negation = '', inside = ''] = match;
  const items = inside.match(/\[:[a-z]+:\]|\\.|./gs) ?? [];
  const written = items.map((item, index) => {
    if (item.startsWith('[:')) return posix[item.slice(2, -2)] ?? '';
    const isRange = item === '-' && index > 0 && index < items.length - 1;
    return isRange ? '-' : escapedInClass(item.replace(/^\\(?=.)/s, ''));
  });
  // A class never matches a slash.
  return { source: `(?!/)[${negation === '' ? '' : '^'}${written.join('')}]`, length: whole.length };
}

const escaped = (char: string): string => (/[\\^$.*+?()[\]{}|/]/.test(char) ? `\\${char}` : char);
const escapedInClass = (char: string): string => (/[\\\]^[-]/.test(char) ? `\\${char}` : char);

// Finds the files of a folder that belong in the index.

export interface FoundFile {
  /** Relative to the folder, with `/`. */
  readonly path: string;
  readonly bytes: number;
  readonly modifiedMs: number;
}

/**
 * Yields the files folder by folder, those of `from` first. Doesn't follow links, which may lead outside or form a
 * cycle.
 */
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

/** Undefined if there is no such file; links don't count. */
export function fileAt(directory: string, path: string): FoundFile | undefined {
  const stats = statsOf(join(directory, path));
  return stats?.isFile() ? { path, bytes: stats.size, modifiedMs: stats.mtimeMs } : undefined;
}

export const isFolder = (path: string): boolean => statsOf(path)?.isDirectory() ?? false;

/** Whether one of the folders on a path is a link. */
export function leadsThroughLink(directory: string, path: string): boolean {
  const parts = path.split('/').slice(0, -1);
  return parts.some((_, i) => statsOf(join(directory, ...parts.slice(0, i + 1)))?.isSymbolicLink() ?? false);
}

function statsOf(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch {
    // A part of the path is a file, or not accessible.
    return undefined;
  }
}

function entriesOf(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch {
    // Deleted in the meantime, or not readable.
    return [];
  }
}

// The folders that are indexed together, and the names of paths in them.

export interface Folder {
  /** Prefix of its paths, before a slash; '' if it is the only folder. */
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

  /** Undefined for a path that leads out of its folder or is in none. */
  locate(path: string): { readonly root: Root; readonly inside: string } | undefined {
    const root = this.all.find(({ prefix }) => path.startsWith(prefix));
    const inside = root && path.slice(root.prefix.length);
    if (!root || inside === undefined || inside === '' || inside.split('/').includes('..')) return undefined;
    return { root, inside };
  }

  /** The rules are read from disk again. */
  forgetRules(): void {
    this.#rules.clear();
  }
}
