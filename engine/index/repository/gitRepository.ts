/**
 * What a repository's own files say about which paths git ignores. Git itself is not run: it may be absent, and a
 * repository's configuration can make it run programs.
 */
import { lstatSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { limits } from '../../limits.ts';
import { trackedPaths } from './gitIndex.ts';

type Environment = Readonly<Record<string, string | undefined>>;

export class GitRepository {
  /** Where the working tree begins. */
  readonly top: string;
  readonly #gitFolder: string;
  readonly #commonFolder: string;
  readonly #environment: Environment;
  #settings: ReadonlyMap<string, string> | undefined;

  private constructor(top: string, gitFolder: string, environment: Environment) {
    this.top = top;
    this.#gitFolder = gitFolder;
    // A further working tree shares rules and settings with the first (gitrepository-layout(5), "commondir").
    const common = textOf(join(gitFolder, 'commondir')).trim();
    this.#commonFolder = common === '' ? gitFolder : resolve(gitFolder, common);
    this.#environment = environment;
  }

  /** The repository that a folder is in, or is the top of; undefined: none. */
  static around(directory: string, environment: Environment = process.env): GitRepository | undefined {
    for (let folder = resolve(directory); ; folder = dirname(folder)) {
      const found = gitFolderOf(folder);
      if (found !== undefined) return new GitRepository(folder, found, environment);
      if (folder === dirname(folder)) return undefined;
    }
  }

  /** Of a folder below the top, with `/`; '' for the top. */
  pathOf(directory: string): string {
    return relative(this.top, resolve(directory)).split(sep).join('/');
  }

  /** Rules for all folders, the weakest first: the user's, and the repository's own. */
  get rules(): string {
    const file = this.#setting('core.excludesfile');
    const users = file === undefined ? join(this.#configFolder, 'ignore') : this.#expanded(file);
    return [textOf(users), textOf(join(this.#commonFolder, 'info', 'exclude'))].join('\n');
  }

  /** Undefined: it is not said. */
  get ignoresCase(): boolean | undefined {
    const value = this.#setting('core.ignorecase')?.toLowerCase();
    return value === undefined ? undefined : ['true', 'yes', 'on', '1', ''].includes(value);
  }

  /** Of the working tree, relative to its top. Empty where git's index cannot be read. */
  tracked(): ReadonlySet<string> {
    const bytes = bytesOf(join(this.#gitFolder, 'index'));
    const digestBytes = this.#setting('extensions.objectformat') === 'sha256' ? 32 : 20;
    return bytes === undefined ? new Set() : trackedPaths(bytes, digestBytes);
  }

  get #home(): string {
    return this.#environment['HOME'] ?? homedir();
  }

  get #configFolder(): string {
    return join(this.#environment['XDG_CONFIG_HOME'] || join(this.#home, '.config'), 'git');
  }

  #expanded(path: string): string {
    return path.startsWith('~/') ? join(this.#home, path.slice(2)) : resolve(this.top, path);
  }

  /** The last file that says it counts: of the system, of the user, of the repository. */
  #setting(name: string): string | undefined {
    this.#settings ??= new Map(this.#configFiles().flatMap((path) => settingsIn(textOf(path))));
    return this.#settings.get(name);
  }

  #configFiles(): string[] {
    const { GIT_CONFIG_SYSTEM: system, GIT_CONFIG_GLOBAL: global, GIT_CONFIG_NOSYSTEM: none } = this.#environment;
    const users =
      global === undefined ? [join(this.#configFolder, 'config'), join(this.#home, '.gitconfig')] : [global];
    return [...(none ? [] : [system ?? '/etc/gitconfig']), ...users, join(this.#commonFolder, 'config')];
  }
}

/** `.git` is a folder, or a file that names one (worktrees, submodules). */
function gitFolderOf(folder: string): string | undefined {
  const path = join(folder, '.git');
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats?.isDirectory()) return path;
  const named = stats?.isFile() ? /^gitdir: (.+)/.exec(textOf(path))?.[1] : undefined;
  return named === undefined ? undefined : resolve(folder, named.trim());
}

/** `section.key` in lower case, and its value; sections with a name of their own are not looked at. */
function settingsIn(text: string): [string, string][] {
  const settings: [string, string][] = [];
  let section = '';
  for (const line of text.replaceAll(/\\\r?\n/g, '').split(/\r?\n/)) {
    const head = /^\s*\[\s*([^\]\s"]+)\s*("[^"]*")?\s*\](.*)$/.exec(line);
    if (head !== null) section = head[2] === undefined ? (head[1] ?? '').toLowerCase() : '';
    const [, key, value] = /^\s*([A-Za-z][\w-]*)\s*(?:=\s*(.*))?$/.exec(head?.[3] ?? line) ?? [];
    if (key !== undefined && section !== '') settings.push([`${section}.${key.toLowerCase()}`, unquoted(value ?? '')]);
  }
  return settings;
}

/** Without a comment behind it, quotes and escapes. */
function unquoted(written: string): string {
  const parts = written.matchAll(/"((?:[^"\\]|\\.)*)"|([^"#;\\]+|\\.)|([#;].*)/g);
  return [...parts]
    .map(([, quoted, bare = '']) => (quoted ?? bare).replaceAll(/\\(.)/g, '$1'))
    .join('')
    .trim();
}

function bytesOf(path: string): Buffer | undefined {
  try {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    return stats !== undefined && stats.size <= limits.repository.gitFileBytes ? readFileSync(path) : undefined;
  } catch {
    // Most folders have none of these files.
    return undefined;
  }
}

/** Rules may begin with a byte-order mark, which git skips. */
export function textOf(path: string): string {
  return (bytesOf(path)?.toString('utf8') ?? '').replace(/^\ufeff/, '');
}
