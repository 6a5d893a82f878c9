/** Reads ranges of tensors from one or more files, with a limit on open files. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { HearthError, invalidInput, notFound } from '../errors.ts';
import { limits } from '../limits.ts';
import { type ByteSource, quoted } from './byteReader.ts';
import type { TensorFile, TensorInfo } from './tensor.ts';

export interface StoredTensor extends TensorInfo {
  /** Index into the paths that the file was opened with. */
  readonly part: number;
  /** Offset from the start of that file in bytes. */
  readonly fileOffset: number;
}

const unavailable = (path: string, problem: string, cause?: unknown): HearthError =>
  new HearthError('unavailable', `${path}: ${problem}.`, { cause });

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/**
 * @throws HearthError `not-found` or `invalid-input` unless `path` is a regular file: reading a pipe would block
 * forever.
 */
export async function requireFile(path: string): Promise<void> {
  let isFile: boolean;
  try {
    isFile = (await stat(path)).isFile();
  } catch (error) {
    throw new HearthError('not-found', `${path} cannot be opened: ${messageOf(error)}.`, { cause: error });
  }
  if (!isFile) throw invalidInput(`${path} is not a file.`);
}

/** Runs `parse` on the bytes of a file. For headers only. */
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
    // Not zeroed: every byte is written or the read throws. It has its own buffer, not a slice of Node's pool.
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

// A pool of open files with a limit.

interface OpenFile {
  readonly handle: Promise<FileHandle>;
  users: number;
}

class FilePool {
  readonly #maxOpen: number;
  /** By path, least recently used first. */
  readonly #files = new Map<string, OpenFile>();
  /** Uses in progress. They never exceed the limit on open files, so an idle file to close always exists. */
  #uses = 0;
  readonly #waiting: (() => void)[] = [];
  #closed = false;

  constructor(maxOpen: number) {
    this.#maxOpen = maxOpen;
  }

  /** Runs `work` with `path` open. Waits while `maxOpen` uses are in progress. */
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

  /** Waits for open handles to close. Waiting and later uses fail. */
  async close(): Promise<void> {
    this.#closed = true;
    const files = [...this.#files.values()];
    this.#files.clear();
    await Promise.all(files.map(closeFile));
  }

  async #useOpen<T>(path: string, work: (handle: FileHandle) => Promise<T>): Promise<T> {
    if (this.#closed) throw new Error('The file is closed.');
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
      // Lets the next use try again.
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

/** Ignores errors: the handle was opened for reading only, or never opened. */
async function closeFile({ handle }: OpenFile): Promise<void> {
  await handle.then((opened) => opened.close()).catch(() => undefined);
}
