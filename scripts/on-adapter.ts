/**
 * Runs a Node program on a software GPU:
 *
 *     node scripts/on-adapter.ts swiftshader|lavapipe PROGRAM.mjs [ARGUMENTS…]
 *
 * SwiftShader (subgroups of 4, no f16) comes from Debian's chromium package. Mesa's lavapipe (subgroups of 8, f16, subgroup
 * matrices) comes from Debian sid (shared/mesa.ts). Exit status 77: the adapter is not available; the reason is printed.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { apt, mesa, requireDebianRoot, Unavailable } from './shared/mesa.ts';

export { Unavailable };

export const adapters = ['swiftshader', 'lavapipe'] as const;
export type Adapter = (typeof adapters)[number];

/** Command and environment that make Dawn find only this adapter. */
export interface AdapterLaunch {
  readonly command: readonly string[];
  readonly env: Record<string, string>;
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

function lavapipe(): AdapterLaunch {
  const { root, launch } = mesa();
  return { command: launch(), env: { VK_ICD_FILENAMES: join(root, 'usr/share/vulkan/icd.d/lvp_icd.json') } };
}

/** @throws Unavailable with the reason if the adapter is not available. */
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
