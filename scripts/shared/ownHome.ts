/** A home for one run of all tests, so that no run lives on what the machine or an earlier run has. */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from './paths.ts';

/** Emptied at the start of each run: the builds and results of the one before are among it. */
const ownFolder = join(projectRoot, '.cache');

/** Where programs look for what is theirs, on every platform. */
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
/** They would lead back to what the machine has. */
const misleading = ['HEARTH_HOME', 'HEARTH_DEV_CACHE'];

/** What has a process find `home` as its own. */
export const homeEnvironment = (home: string): Record<string, string | undefined> => ({
  ...Object.fromEntries(Object.entries(homes).map(([name, below]) => [name, join(home, below)])),
  ...Object.fromEntries(misleading.map((name) => [name, undefined])),
});

/** Gives this process, and with it all that it starts, an empty home. npm keeps its cache of packages and its user's settings. */
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
