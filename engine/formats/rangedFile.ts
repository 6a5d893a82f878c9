/** Tensors read by range out of one or more files, of which a bounded number is open at once. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { HearthError, invalidInput, notFound } from '../errors.ts';
import { limits } from '../limits.ts';
import { type ByteSource, quoted } from './byteReader.ts';
import type { TensorFile, TensorInfo } from './tensor.ts';

export interface StoredTensor extends TensorInfo {
  /** Index into the paths of the file it was opened with. */
  readonly part: number;
  /** From the start of that file. */
  readonly fileOffset: number;
}

const unavailable = (path: string, problem: string, cause?: unknown): HearthError =>
  new HearthError('unavailable', `${path}: ${problem}.`, { cause });

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** @throws HearthError `not-found` or `invalid-input` unless `path` is a regular file: a pipe would block for ever. */
export async function requireFile(path: string): Promise<void> {
  let isFile: boolean;
  try {
    isFile = (await stat(path)).isFile();
  } catch (error) {
    throw new HearthError('not-found', `${path} cannot be opened: ${messageOf(error)}.`, { cause: error });
  }
  if (!isFile) throw invalidInput(`${path} is not a file.`);
}

/** Runs `parse` over the bytes of a file. Only headers are read this way. */
export async function withSource<T>(path: string, parse: (source: ByteSource) => T): Promise<T> {
  await requireFile(path);
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (error) {
    throw unavailable(path, `cannot be opened (${messageOf(error)})`, error);
  }
  try {
    return parse(fileSource(path, descriptor));
  } finally {
    closeSync(descriptor);
  }
}

function fileSource(path: string, descriptor: number): ByteSource {
  return {
    name: basename(path),
    byteLength: fstatSync(descriptor).size,
    read(position, destination) {
      let done = 0;
      while (done < destination.byteLength) {
        let count: number;
        try {
          count = readSync(descriptor, destination, done, destination.byteLength - done, position + done);
        } catch (error) {
          throw unavailable(path, `cannot be read (${messageOf(error)})`, error);
        }
        if (count === 0) throw unavailable(path, 'became shorter while it was read');
        done += count;
      }
    },
  };
}

interface OpenPart {
  readonly handle: Promise<FileHandle>;
  users: number;
}

export class RangedTensorFile implements TensorFile {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly #paths: readonly string[];
  /** Least recently used first. */
  readonly #open = new Map<number, OpenPart>();
  #closed = false;

  constructor(paths: readonly string[], tensors: ReadonlyMap<string, StoredTensor>) {
    this.#paths = paths;
    this.tensors = tensors;
  }

  async read(name: string, byteOffset = 0, byteLength?: number): Promise<Uint8Array> {
    const tensor = this.tensors.get(name);
    if (tensor === undefined) throw notFound(`There is no tensor ${quoted(name)} in ${this.#paths[0]}.`);
    const length = byteLength ?? tensor.byteLength - byteOffset;
    const inside = Number.isSafeInteger(byteOffset) && Number.isSafeInteger(length) && byteOffset >= 0 && length >= 0;
    if (!inside || byteOffset + length > tensor.byteLength) {
      throw invalidInput(`Bytes ${byteOffset} to ${byteOffset + length} are outside tensor ${quoted(name)}.`);
    }
    return this.#readPart(tensor.part, tensor.fileOffset + byteOffset, length);
  }

  async close(): Promise<void> {
    this.#closed = true;
    const parts = [...this.#open.values()];
    this.#open.clear();
    await Promise.all(parts.map(({ handle }) => handle.then((opened) => opened.close()).catch(() => undefined)));
  }

  async #readPart(part: number, position: number, length: number): Promise<Uint8Array> {
    const path = this.#paths[part] ?? '';
    const bytes = allocate(path, length);
    const opened = this.#acquire(part, path);
    try {
      await readFully(path, await opened.handle, position, bytes);
    } catch (error) {
      if (error instanceof HearthError) throw error;
      this.#open.delete(part);
      throw unavailable(path, `cannot be read (${messageOf(error)})`, error);
    } finally {
      opened.users--;
      this.#closeIdle();
    }
    return bytes;
  }

  #acquire(part: number, path: string): OpenPart {
    if (this.#closed) throw unavailable(path, 'was closed');
    const opened = this.#open.get(part) ?? { handle: open(path, 'r'), users: 0 };
    opened.users++;
    this.#open.delete(part);
    this.#open.set(part, opened);
    return opened;
  }

  #closeIdle(): void {
    for (const [part, opened] of this.#open) {
      if (this.#open.size <= limits.formats.openFiles) return;
      if (opened.users > 0) continue;
      this.#open.delete(part);
      void opened.handle.then((handle) => handle.close()).catch(() => undefined);
    }
  }
}

function allocate(path: string, length: number): Uint8Array {
  try {
    // Not zeroed: every byte is written or the read throws. A buffer of its own, never a slice of Node's pool.
    return new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
  } catch (error) {
    throw new HearthError('out-of-memory', `${path}: no memory for ${length} bytes of a tensor.`, { cause: error });
  }
}

async function readFully(path: string, handle: FileHandle, position: number, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const wanted = Math.min(bytes.byteLength - done, limits.formats.readChunkBytes);
    const { bytesRead } = await handle.read(bytes, done, wanted, position + done);
    if (bytesRead === 0) throw unavailable(path, 'became shorter since it was opened');
    done += bytesRead;
  }
}
