/** Where models lie on disk, and which texts may become names there. */
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { invalidInput } from '../errors.ts';
import { limits } from '../limits.ts';

/** 64 lower-case hexadecimal digits. */
export function isSha256(text: string): boolean {
  return /^[0-9a-f]{64}$/.test(text);
}

/** Windows gives these names to devices, with any extension. */
const deviceName = /^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)/i;

/**
 * One path component that means the same file on every platform: no separator, no drive, no stream, no device, no
 * hidden or relative name.
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
    throw invalidInput(`${JSON.stringify(name.slice(0, 80))} cannot be a file name in the model store.`);
  return name;
}

/** Folder of an installed model. A digest is the only text from outside that becomes a folder name (CVE-2024-37032). */
export function modelFolder(root: string, digest: string): string {
  if (!isSha256(digest)) throw invalidInput(`${JSON.stringify(digest.slice(0, 80))} is not a SHA-256 digest.`);
  return join(root, 'models', `sha256-${digest}`);
}

/** Folder of an unfinished download. */
export function downloadFolder(root: string, key: string): string {
  if (!isSha256(key)) throw invalidInput(`${JSON.stringify(key.slice(0, 80))} is not a SHA-256 digest.`);
  return join(root, 'downloads', key);
}

/** Sequences that were computed, of all models. */
export const snapshotDirectory = (root: string): string => join(root, 'sequences');

/** Digests of models that lie elsewhere. */
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

/** `$HEARTH_HOME`, else the platform's folder for data that can be fetched again. */
export function defaultStoreDirectory(environment: Environment = currentEnvironment()): string {
  const { platform, home, variables } = environment;
  const chosen = variables['HEARTH_HOME'];
  if (chosen) return chosen;
  if (platform === 'win32') return join(variables['LOCALAPPDATA'] ?? join(home, 'AppData', 'Local'), 'hearth');
  if (platform === 'darwin') return join(home, 'Library', 'Caches', 'hearth');
  const cache = variables['XDG_CACHE_HOME'];
  // The XDG base directory specification tells to ignore relative paths.
  return join(cache !== undefined && isAbsolute(cache) ? cache : join(home, '.cache'), 'hearth');
}
