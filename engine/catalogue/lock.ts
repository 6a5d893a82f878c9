/**
 * One holder at a time among all processes that share a store: two VS Code windows and the command line. A lock is a
 * file made exclusively; its holder touches it, and one whose holder died is taken over.
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
  /** Called while another process holds the lock. */
  readonly onWait?: (() => void | Promise<void>) | undefined;
}

/** Runs `work` while holding the lock at `path`; waits for it first. */
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

/** The lock appears with its content or not at all: it is written beside and linked into place. */
async function acquire(path: string, token: string): Promise<boolean> {
  const own = `${path}.${token}`;
  try {
    await writeFile(own, JSON.stringify({ pid: process.pid, host: hostname(), token }), { flag: 'wx' });
    await link(own, path);
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    // File systems without hard links (exFAT, some network drives).
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
  // A lock that is gone was taken over: the digest of the result still guards what both wrote.
  await utimes(path, now, now).catch(() => undefined);
}

async function release(path: string, token: string): Promise<void> {
  const current = holder.safeParse(await readJson(path)).data;
  if (current?.token === token) await rm(path, { force: true });
}

/**
 * Removes a lock whose holder is gone; says whether it did. Removing is itself guarded by a second lock, or a slow
 * process could remove the lock that a quick one has just taken over.
 */
async function removeIfStale(path: string): Promise<boolean> {
  if (!(await isStale(path))) return false;
  const guard = `${path}.takeover`;
  try {
    await writeFile(guard, '', { flag: 'wx' });
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw diskError(error, path);
    // Taking over lasts microseconds; a guard this old belongs to a process that died in between.
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

/** Milliseconds since the file was touched; 0 where there is none. */
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
