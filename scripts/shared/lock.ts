/** A lock between processes: a file with its owner's process id. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isAlive } from './process.ts';

const pollMs = 500;

/** Runs `task` while holding the lock. Waits for a living owner; takes over from a dead one. */
export async function withLock<T>(path: string, onWait: () => void, task: () => Promise<T>): Promise<T> {
  mkdirSync(dirname(path), { recursive: true });
  let told = false;
  while (!tryLock(path)) {
    if (!told) onWait();
    told = true;
    await sleep(pollMs);
  }
  try {
    return await task();
  } finally {
    rmSync(path, { force: true });
  }
}

function tryLock(path: string): boolean {
  try {
    writeFileSync(path, String(process.pid), { flag: 'wx' });
    return true;
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  }
  if (ownerLives(path)) return false;
  rmSync(path, { force: true });
  return false;
}

function ownerLives(path: string): boolean {
  try {
    const pid = Number(readFileSync(path, 'utf8'));
    // Empty if its owner has not written to it yet.
    return pid === 0 || isAlive(pid);
  } catch {
    return false;
  }
}
