/**
 * Downloads Mesa's drivers from Debian sid into a cache folder and runs them with their own dynamic loader, because stable
 * Debian's Mesa is too old for Dawn.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

const cache = (): string => process.env['HEARTH_DEV_CACHE'] ?? join(homedir(), '.cache', 'hearth', 'dev');
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** The reason why an adapter is not available. */
export class Unavailable extends Error {}

export function apt(...parameters: string[]): void {
  const { status } = spawnSync('apt-get', ['-qq', ...parameters], { stdio: ['ignore', 'ignore', 'inherit'] });
  if (status !== 0) throw new Unavailable(`apt-get ${parameters.at(-1)} failed; check the network.`);
}

export function requireDebianRoot(what: string): void {
  const debian = existsSync('/etc/debian_version') && existsSync('/usr/bin/apt-get');
  if (process.platform !== 'linux' || !debian || process.getuid?.() !== 0) {
    throw new Unavailable(`${what} can be installed automatically only on Debian as root.`);
  }
}

/** The mirror that apt is configured to use. */
function debianMirror(): string {
  const files = ['/etc/apt/sources.list', ...listDirectory('/etc/apt/sources.list.d')];
  const text = files
    .filter((file) => existsSync(file))
    .flatMap((file) => readFileSync(file, 'utf8').split('\n'))
    .filter((line) => !line.trimStart().startsWith('#'))
    .join('\n');
  const mirror = /https?:\/\/\S*\/debian(?=[\s/]|$)/.exec(text)?.[0];
  if (!mirror) throw new Unavailable("apt's sources contain no Debian mirror.");
  return mirror;
}

function listDirectory(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory).map((name) => join(directory, name)) : [];
}

/** Downloads and unpacks packages with their dependencies, without changing the system. */
function unpack(root: string, packages: readonly string[]): void {
  requireDebianRoot(`Mesa (Debian sid, ${packages.join(', ')})`);
  const work = `${root}.partial-${process.pid}`;
  rmSync(work, { recursive: true, force: true });
  for (const folder of ['state/lists/partial', 'cache/archives/partial', 'etc', 'root']) {
    mkdirSync(join(work, folder), { recursive: true });
  }
  writeFileSync(join(work, 'status'), '');
  writeFileSync(join(work, 'etc/sources.list'), `deb [signed-by=${keyring}] ${debianMirror()} sid main\n`);
  const options = [
    ['Dir::State', join(work, 'state')],
    ['Dir::State::status', join(work, 'status')],
    ['Dir::Cache', join(work, 'cache')],
    ['Dir::Etc::sourcelist', join(work, 'etc/sources.list')],
    ['Dir::Etc::sourceparts', '-'],
    ['APT::Sandbox::User', 'root'],
    // A mirror may be weeks old, so the expiry date is ignored; signatures are still verified.
    ['Acquire::Check-Valid-Until', 'false'],
  ].map(([name, value]) => `-o${name}=${value}`);
  apt(...options, 'update');
  apt(...options, 'install', '-y', '--no-install-recommends', '--download-only', ...packages);
  const archives = join(work, 'cache/archives');
  for (const name of readdirSync(archives).filter((file) => file.endsWith('.deb'))) {
    execFileSync('dpkg-deb', ['-x', join(archives, name), join(work, 'root')]);
  }
  mkdirSync(join(root, '..'), { recursive: true });
  rmSync(root, { recursive: true, force: true });
  renameSync(join(work, 'root'), root);
  rmSync(work, { recursive: true, force: true });
}

export interface Mesa {
  /** Folder of its libraries. */
  readonly libraries: string;
  readonly root: string;
  /** Command that starts a program with these libraries, with `preload` first. */
  launch(preload?: string): readonly string[];
}

/**
 * Mesa's Vulkan drivers, with the DRM shims that let a driver start without its card.
 * @throws Unavailable with the reason if they are not available.
 */
export function mesa(): Mesa {
  if (process.arch !== 'x64') throw new Unavailable('Mesa is set up for x86-64 only.');
  const root = join(cache(), 'mesa');
  const libraries = join(root, 'usr/lib/x86_64-linux-gnu');
  const loader = join(libraries, 'ld-linux-x86-64.so.2');
  if (!existsSync(loader)) unpack(root, ['mesa-vulkan-drivers', 'libvulkan1', 'mesa-drm-shim']);
  return {
    root,
    libraries,
    launch: (preload) => [
      loader,
      '--library-path',
      libraries,
      ...(preload ? ['--preload', join(libraries, preload)] : []),
      process.execPath,
    ],
  };
}
