/**
 * One sequence on the disk: what it is of, then its keys and values, each with its SHA-256. Written beside its place and moved
 * there when complete, so that a process may die at any moment.
 *
 *     "HEARTHKV" · version u32 · header bytes u32 · header JSON · sha256 of all before · pieces · sha256 of all before
 */
import { createHash } from 'node:crypto';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import * as z from 'zod';
import { HearthError, invalidInput, throwIfAborted } from '../errors.ts';
import { limits } from '../limits.ts';

const magic = Buffer.from('HEARTHKV');
/** Another one: the file's form or what backends compute has changed, and what was kept is no longer what would be computed. */
export const snapshotVersion = 1;
const prologueBytes = magic.length + 8;
const digestBytes = 32;
/** Hashed and written at once: what a request that comes meanwhile waits for. */
const chunkBytes = 4 * 1024 * 1024;

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const snapshotHeader = z.object({
  /** Of the model's weights and everything else that the values follow from. */
  identity: z.string().regex(/^[0-9a-f]{64}$/),
  /** For people. */
  model: z.string(),
  tokens: z.array(count).min(1),
  held: z.array(z.array(count)),
  pieceBytes: z.array(count),
});
export type SnapshotHeader = z.infer<typeof snapshotHeader>;

const sum = (numbers: readonly number[]): number => numbers.reduce((total, n) => total + n, 0);
const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();

function headBytes(header: SnapshotHeader): Buffer {
  const json = Buffer.from(JSON.stringify(header));
  const prologue = Buffer.alloc(prologueBytes);
  magic.copy(prologue);
  prologue.writeUInt32LE(snapshotVersion, magic.length);
  prologue.writeUInt32LE(json.length, magic.length + 4);
  const head = Buffer.concat([prologue, json]);
  return Buffer.concat([head, sha256(head)]);
}

/** Size of the file. */
export const snapshotBytes = (header: SnapshotHeader): number =>
  headBytes(header).length + sum(header.pieceBytes) + digestBytes;

/** @throws HearthError `cancelled`, what `pieces` throws, and what the disk does; then nothing is left behind. */
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
      const hash = createHash('sha256');
      const append = async (bytes: Uint8Array): Promise<void> => {
        throwIfAborted(signal);
        hash.update(bytes);
        await file.writeFile(bytes);
      };
      await append(headBytes(header));
      for await (const piece of pieces) {
        for (let at = 0; at < piece.length; at += chunkBytes) await append(piece.subarray(at, at + chunkBytes));
      }
      await file.writeFile(hash.digest());
    } finally {
      await file.close();
    }
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

/** What a file says it holds; undefined unless it is whole in size, of this version, and its header is as it was written. */
export async function readSnapshotHeader(path: string): Promise<SnapshotHeader | undefined> {
  const file = await open(path, 'r');
  try {
    const head = await readHead(file);
    const header = head && parsedHeader(head);
    if (!header) return undefined;
    const { size } = await file.stat();
    return size === head.length + sum(header.pieceBytes) + digestBytes ? header : undefined;
  } finally {
    await file.close();
  }
}

/**
 * The pieces, one after the other. The last is given only when all that was read is what was written.
 * @throws HearthError `invalid-input` when it is not, `cancelled`.
 */
export async function* readSnapshotPieces(
  path: string,
  header: SnapshotHeader,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const file = await open(path, 'r');
  try {
    const head = headBytes(header);
    const hash = createHash('sha256').update(head);
    const sizes = [...header.pieceBytes, digestBytes];
    let at = head.length;
    let reading = readExactly(file, at, sizes[0] ?? 0);
    for (const [index, bytes] of header.pieceBytes.entries()) {
      const piece = await reading;
      at += bytes;
      // The next one is read while this one is hashed; what goes wrong with it is heard of when it is its turn.
      reading = readExactly(file, at, sizes[index + 1] ?? 0);
      reading.catch(() => {});
      for (let from = 0; from < bytes; from += chunkBytes) {
        throwIfAborted(signal);
        hash.update(piece.subarray(from, from + chunkBytes));
        await new Promise((resolve) => setImmediate(resolve));
      }
      const isLast = index === header.pieceBytes.length - 1;
      if (isLast && !hash.digest().equals(await reading))
        throw invalidInput('A stored sequence is not what was written.');
      yield piece;
    }
  } finally {
    await file.close();
  }
}

/** Prologue, header and their digest, checked; undefined where they are not. */
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
    if (bytesRead === 0) throw invalidInput('A stored sequence was cut short.');
    at += bytesRead;
  }
  return bytes;
}
