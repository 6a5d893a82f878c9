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

export class RangedTensorFile implements TensorFile {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly #paths: readonly string[];
  readonly #pool = new FilePool(limits.formats.openFiles);

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
    const path = this.#paths[tensor.part] ?? '';
    try {
      return await this.#pool.use(path, (handle) => readRange(path, handle, tensor.fileOffset + byteOffset, length));
    } catch (error) {
      throw error instanceof HearthError ? error : unavailable(path, `cannot be read (${messageOf(error)})`, error);
    }
  }

  async close(): Promise<void> {
    await this.#pool.close();
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

async function readRange(path: string, handle: FileHandle, position: number, length: number): Promise<Uint8Array> {
  const bytes = allocate(path, length);
  for (let done = 0; done < length; ) {
    const wanted = Math.min(length - done, limits.formats.readChunkBytes);
    const { bytesRead } = await handle.read(bytes, done, wanted, position + done);
    if (bytesRead === 0) throw unavailable(path, 'became shorter since it was opened');
    done += bytesRead;
  }
  return bytes;
}

// Files read at random, of which a bounded number is open at once.

interface OpenFile {
  readonly handle: Promise<FileHandle>;
  users: number;
}

class FilePool {
  readonly #maxOpen: number;
  /** By path, least recently used first. */
  readonly #files = new Map<string, OpenFile>();
  /** Uses in progress are fewer than or as many as files may be open, so there is always an idle one to close. */
  #uses = 0;
  readonly #waiting: (() => void)[] = [];
  #closed = false;

  constructor(maxOpen: number) {
    this.#maxOpen = maxOpen;
  }

  /** Runs `work` with `path` open; waits while `maxOpen` others are in use. */
  async use<T>(path: string, work: (handle: FileHandle) => Promise<T>): Promise<T> {
    if (this.#uses >= this.#maxOpen) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#uses++;
    try {
      return await this.#useOpen(path, work);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#uses--;
      else next();
    }
  }

  /** Uses in progress end first or fail; waiting and later ones fail. */
  async close(): Promise<void> {
    this.#closed = true;
    const files = [...this.#files.values()];
    this.#files.clear();
    await Promise.all(files.map(closeFile));
  }

  async #useOpen<T>(path: string, work: (handle: FileHandle) => Promise<T>): Promise<T> {
    if (this.#closed) throw new Error('the file was closed');
    const file = this.#files.get(path) ?? { handle: this.#closeOneIdle().then(() => open(path, 'r')), users: 0 };
    this.#files.delete(path);
    this.#files.set(path, file);
    file.users++;
    try {
      return await work(await this.#opened(path, file));
    } finally {
      file.users--;
    }
  }

  async #opened(path: string, file: OpenFile): Promise<FileHandle> {
    try {
      return await file.handle;
    } catch (error) {
      // So that the next use tries again.
      if (this.#files.get(path) === file) this.#files.delete(path);
      throw error;
    }
  }

  async #closeOneIdle(): Promise<void> {
    if (this.#files.size < this.#maxOpen) return;
    for (const [path, file] of this.#files) {
      if (file.users > 0) continue;
      this.#files.delete(path);
      await closeFile(file);
      return;
    }
  }
}

/** A handle that was never opened, or is read no more, has nothing to lose. */
async function closeFile({ handle }: OpenFile): Promise<void> {
  await handle.then((opened) => opened.close()).catch(() => undefined);
}
