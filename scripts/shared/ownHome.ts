/** An empty home folder for a test run, so that tests don't depend on files of the machine or an earlier run. */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from './paths.ts';

/** Cleared at the start of each run, including builds and results of the previous one. */
const ownFolder = join(projectRoot, '.cache');

/** Variables that programs use to find their folders, on every platform. */
const homes: Readonly<Record<string, string>> = {
  HOME: '',
  USERPROFILE: '',
  APPDATA: 'AppData/Roaming',
  LOCALAPPDATA: 'AppData/Local',
  XDG_CACHE_HOME: '.cache',
  XDG_CONFIG_HOME: '.config',
  XDG_DATA_HOME: '.local/share',
  XDG_STATE_HOME: '.local/state',
};
/** Variables to remove, because they point to the machine's own folders. */
const misleading = ['HEARTH_HOME', 'HEARTH_DEV_CACHE'];

/** Environment that makes a process use `home`. */
export const homeEnvironment = (home: string): Record<string, string | undefined> => ({
  ...Object.fromEntries(Object.entries(homes).map(([name, below]) => [name, join(home, below)])),
  ...Object.fromEntries(misleading.map((name) => [name, undefined])),
});

/** Gives this process and its children an empty home. npm keeps its package cache and user settings. */
export function moveToOwnHome(folder = ownFolder): void {
  rmSync(folder, { recursive: true, force: true });
  const home = join(folder, 'home');
  for (const [name, below] of Object.entries(homes)) {
    process.env[name] = join(home, below);
    mkdirSync(join(home, below), { recursive: true });
  }
  for (const name of misleading) delete process.env[name];
}

export function leaveOwnHome(): void {
  rmSync(join(ownFolder, 'home'), { recursive: true, force: true, maxRetries: 3 });
}
