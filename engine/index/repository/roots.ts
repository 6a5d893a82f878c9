/** The folders that are indexed together, and how paths in them are named. */
import { IgnoreRules } from './ignored.ts';

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
