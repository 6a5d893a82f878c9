/** Paths of the model store, and validation of names from outside. */
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { invalidInput } from '../errors.ts';
import { limits } from '../limits.ts';

/** True for 64 lower-case hexadecimal digits. */
export function isSha256(text: string): boolean {
  return /^[0-9a-f]{64}$/.test(text);
}

/** Windows reserves these names for devices, with any extension. */
const deviceName = /^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)/i;

/**
 * True for one path component that names the same file on every platform: no separator, drive, stream, device, hidden or
 * relative name.
 */
export function isSafeFileName(name: string): boolean {
  return (
    name.length <= limits.store.fileNameChars &&
    /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) &&
    !name.endsWith('.') &&
    !deviceName.test(name)
  );
}

export function safeFileName(name: string): string {
  if (!isSafeFileName(name))
    throw invalidInput(`${JSON.stringify(name.slice(0, 80))} is not a valid file name in the model store.`);
  return name;
}

/** Folder of an installed model. Only a validated digest may become a folder name (CVE-2024-37032). */
export function modelFolder(root: string, digest: string): string {
  if (!isSha256(digest)) throw invalidInput(`${JSON.stringify(digest.slice(0, 80))} is not a SHA-256 digest.`);
  return join(root, 'models', `sha256-${digest}`);
}

/** Staging folder of an unfinished download. */
export function downloadFolder(root: string, key: string): string {
  if (!isSha256(key)) throw invalidInput(`${JSON.stringify(key.slice(0, 80))} is not a SHA-256 digest.`);
  return join(root, 'downloads', key);
}

/** Folder of KV-cache snapshots of all models. */
export const snapshotDirectory = (root: string): string => join(root, 'sequences');

/** Folder of files that are computed from models and named after their digests. */
export const derivedDirectory = (root: string): string => join(root, 'derived');

/** Folder of cached digests of models outside the store. */
export const digestDirectory = (root: string): string => join(root, 'digests');

export function lockFile(root: string, key: string): string {
  if (!isSha256(key)) throw invalidInput(`${JSON.stringify(key.slice(0, 80))} is not a SHA-256 digest.`);
  return join(root, 'locks', `${key}.lock`);
}

export interface Environment {
  readonly platform: NodeJS.Platform;
  readonly home: string;
  readonly variables: Readonly<Record<string, string | undefined>>;
}

const currentEnvironment = (): Environment => ({ platform: process.platform, home: homedir(), variables: process.env });

/** `$HEARTH_HOME`, or the platform's cache folder. */
export function defaultStoreDirectory(environment: Environment = currentEnvironment()): string {
  const { platform, home, variables } = environment;
  const chosen = variables['HEARTH_HOME'];
  if (chosen) return chosen;
  if (platform === 'win32') return join(variables['LOCALAPPDATA'] ?? join(home, 'AppData', 'Local'), 'hearth');
  if (platform === 'darwin') return join(home, 'Library', 'Caches', 'hearth');
  const cache = variables['XDG_CACHE_HOME'];
  // The XDG base directory specification says to ignore relative paths.
  return join(cache !== undefined && isAbsolute(cache) ? cache : join(home, '.cache'), 'hearth');
}
