/**
 * Reads from a repository's files which paths git ignores. Does not run git: it may be absent, and a repository's
 * configuration can make it run programs.
 */
import { lstatSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { limits } from '../../limits.ts';

type Environment = Readonly<Record<string, string | undefined>>;

export class GitRepository {
  /** Root of the working tree. */
  readonly top: string;
  readonly #gitFolder: string;
  readonly #commonFolder: string;
  readonly #environment: Environment;
  #settings: ReadonlyMap<string, string> | undefined;

  private constructor(top: string, gitFolder: string, environment: Environment) {
    this.top = top;
    this.#gitFolder = gitFolder;
    // A linked working tree shares rules and settings with the main one (gitrepository-layout(5), "commondir").
    const common = textOf(join(gitFolder, 'commondir')).trim();
    this.#commonFolder = common === '' ? gitFolder : resolve(gitFolder, common);
    this.#environment = environment;
  }

  /** The repository that contains the folder; undefined if there is none. */
  static around(directory: string, environment: Environment = process.env): GitRepository | undefined {
    for (let folder = resolve(directory); ; folder = dirname(folder)) {
      const found = gitFolderOf(folder);
      if (found !== undefined) return new GitRepository(folder, found, environment);
      if (folder === dirname(folder)) return undefined;
    }
  }

  /** Path of a folder below the top, with `/`; '' for the top. */
  pathOf(directory: string): string {
    return relative(this.top, resolve(directory)).split(sep).join('/');
  }

  /** Rules for all folders, the weakest first: the user's, and the repository's own. */
  get rules(): string {
    const file = this.#setting('core.excludesfile');
    const users = file === undefined ? join(this.#configFolder, 'ignore') : this.#expanded(file);
    return [textOf(users), textOf(join(this.#commonFolder, 'info', 'exclude'))].join('\n');
  }

  /** Undefined if not configured. */
  get ignoresCase(): boolean | undefined {
    const value = this.#setting('core.ignorecase')?.toLowerCase();
    return value === undefined ? undefined : ['true', 'yes', 'on', '1', ''].includes(value);
  }

  /** Paths relative to the top of the working tree. Empty if git's index cannot be read. */
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

  /** The last file with the setting wins: the system's, the user's, the repository's. */
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

/** `section.key` in lower case, and its value; ignores sections with a subsection name. */
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

/** Removes a comment after the value, quotes and escapes. */
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

// Reads the paths in git's index (gitformat-index(5)).

const signature = 'DIRC';
const headerBytes = 12;
/** Bytes of an entry before the object's digest: times, device, inode, mode, owner, size. */
const statBytes = 40;
const nameLengthMask = 0xfff;
const extendedFlag = 0x4000;

/**
 * The paths of all entries; none unless it is an index of version 2 to 4. If it is damaged, the paths before the
 * damage.
 */
function trackedPaths(index: Buffer, digestBytes: number): Set<string> {
  const paths = new Set<string>();
  if (index.length < headerBytes || index.toString('latin1', 0, 4) !== signature) return paths;
  const version = index.readUInt32BE(4);
  if (version < 2 || version > 4) return paths;
  const count = index.readUInt32BE(8);
  let at = headerBytes;
  let previous: Buffer = Buffer.alloc(0);
  for (let entry = 0; entry < count; entry++) {
    const start = at;
    const flagsAt = start + statBytes + digestBytes;
    if (flagsAt + 2 > index.length) break;
    const flags = index.readUInt16BE(flagsAt);
    at = flagsAt + ((flags & extendedFlag) === 0 ? 2 : 4);
    let kept = 0;
    if (version === 4) [kept, at] = keptBytes(index, at, previous.length);
    const end = index.indexOf(
      0,
      version < 4 && (flags & nameLengthMask) < nameLengthMask ? at + (flags & nameLengthMask) : at,
    );
    if (end < 0) break;
    const name = Buffer.concat([previous.subarray(0, kept), index.subarray(at, end)]);
    paths.add(name.toString('utf8'));
    previous = name;
    // Before version 4, an entry is padded with zeros to a multiple of eight bytes.
    at = version === 4 ? end + 1 : start + (Math.floor((end - start) / 8) + 1) * 8;
  }
  return paths;
}

/** In version 4: how many bytes of the previous path an entry keeps, and where its own part begins. */
function keptBytes(index: Buffer, at: number, previous: number): [kept: number, at: number] {
  // A variable-width number as in packs, where each further byte adds one (varint.c).
  let byte = index[at++] ?? 0;
  let dropped = byte & 0x7f;
  while ((byte & 0x80) !== 0 && at < index.length) {
    byte = index[at++] ?? 0;
    dropped = ((dropped + 1) << 7) | (byte & 0x7f);
  }
  return [Math.max(0, previous - dropped), at];
}
