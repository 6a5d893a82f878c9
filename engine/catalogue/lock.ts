/**
 * A lock between processes that share a store, such as two VS Code windows and the command line. The lock is a file created
 * exclusively. Its holder touches it regularly; a lock whose holder died is taken over.
 */
import { randomBytes } from 'node:crypto';
import { link, mkdir, open, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { z } from 'zod';
import { cancelled, throwIfAborted } from '../errors.ts';
import { limits } from '../limits.ts';
import { diskError, errorCode, readJson } from './files.ts';

const holder = z.object({ pid: z.number().int().positive(), host: z.string(), token: z.string() });

const pollMs = 200;
const touchMs = 5000;

export interface LockOptions {
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
  while (!(await acquire(path, token))) {
    throwIfAborted(options.signal);
    if (await removeIfStale(path)) continue;
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
async function removeIfStale(path: string): Promise<boolean> {
  if (!(await isStale(path))) return false;
  const guard = `${path}.takeover`;
  try {
    await writeFile(guard, '', { flag: 'wx' });
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw diskError(error, path);
    // Removal takes microseconds, so a guard this old was left by a process that died.
    if ((await ageMs(guard)) > limits.store.lockStaleMs) await rm(guard, { force: true });
    return false;
  }
  try {
    if (!(await isStale(path))) return false;
    await rm(path, { force: true });
    return true;
  } finally {
    await rm(guard, { force: true });
  }
}

async function isStale(path: string): Promise<boolean> {
  const age = await ageMs(path);
  if (age > limits.store.lockStaleMs) return true;
  const current = holder.safeParse(await readJson(path)).data;
  return current !== undefined && current.host === hostname() && !isAlive(current.pid);
}

/** Milliseconds since the file was touched, or 0 if there is none. */
async function ageMs(path: string): Promise<number> {
  try {
    return Date.now() - (await stat(path)).mtimeMs;
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return 0;
    throw error;
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
