/** Paths of the model store, and validation of names from outside. */

import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { link, mkdir, open, readFile, rename, rm, stat, statfs, utimes, writeFile } from 'node:fs/promises';
import { homedir, hostname } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { z } from 'zod';
import { cancelled, HearthError, invalidInput, places, showBytes, throwIfAborted } from '../errors.ts';
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

// Crash-safe disk operations: an interrupted write leaves either the old or the new state. Also progress reports.

export function errorCode(error: unknown): string | undefined {
  const code = error instanceof Error ? Reflect.get(error, 'code') : undefined;
  return typeof code === 'string' ? code : undefined;
}

/** Size of a regular file, or undefined if there is none. */
export async function fileBytes(path: string): Promise<number | undefined> {
  try {
    const status = await stat(path);
    return status.isFile() ? status.size : undefined;
  } catch (error) {
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}

/** Atomically replaces the file at `path`. */
export async function writeJson(path: string, value: unknown): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    const handle = await open(temporary, 'wx');
    try {
      await handle.writeFile(`${JSON.stringify(value, null, 2)}\n`);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw diskError(error, path);
  }
  await syncFolder(dirname(path));
}

/** Reads JSON of at most `maxBytes`. Returns undefined if the file is missing or not JSON. */
export async function readJson(path: string, maxBytes: number = limits.store.manifestBytes): Promise<unknown> {
  const bytes = await fileBytes(path);
  if (bytes === undefined || bytes > maxBytes) return undefined;
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    if (error instanceof SyntaxError || errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Syncs `folder` so that renames in it survive a power cut. Windows has no such call. */
export async function syncFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return;
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

interface HashOptions {
  readonly algorithm?: 'sha256' | 'sha1';
  /** Hashed before the file. */
  readonly prefix?: string;
  readonly signal?: AbortSignal | undefined;
  readonly onBytes?: ((bytes: number) => void) | undefined;
}

/** Streams a file through a hash. Returns hexadecimal digits. */
export async function hashFile(path: string, options: HashOptions = {}): Promise<string> {
  const hash = createHash(options.algorithm ?? 'sha256');
  if (options.prefix !== undefined) hash.update(options.prefix);
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
    throwIfAborted(options.signal);
    hash.update(chunk);
    options.onBytes?.(chunk.length);
  }
  return hash.digest('hex');
}

interface SpaceNeed {
  /** Purpose, as in "98 MB for the download". */
  readonly what: string;
  readonly bytes: number;
}

/** @throws DiskFull if `folder`'s disk has no room for all of them and the reserve. */
export async function requireSpace(folder: string, needs: readonly SpaceNeed[]): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const { diskReserveBytes } = limits.store;
  const freeBytes = bavail * bsize;
  const neededBytes = needs.reduce((sum, { bytes }) => sum + bytes, 0);
  const missingBytes = neededBytes + diskReserveBytes - freeBytes;
  if (missingBytes <= 0) return;
  const parts = needs.filter(({ bytes }) => bytes > 0).map(({ what, bytes }) => `${showBytes(bytes)} for ${what}`);
  throw new DiskFull(
    `The disk of ${folder} is too full: ${parts.join(' and ')} are needed, and ${showBytes(diskReserveBytes)} stay free ` +
      `for other programs, but ${showBytes(freeBytes)} are free. Downloaded data is kept. ` +
      `Free ${showBytes(missingBytes)}, or ${places().folder}.`,
  );
}

/** Stops a download: trying another source does not help. */
export class DiskFull extends HearthError {
  constructor(message: string, options?: ErrorOptions) {
    super('unavailable', message, options);
    this.name = 'DiskFull';
  }
}

/** Converts a file system error into a typed error with a message for the user. */
export function diskError(error: unknown, path: string): unknown {
  const code = errorCode(error);
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    const message = `Could not write ${path}: the disk is full. Downloaded data is kept. Free some space and try again.`;
    return new DiskFull(message, { cause: error });
  }
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS' || code === 'ENOTDIR' || code === 'EEXIST') {
    const message = `Could not write ${path} (${code}). Change the folder's permissions, or ${places().folder}.`;
    return new DiskFull(message, { cause: error });
  }
  return error;
}

/** Progress of a download, import or verification. */
export interface StoreProgress {
  /** `waiting`: another process is downloading the same model. */
  readonly phase: 'waiting' | 'download' | 'extract' | 'verify' | 'copy';
  readonly source: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface WorkOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: StoreProgress) => void) | undefined;
}

/** At most ten reports a second. */
const progressIntervalMs = 100;

export function reporter(source: string, onProgress: WorkOptions['onProgress']) {
  let last = Number.NEGATIVE_INFINITY;
  return (phase: StoreProgress['phase'], doneBytes: number, totalBytes: number): void => {
    const now = performance.now();
    if (now - last < progressIntervalMs && doneBytes < totalBytes) return;
    last = now;
    onProgress?.({ phase, source, doneBytes, totalBytes });
  };
}

// A lock between processes that share a store, such as two VS Code windows and the command line. The lock is a file created
// exclusively. Its holder touches it regularly; a lock whose holder died is taken over.

const holder = z.object({ pid: z.number().int().positive(), host: z.string(), token: z.string() });

const pollMs = 200;
const touchMs = 5000;

interface LockOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called repeatedly while another process holds the lock. */
  readonly onWait?: (() => void | Promise<void>) | undefined;
}

/** Waits for the lock at `path`, then runs `work` while holding it. */
export async function withLock<T>(path: string, options: LockOptions, work: () => Promise<T>): Promise<T> {
  const token = randomBytes(12).toString('hex');
  await mkdir(dirname(path), { recursive: true }).catch((error) => {
    throw diskError(error, path);
  });
  const watched = new WatchedFiles();
  while (!(await acquire(path, token))) {
    throwIfAborted(options.signal);
    if (await removeIfStale(path, watched)) continue;
    await options.onWait?.();
    await pause(options.signal);
  }
  const heart = setInterval(() => void touch(path), touchMs);
  heart.unref();
  try {
    return await work();
  } finally {
    clearInterval(heart);
    await release(path, token);
  }
}

async function pause(signal: AbortSignal | undefined): Promise<void> {
  try {
    await wait(pollMs, undefined, { signal });
  } catch (error) {
    if (signal?.aborted) throw cancelled('The download was cancelled.');
    throw error;
  }
}

/** Creates the lock atomically with its content: writes a temporary file and hard-links it. */
async function acquire(path: string, token: string): Promise<boolean> {
  const own = `${path}.${token}`;
  try {
    await writeFile(own, JSON.stringify({ pid: process.pid, host: hostname(), token }), { flag: 'wx' });
    await link(own, path);
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    // Fallback for file systems without hard links (exFAT, some network drives).
    if (errorCode(error) === 'EPERM' || errorCode(error) === 'ENOTSUP' || errorCode(error) === 'EOPNOTSUPP') {
      return acquireWithoutLink(path, token);
    }
    throw diskError(error, path);
  } finally {
    await rm(own, { force: true });
  }
}

async function acquireWithoutLink(path: string, token: string): Promise<boolean> {
  try {
    const handle = await open(path, 'wx');
    await handle.writeFile(JSON.stringify({ pid: process.pid, host: hostname(), token }));
    await handle.close();
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    throw diskError(error, path);
  }
}

async function touch(path: string): Promise<void> {
  const now = new Date();
  // If the lock is gone, another process took it over. The digest check still protects the result.
  await utimes(path, now, now).catch(() => undefined);
}

async function release(path: string, token: string): Promise<void> {
  const current = holder.safeParse(await readJson(path)).data;
  if (current?.token === token) await rm(path, { force: true });
}

/**
 * Removes a stale lock; returns whether it did. A second lock guards the removal, because otherwise a slow process could
 * remove a lock that another process has just taken over.
 */
async function removeIfStale(path: string, watched: WatchedFiles): Promise<boolean> {
  if (!(await isStale(path, watched))) return false;
  const guard = `${path}.takeover`;
  try {
    await writeFile(guard, '', { flag: 'wx' });
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw diskError(error, path);
    // Removal takes microseconds, so a guard this old was left by a process that died.
    if (await watched.isUntouched(guard)) await rm(guard, { force: true });
    return false;
  }
  try {
    if (!(await isStale(path, watched))) return false;
    await rm(path, { force: true });
    return true;
  } finally {
    await rm(guard, { force: true });
  }
}

async function isStale(path: string, watched: WatchedFiles): Promise<boolean> {
  if (await watched.isUntouched(path)) return true;
  const current = holder.safeParse(await readJson(path)).data;
  return current !== undefined && current.host === hostname() && !isAlive(current.pid);
}

/**
 * A file's date alone is not reliable: the clock may be changed, or belong to another machine. So this waits for the
 * date to change.
 */
class WatchedFiles {
  readonly #seen = new Map<string, { readonly mtimeMs: number; readonly sinceMs: number }>();

  /**
   * Whether the file was not touched for long enough. A file with an old date is watched only for a few touch
   * intervals.
   */
  async isUntouched(path: string): Promise<boolean> {
    const file = await stat(path).catch((error: unknown) => {
      if (errorCode(error) === 'ENOENT') return undefined;
      throw error;
    });
    if (file === undefined) return false;
    const { mtimeMs } = file;
    const before = this.#seen.get(path);
    if (before?.mtimeMs !== mtimeMs) this.#seen.set(path, { mtimeMs, sinceMs: performance.now() });
    const watchedMs = before?.mtimeMs === mtimeMs ? performance.now() - before.sinceMs : 0;
    const looksOld = Date.now() - mtimeMs > limits.store.lockStaleMs;
    return watchedMs > (looksOld ? 3 * touchMs : limits.store.lockStaleMs);
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) === 'EPERM';
  }
}
