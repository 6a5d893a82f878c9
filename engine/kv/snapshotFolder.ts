/** The folder of stored sequences, of all models: bounded in bytes, and what was used longest ago goes first. */
import { mkdir, readdir, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { readSnapshotHeader, type SnapshotHeader } from './snapshotFile.ts';

export interface Snapshot {
  readonly path: string;
  readonly bytes: number;
  readonly usedMs: number;
  readonly header: SnapshotHeader;
}

const extension = '.kv';
/** One that is this old belongs to a process that died. */
const abandonedMs = 60 * 60_000;

/** What is stored, last used first. Files that are no snapshots of this version are removed; those of other names are left alone. */
export async function listSnapshots(directory: string): Promise<Snapshot[]> {
  const found = await Promise.all((await filesIn(directory)).map((path) => inspect(path)));
  return found.flatMap((snapshot) => snapshot ?? []).sort((a, b) => b.usedMs - a.usedMs);
}

/** @returns how many there were, and their bytes. */
export async function clearSnapshots(directory: string): Promise<{ readonly files: number; readonly bytes: number }> {
  const paths = await filesIn(directory);
  const sizes = await Promise.all(
    paths.map((path) =>
      stat(path).then(
        ({ size }) => size,
        () => 0,
      ),
    ),
  );
  await Promise.all(paths.map((path) => rm(path, { force: true })));
  return { files: paths.length, bytes: sizes.reduce((sum, size) => sum + size, 0) };
}

/** Removes what was used longest ago until `bytes` more stay within the limit. */
export async function makeDiskRoom(directory: string, bytes: number, limitBytes: number): Promise<void> {
  // Nobody else reads what is kept here: it is made from the user's files.
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const kept = await listSnapshots(directory);
  let total = kept.reduce((sum, snapshot) => sum + snapshot.bytes, bytes);
  for (let last = kept.pop(); last && total > limitBytes; last = kept.pop()) {
    await removeSnapshot(last);
    total -= last.bytes;
  }
}

export const snapshotPath = (directory: string, name: string): string => join(directory, `${name}${extension}`);

export const removeSnapshot = ({ path }: Pick<Snapshot, 'path'>): Promise<void> => rm(path, { force: true });

export async function touchSnapshot({ path }: Pick<Snapshot, 'path'>): Promise<void> {
  const now = new Date();
  await utimes(path, now, now);
}

async function filesIn(directory: string): Promise<string[]> {
  const names = await readdir(directory).catch(() => []);
  return names.filter((name) => /\.kv(\.\d+\.new)?$/.test(name)).map((name) => join(directory, name));
}

async function inspect(path: string): Promise<Snapshot | undefined> {
  try {
    const { size, mtimeMs } = await stat(path);
    if (!path.endsWith(extension)) {
      if (Date.now() - mtimeMs > abandonedMs) await removeSnapshot({ path });
      return undefined;
    }
    const header = await readSnapshotHeader(path);
    if (header) return { path, bytes: size, usedMs: mtimeMs, header };
    await removeSnapshot({ path });
  } catch {
    // Another process may have removed it; what cannot be read is as good as absent.
  }
  return undefined;
}
