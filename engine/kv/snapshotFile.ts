/**
 * The snapshot file of one sequence: a header, then keys and values. It is written under a temporary name and renamed
 * when complete, so that the process may die at any time.
 *
 *     "HEARTHKV" · version u32 · header bytes u32 · header JSON · sha256 of everything before
 *     pieces · CRC-32 of each block of each piece, u32 · sha256 of everything before except the pieces
 *
 * The checksums guard against accidents only: a process that can write to the user's folder can write matching
 * checksums. CRC-32 detects every burst error of up to 32 bits and all but one in 2^32 of others, at over twice the
 * speed of SHA-256.
 */

import { createHash } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import * as z from 'zod';
import { HearthError, invalidInput, throwIfAborted } from '../errors.ts';
import { usedOrder } from '../fileTimes.ts';
import { limits } from '../limits.ts';

const magic = Buffer.from('HEARTHKV');
/** Incremented when the file format or the backends' arithmetic changes. Files of other versions are deleted. */
export const snapshotVersion = 2;
const prologueBytes = magic.length + 8;
const digestBytes = 32;
/**
 * Unit of checksums and writes; a request that arrives during a write waits for one. Every piece starts a new block.
 */
const blockBytes = 1024 * 1024;
const sumBytes = 4;

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const snapshotHeader = z.object({
  /** Digest of the weights and everything else that the cached values depend on. */
  identity: z.string().regex(/^[0-9a-f]{64}$/),
  /** Display name of the model. */
  model: z.string(),
  tokens: z.array(count).min(1),
  held: z.array(z.array(count)),
  pieceBytes: z.array(count),
});
export type SnapshotHeader = z.infer<typeof snapshotHeader>;

const sum = (numbers: readonly number[]): number => numbers.reduce((total, n) => total + n, 0);
const sha256 = (...parts: Uint8Array[]): Buffer => createHash('sha256').update(Buffer.concat(parts)).digest();

function* blocksOf(piece: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < piece.length; at += blockBytes) yield piece.subarray(at, at + blockBytes);
}

/** Bytes of all block checksums and the digest. */
const trailerBytes = ({ pieceBytes }: SnapshotHeader): number =>
  sumBytes * sum(pieceBytes.map((bytes) => Math.ceil(bytes / blockBytes))) + digestBytes;

function headBytes(header: SnapshotHeader): Buffer {
  const json = Buffer.from(JSON.stringify(header));
  const prologue = Buffer.alloc(prologueBytes);
  magic.copy(prologue);
  prologue.writeUInt32LE(snapshotVersion, magic.length);
  prologue.writeUInt32LE(json.length, magic.length + 4);
  const head = Buffer.concat([prologue, json]);
  return Buffer.concat([head, sha256(head)]);
}

/** Size of the whole file in bytes. */
export const snapshotBytes = (header: SnapshotHeader): number => headBytes(header).length + bytesAfterHead(header);

const bytesAfterHead = (header: SnapshotHeader): number => sum(header.pieceBytes) + trailerBytes(header);

/** @throws HearthError `cancelled`, errors of `pieces` and file system errors. The partial file is removed. */
export async function writeSnapshot(
  path: string,
  header: SnapshotHeader,
  pieces: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  const partial = `${path}.${process.pid}.new`;
  try {
    const file = await open(partial, 'w', 0o600);
    try {
      const head = headBytes(header);
      await file.writeFile(head);
      const sums: number[] = [];
      for await (const piece of pieces) {
        for (const block of blocksOf(piece)) {
          throwIfAborted(signal);
          sums.push(crc32(block));
          await file.writeFile(block);
        }
      }
      const trailer = Buffer.from(Uint32Array.from(sums).buffer);
      await file.writeFile(Buffer.concat([trailer, sha256(head, trailer)]));
    } finally {
      await file.close();
    }
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

/** Returns undefined unless the file has its full size, this version and an intact header. */
export async function readSnapshotHeader(path: string): Promise<SnapshotHeader | undefined> {
  const file = await open(path, 'r');
  try {
    const head = await readHead(file);
    const header = head && parsedHeader(head);
    if (!header) return undefined;
    const { size } = await file.stat();
    return size === head.length + bytesAfterHead(header) ? header : undefined;
  } finally {
    await file.close();
  }
}

/**
 * Yields the pieces in order, each verified.
 * @throws HearthError `invalid-input` if a checksum doesn't match, `cancelled`.
 */
export async function* readSnapshotPieces(
  path: string,
  header: SnapshotHeader,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const file = await open(path, 'r');
  try {
    const head = headBytes(header);
    const sums = await readSums(file, head, header);
    let at = head.length;
    let reading = readExactly(file, at, header.pieceBytes[0] ?? 0);
    for (const [index, bytes] of header.pieceBytes.entries()) {
      const piece = await reading;
      at += bytes;
      // Reads ahead while this piece is verified and used. An error surfaces when that piece is awaited.
      reading = readExactly(file, at, header.pieceBytes[index + 1] ?? 0);
      reading.catch(() => {});
      for (const block of blocksOf(piece)) {
        throwIfAborted(signal);
        if (crc32(block) !== sums.next().value) throw isDamaged();
        await new Promise((resolve) => setImmediate(resolve));
      }
      yield piece;
    }
  } finally {
    await file.close();
  }
}

const isDamaged = (): HearthError => invalidInput('The snapshot is damaged: a checksum does not match.');

/** Checksums of the blocks, in order. */
async function readSums(file: FileHandle, head: Buffer, header: SnapshotHeader): Promise<Iterator<number>> {
  const trailer = await readExactly(file, head.length + sum(header.pieceBytes), trailerBytes(header));
  const digestAt = trailer.length - digestBytes;
  const sums = trailer.subarray(0, digestAt);
  if (!sha256(head, sums).equals(trailer.subarray(digestAt))) throw isDamaged();
  return new Uint32Array(sums.slice().buffer).values();
}

/** Prologue, header and their digest; undefined if damaged or of another version. */
async function readHead(file: FileHandle): Promise<Buffer | undefined> {
  try {
    const prologue = Buffer.from(await readExactly(file, 0, prologueBytes));
    const known = prologue.subarray(0, magic.length).equals(magic);
    const jsonBytes = prologue.readUInt32LE(magic.length + 4);
    if (!known || prologue.readUInt32LE(magic.length) !== snapshotVersion) return undefined;
    if (jsonBytes > limits.cache.snapshotHeaderBytes) return undefined;
    const head = Buffer.from(await readExactly(file, 0, prologueBytes + jsonBytes + digestBytes));
    const digestAt = head.length - digestBytes;
    return sha256(head.subarray(0, digestAt)).equals(head.subarray(digestAt)) ? head : undefined;
  } catch (error) {
    if (error instanceof HearthError) return undefined;
    throw error;
  }
}

function parsedHeader(head: Buffer): SnapshotHeader | undefined {
  try {
    return snapshotHeader.safeParse(JSON.parse(head.toString('utf8', prologueBytes, head.length - digestBytes))).data;
  } catch {
    return undefined;
  }
}

async function readExactly(file: FileHandle, position: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; ) {
    const { bytesRead } = await file.read(bytes, at, length - at, position + at);
    if (bytesRead === 0) throw invalidInput('The snapshot is truncated.');
    at += bytesRead;
  }
  return bytes;
}

// The snapshot folder, shared by all models. Its size is limited; the least recently used snapshots are removed first.

export interface Snapshot {
  readonly path: string;
  readonly bytes: number;
  readonly usedMs: number;
  readonly header: SnapshotHeader;
}

const extension = '.kv';
/** A partial file of this age was left by a process that died. */
const abandonedMs = 60 * 60_000;

/**
 * Snapshots, most recently used first. Removes snapshot files that are damaged or of another version; ignores all other
 * files.
 */
export async function listSnapshots(directory: string): Promise<Snapshot[]> {
  const found = await Promise.all((await filesIn(directory)).map((path) => inspect(path)));
  return found.flatMap((snapshot) => snapshot ?? []).sort((a, b) => usedOrder(b.usedMs) - usedOrder(a.usedMs));
}

/** @returns the number and total size of the removed files. */
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

/** Removes the least recently used snapshots until `bytes` more fit the limit. */
export async function reserveDiskSpace(directory: string, bytes: number, limitBytes: number): Promise<void> {
  // Only the user may read snapshots: they contain the user's files.
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
    // The file may have been removed by another process. Unreadable files count as absent.
  }
  return undefined;
}
