/** Disk operations that leave either the old or the new state behind, whatever moment the process dies at. */
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile, rename, rm, stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { HearthError, throwIfAborted } from '../errors.ts';
import { limits } from '../limits.ts';
import { showBytes } from '../units.ts';

export function errorCode(error: unknown): string | undefined {
  const code = error instanceof Error ? Reflect.get(error, 'code') : undefined;
  return typeof code === 'string' ? code : undefined;
}

/** Size of a regular file; undefined where there is none. */
export async function fileBytes(path: string): Promise<number | undefined> {
  try {
    const status = await stat(path);
    return status.isFile() ? status.size : undefined;
  } catch (error) {
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}

/** Replaces `path` by `value` in one step. */
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

/** JSON of at most `maxBytes`; undefined where there is none or it is not JSON: such a file is as good as absent. */
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

/** Makes renames in `folder` survive a power cut. Windows has no such call. */
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

/** Hash of a file read in pieces, in hexadecimal digits. */
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

/** Throws when `folder`'s disk cannot take `bytes` more. */
export async function requireSpace(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const freeBytes = bavail * bsize;
  if (freeBytes >= bytes + limits.store.diskReserveBytes) return;
  throw new DiskFull(
    `${showBytes(bytes)} more are needed in ${folder} and its disk has ${showBytes(freeBytes)} free. ` +
      'What was already downloaded is kept. Free some space, or move the store with HEARTH_HOME.',
  );
}

/** No source can help against a full disk. */
export class DiskFull extends HearthError {
  constructor(message: string, options?: ErrorOptions) {
    super('unavailable', message, options);
    this.name = 'DiskFull';
  }
}

/** Says in one sentence what the disk refused. */
export function diskError(error: unknown, path: string): unknown {
  const code = errorCode(error);
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    const message = `The disk is full: ${path} could not be written. What was already downloaded is kept.`;
    return new DiskFull(message, { cause: error });
  }
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS' || code === 'ENOTDIR' || code === 'EEXIST') {
    const message = `${path} cannot be written (${code}). HEARTH_HOME names another folder for the models.`;
    return new DiskFull(message, { cause: error });
  }
  return error;
}
