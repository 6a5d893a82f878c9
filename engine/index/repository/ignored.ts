/** Which paths stay out of the index: what git ignores, what the editor hides, and what is never source. */
import { join } from 'node:path';
import ignore, { type Ignore } from 'ignore';
import { GitPatterns } from './gitPatterns.ts';
import { GitRepository, textOf } from './gitRepository.ts';

/** The repository of a version control system, and what package managers fetch: sources of others, by the ten thousand. */
const never = ['.git', '.hg', '.svn', '.jj', 'node_modules'];

/** As git is set up where file systems tell no case: `*.s` must leave out no `head.S` elsewhere (core.ignoreCase). */
const tellsNoCase = process.platform === 'darwin' || process.platform === 'win32';

/**
 * The rules of one folder, of those above it up to the top of its repository, and of the user. Paths are relative to the
 * folder, have `/` between their parts and none at the end.
 */
export class IgnoreRules {
  #repository: GitRepository | undefined;
  /** Where the rules of the outermost folder are, and the path from there to the folder. */
  #top: string;
  #below: string;
  readonly #excluded: Ignore;
  readonly #ignoresCase: boolean;
  /** By folder, relative to the top and '' for that itself. */
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
    // It is open, so it is wanted, though the repository around it leaves it out: only the rules in it count.
    this.#repository = undefined;
    this.#top = directory;
    this.#below = '';
    this.#byFolder.clear();
  }

  /** Whether a path is left out. A file that git tracks is not, whatever its rules say, nor is a folder that holds one. */
  ignores(path: string, isFolder: boolean): boolean {
    if (this.#excluded.ignores(path + (isFolder ? '/' : ''))) return true;
    const full = this.#below === '' ? path : `${this.#below}/${path}`;
    if (!this.#leavesOut(full, isFolder)) return false;
    this.#tracked ??= trackedIn(this.#repository);
    return !this.#tracked[isFolder ? 'folders' : 'files'].has(full);
  }

  /** As `ignores`, for a path of which nothing is known: the editor may hide a folder above it. */
  ignoresAnywhere(path: string, isFolder: boolean): boolean {
    const parts = path.split('/');
    for (let i = 1; i < parts.length; i++) if (this.ignores(parts.slice(0, i).join('/'), true)) return true;
    return this.ignores(path, isFolder);
  }

  /** By rules alone. What is in a folder that is left out is so, too. */
  #leavesOut(path: string, isFolder: boolean): boolean {
    if (!isFolder) return this.#decide(path, false);
    const known = this.#leftOut.get(path) ?? this.#decide(path, true);
    this.#leftOut.set(path, known);
    return known;
  }

  #decide(path: string, isFolder: boolean): boolean {
    const parent = parentOf(path);
    if (parent && this.#leavesOut(parent, true)) return true;
    // A deeper .gitignore has the last word (gitignore(5), "Patterns are read from…").
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
  /** That hold one of the files. */
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

/** VS Code's `{a,b}`, which git does not know. */
function expandBraces(glob: string): string[] {
  const group = /\{([^{}]*)\}/.exec(glob);
  if (!group) return [glob];
  const [whole, choices = ''] = group;
  return choices
    .split(',')
    .flatMap((choice) => expandBraces(glob.slice(0, group.index) + choice + glob.slice(group.index + whole.length)));
}

/** A glob of VS Code starts at the root; a pattern of git without a slash holds in every folder. */
const gitPattern = (glob: string): string => (glob.startsWith('/') || glob.startsWith('**/') ? glob : `/${glob}`);
