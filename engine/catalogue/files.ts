/** Crash-safe disk operations: an interrupted write leaves either the old or the new state. Also progress reports. */
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile, rename, rm, stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { HearthError, throwIfAborted } from '../errors.ts';
import { limits } from '../limits.ts';
import { showBytes } from '../units.ts';
import { places } from '../userHelp.ts';

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

export interface HashOptions {
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
  /** As in "98 MB for the download". */
  readonly what: string;
  readonly bytes: number;
}

/** @throws DiskFull if `folder`'s disk has no room for all of them beside the reserve. */
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
