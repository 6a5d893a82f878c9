/** Which paths stay out of the index: what git ignores, what the editor hides, and what is never source. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import ignore, { type Ignore } from 'ignore';

/** The repository of a version control system, and what package managers fetch: sources of others, by the ten thousand. */
const never = ['.git', '.hg', '.svn', '.jj', 'node_modules'];

/** As git is set up where file systems tell no case: `*.s` must leave out no `head.S` elsewhere (core.ignoreCase). */
const likeGit = { ignorecase: process.platform === 'darwin' || process.platform === 'win32' };

/** The rules of one folder and of those above it. Paths have `/` between their parts and none at the end. */
export class IgnoreRules {
  readonly #directory: string;
  readonly #excluded: Ignore;
  /** By folder, relative to the root and '' for the root itself. */
  readonly #byFolder = new Map<string, Ignore | undefined>();

  /** @param excludes globs as in VS Code's `files.exclude`. */
  constructor(directory: string, excludes: readonly string[]) {
    this.#directory = directory;
    this.#excluded = ignore(likeGit).add(never).add(excludes.flatMap(expandBraces).map(gitPattern));
  }

  /** Whether a path, its folders being looked at already, is left out. */
  ignores(path: string, isFolder: boolean): boolean {
    const suffix = isFolder ? '/' : '';
    if (this.#excluded.ignores(path + suffix)) return true;
    // A deeper .gitignore has the last word (gitignore(5), "Patterns are read from…").
    for (let folder = parentOf(path); folder !== undefined; folder = parentOf(folder)) {
      const rules = this.#rulesOf(folder);
      if (!rules) continue;
      const inside = folder === '' ? path : path.slice(folder.length + 1);
      const { ignored, unignored } = rules.test(inside + suffix);
      if (ignored || unignored) return ignored;
    }
    return false;
  }

  /** As `ignores`, for a path of which nothing is known: a folder above it may be left out. */
  ignoresAnywhere(path: string, isFolder: boolean): boolean {
    const parts = path.split('/');
    for (let i = 1; i < parts.length; i++) if (this.ignores(parts.slice(0, i).join('/'), true)) return true;
    return this.ignores(path, isFolder);
  }

  #rulesOf(folder: string): Ignore | undefined {
    if (this.#byFolder.has(folder)) return this.#byFolder.get(folder);
    const files = folder === '' ? ['.git/info/exclude', '.gitignore'] : ['.gitignore'];
    const text = files.map((name) => textOf(join(this.#directory, folder, name))).join('\n');
    const rules = text.trim() === '' ? undefined : ignore(likeGit).add(text);
    this.#byFolder.set(folder, rules);
    return rules;
  }
}

function parentOf(path: string): string | undefined {
  if (path === '') return undefined;
  const slash = path.lastIndexOf('/');
  return slash < 0 ? '' : path.slice(0, slash);
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Most folders have none.
    return '';
  }
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
