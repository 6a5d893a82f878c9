/** Tensors in a file: types shared by all container formats. */

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { HearthError, invalidInput, notFound } from '../errors.ts';
import { limits } from '../limits.ts';
import { type ByteSource, quoted } from './byteReader.ts';

/** Element or block types, named as in safetensors and GGUF. Block layouts are those of ggml. */
export type TensorType =
  | 'F64'
  | 'F32'
  | 'F16'
  | 'BF16'
  | 'F8_E4M3'
  | 'F8_E5M2'
  | 'F8_E8M0'
  | 'I8'
  | 'U8'
  | 'I16'
  | 'U16'
  | 'I32'
  | 'U32'
  | 'I64'
  | 'U64'
  | 'BOOL'
  | 'Q4_0'
  | 'Q4_1'
  | 'Q5_0'
  | 'Q5_1'
  | 'Q8_0'
  | 'Q2_K'
  | 'Q3_K'
  | 'Q4_K'
  | 'Q5_K'
  | 'Q6_K'
  | 'IQ4_NL'
  | 'IQ4_XS'
  | 'MXFP4';

export interface TensorInfo {
  readonly name: string;
  readonly type: TensorType;
  /** Outermost dimension first (row-major); the dimensions of a GGUF are reversed when read. `[]` is a scalar. */
  readonly shape: readonly number[];
  readonly byteLength: number;
}

/** An opened model file or set of shards. Only headers are in memory; tensor bytes are read by range. */
export interface TensorFile {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /**
   * Reads one tensor, or a range of it, into a new buffer. Offset and length in bytes.
   * @throws HearthError `not-found` for an unknown tensor, `invalid-input` for a range outside it, `unavailable` if the
   * file can't be read.
   */
  read(name: string, byteOffset?: number, byteLength?: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

// Sizes of tensors in bytes: block layouts of all types, with overflow checks.

interface BlockLayout {
  /** Consecutive elements of a row in one block; 1 for plain types. */
  readonly elements: number;
  readonly bytes: number;
}

const plain = (bytes: number): BlockLayout => ({ elements: 1, bytes });
const block32 = (bytes: number): BlockLayout => ({ elements: 32, bytes });
const block256 = (bytes: number): BlockLayout => ({ elements: 256, bytes });

/** Quantised blocks are ggml's (ggml-common.h): scales and packed values of 32 or 256 elements. */
const layouts: Readonly<Record<TensorType, BlockLayout>> = {
  F64: plain(8),
  F32: plain(4),
  F16: plain(2),
  BF16: plain(2),
  F8_E4M3: plain(1),
  F8_E5M2: plain(1),
  F8_E8M0: plain(1),
  I8: plain(1),
  U8: plain(1),
  I16: plain(2),
  U16: plain(2),
  I32: plain(4),
  U32: plain(4),
  I64: plain(8),
  U64: plain(8),
  BOOL: plain(1),
  Q4_0: block32(18),
  Q4_1: block32(20),
  Q5_0: block32(22),
  Q5_1: block32(24),
  Q8_0: block32(34),
  Q2_K: block256(84),
  Q3_K: block256(110),
  Q4_K: block256(144),
  Q5_K: block256(176),
  Q6_K: block256(210),
  IQ4_NL: block32(18),
  IQ4_XS: block256(136),
  MXFP4: block32(17),
};

export const tensorTypes = Object.keys(layouts) as readonly TensorType[];

export function blockLayout(type: TensorType): BlockLayout {
  return layouts[type];
}

/** @throws HearthError `invalid-input` if the count isn't a safe integer. */
export function elementCountOf(shape: readonly number[]): number {
  // A zero dimension doesn't excuse an overflow of the others.
  let count = 1;
  for (const dimension of shape) {
    if (!Number.isSafeInteger(dimension) || dimension < 0) throw invalidInput(`dimension ${dimension} is not a size`);
    if (dimension > 0) count *= dimension;
  }
  if (!Number.isSafeInteger(count)) throw invalidInput(`shape [${shape.join(', ')}] has more than 2^53 elements`);
  return shape.includes(0) ? 0 : count;
}

/**
 * Bytes of a tensor; its last dimension must be a multiple of the block.
 * @throws HearthError `invalid-input` for a partial block or a size over 2^53.
 */
export function byteLengthOf(type: TensorType, shape: readonly number[]): number {
  const { elements, bytes } = layouts[type];
  const count = elementCountOf(shape);
  const row = shape.at(-1) ?? 1;
  if (row % elements !== 0) {
    throw invalidInput(`a row of ${row} elements is not a multiple of the ${elements} elements of a ${type} block`);
  }
  const byteLength = (count / elements) * bytes;
  if (!Number.isSafeInteger(byteLength)) {
    throw invalidInput(`shape [${shape.join(', ')}] of ${type} has more than 2^53 bytes`);
  }
  return byteLength;
}

// Values of small floating-point types by bit pattern. Assumes a little-endian host, as on all platforms that Hearth
// ships for.

/** IEEE 754 binary16. */
function float16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** E4M3 of "FP8 Formats for Deep Learning" (Micikevicius et al. 2022): no infinities, only 0x7F and 0xFF are NaN. */
function float8E4m3Value(bits: number): number {
  const sign = bits & 0x80 ? -1 : 1;
  const exponent = (bits >> 3) & 0xf;
  const fraction = bits & 7;
  if ((bits & 0x7f) === 0x7f) return Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** -9;
  return sign * (8 + fraction) * 2 ** (exponent - 10);
}

/** OCP Microscaling 1.0: exponent only; 255 is NaN. */
const float8E8m0Value = (bits: number): number => (bits === 255 ? Number.NaN : 2 ** (bits - 127));

/** E5M2 is the upper byte of a binary16. */
const float8E5m2Value = (bits: number): number => float16Value(bits << 8);

/** 65,536 values, 256 KiB. */
export const float16Values = Float32Array.from({ length: 0x10000 }, (_, bits) => float16Value(bits));

/** Bits of the nearest f16, ties to even; infinity beyond 65504. (`Float16Array` needs Node 24.) */
export function float16Bits(value: number): number {
  const magnitude = Math.abs(value);
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  if (Number.isNaN(value)) return 0x7e00;
  if (magnitude >= 65_520) return sign | 0x7c00;
  const exponent = Math.max(-14, Math.floor(Math.log2(magnitude)));
  // 1024 to 2047 steps of this exponent, fewer below 2^-14; a carry into the exponent is right as it is.
  const steps = roundToEven(magnitude / 2 ** (exponent - 10));
  return sign | (1024 * (exponent + 14) + steps);
}

/** Rounds halves to the even neighbour, like WGSL's `round`. */
export function roundToEven(value: number): number {
  const nearest = Math.round(value);
  return Math.abs(value % 1) === 0.5 ? 2 * Math.round(value / 2) : nearest;
}
export const float8E4m3Values = Float32Array.from({ length: 256 }, (_, bits) => float8E4m3Value(bits));
export const float8E5m2Values = Float32Array.from({ length: 256 }, (_, bits) => float8E5m2Value(bits));
export const float8E8m0Values = Float32Array.from({ length: 256 }, (_, bits) => float8E8m0Value(bits));

// Reads ranges of tensors from one or more files, with a limit on open files.

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
