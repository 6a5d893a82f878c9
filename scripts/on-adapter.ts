/**
 * Runs a Node program on a software GPU:
 *
 *     node scripts/on-adapter.ts swiftshader|lavapipe PROGRAM.mjs [ARGUMENTS…]
 *
 * SwiftShader (subgroups of 4, no f16) comes with Debian's chromium. Mesa's lavapipe (subgroups of 8, f16, subgroup
 * matrices) is taken from Debian sid's packages, unpacked into a cache folder beside the system and run through its own
 * dynamic loader, since a stable Debian's Mesa is too old for Dawn. Exit status 77: the adapter is not to be had here,
 * and the reason is printed.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

export const adapters = ['swiftshader', 'lavapipe'] as const;
export type Adapter = (typeof adapters)[number];

/** How to start Node so that Dawn finds this adapter and no other. */
export interface AdapterLaunch {
  readonly command: readonly string[];
  readonly env: Record<string, string>;
}

const cache = (): string => process.env['HEARTH_DEV_CACHE'] ?? join(homedir(), '.cache', 'hearth', 'dev');
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** Why this machine cannot have an adapter. */
export class Unavailable extends Error {}

function apt(...parameters: string[]): void {
  const { status } = spawnSync('apt-get', ['-qq', ...parameters], { stdio: ['ignore', 'ignore', 'inherit'] });
  if (status !== 0) throw new Unavailable(`apt-get ${parameters.at(-1)} failed; is the network there?`);
}

function requireDebianRoot(what: string): void {
  const debian = existsSync('/etc/debian_version') && existsSync('/usr/bin/apt-get');
  if (process.platform !== 'linux' || !debian || process.getuid?.() !== 0) {
    throw new Unavailable(`${what} is installed by itself only on Debian as root.`);
  }
}

function swiftshader(): AdapterLaunch {
  const icd = '/usr/lib/chromium/vk_swiftshader_icd.json';
  if (!existsSync(icd) || !existsSync('/usr/lib/x86_64-linux-gnu/libvulkan.so.1')) {
    requireDebianRoot('SwiftShader (packages chromium and libvulkan1)');
    apt('update');
    apt('install', '-y', '--no-install-recommends', 'chromium', 'libvulkan1');
  }
  return { command: [process.execPath], env: { VK_ICD_FILENAMES: icd } };
}

/** The mirror that apt already uses, so that no host is named here. */
function debianMirror(): string {
  const files = ['/etc/apt/sources.list', ...listDirectory('/etc/apt/sources.list.d')];
  const text = files
    .filter((file) => existsSync(file))
    .flatMap((file) => readFileSync(file, 'utf8').split('\n'))
    .filter((line) => !line.trimStart().startsWith('#'))
    .join('\n');
  const mirror = /https?:\/\/\S*\/debian(?=[\s/]|$)/.exec(text)?.[0];
  if (!mirror) throw new Unavailable('No Debian mirror stands in the sources of apt.');
  return mirror;
}

function listDirectory(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory).map((name) => join(directory, name)) : [];
}

/** Downloads Mesa's Vulkan drivers with everything they need and unpacks them, touching nothing of the system. */
function unpackLavapipe(root: string): void {
  requireDebianRoot('Lavapipe (Debian sid, package mesa-vulkan-drivers)');
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
    // A mirror may be a copy of some weeks ago; what it signed is checked all the same.
    ['Acquire::Check-Valid-Until', 'false'],
  ].map(([name, value]) => `-o${name}=${value}`);
  apt(...options, 'update');
  apt(...options, 'install', '-y', '--no-install-recommends', '--download-only', 'mesa-vulkan-drivers', 'libvulkan1');
  const archives = join(work, 'cache/archives');
  for (const name of readdirSync(archives).filter((file) => file.endsWith('.deb'))) {
    execFileSync('dpkg-deb', ['-x', join(archives, name), join(work, 'root')]);
  }
  mkdirSync(join(root, '..'), { recursive: true });
  rmSync(root, { recursive: true, force: true });
  renameSync(join(work, 'root'), root);
  rmSync(work, { recursive: true, force: true });
}

function lavapipe(): AdapterLaunch {
  if (process.arch !== 'x64') throw new Unavailable('Lavapipe is set up for x86-64 only.');
  const root = join(cache(), 'lavapipe');
  const libraries = join(root, 'usr/lib/x86_64-linux-gnu');
  const loader = join(libraries, 'ld-linux-x86-64.so.2');
  const icd = join(root, 'usr/share/vulkan/icd.d/lvp_icd.json');
  if (!existsSync(loader) || !existsSync(icd)) unpackLavapipe(root);
  return {
    command: [loader, '--library-path', libraries, process.execPath],
    env: { VK_ICD_FILENAMES: icd },
  };
}

/** @throws Unavailable with the reason when this machine cannot have the adapter. */
export function adapterLaunch(adapter: Adapter): AdapterLaunch {
  return adapter === 'swiftshader' ? swiftshader() : lavapipe();
}

function main(): number {
  const [name, program, ...rest] = process.argv.slice(2);
  if ((name !== 'swiftshader' && name !== 'lavapipe') || program === undefined) {
    console.error('usage: node scripts/on-adapter.ts swiftshader|lavapipe PROGRAM.mjs [ARGUMENTS…]');
    return 2;
  }
  try {
    const { command, env } = adapterLaunch(name);
    const [executable = process.execPath, ...before] = command;
    const child = spawnSync(executable, [...before, program, ...rest], {
      stdio: 'inherit',
      env: { ...process.env, ...env, HEARTH_TEST_ADAPTER: name },
    });
    return child.status ?? 1;
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
    console.log(`SKIPPED ${name}: ${error.message}`);
    return 77;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) process.exitCode = main();
