/** Values of GGUF metadata, with typed access. */
import { invalidInput } from '../errors.ts';
import { limits } from '../limits.ts';
import { type ByteReader, quoted } from './byteReader.ts';

export type GgufNumbers =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array;

/** 64-bit integers beyond 2^53 are bigints. An array of booleans is a `Uint8Array` of 0 and 1. */
export type GgufValue = number | bigint | boolean | string | GgufNumbers | GgufStrings;

/**
 * An array of strings, stored as the file's bytes: vocabularies have hundreds of thousands, and most are never decoded.
 * GGUF doesn't require valid UTF-8, and vocabularies contain fragments of characters: invalid bytes become U+FFFD.
 */
export class GgufStrings {
  /** Each string preceded by its u64 length, as in the file. */
  readonly #bytes: Buffer;
  /** Start of each string in `#bytes`, plus one entry for the end, as if another length followed. */
  readonly #starts: Uint32Array;

  constructor(bytes: Uint8Array, starts: Uint32Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#starts = starts;
  }

  get length(): number {
    return this.#starts.length - 1;
  }

  at(index: number): string | undefined {
    return index >= 0 && index < this.length ? this.#bytes.toString('utf8', ...this.#range(index)) : undefined;
  }

  /** The bytes of one string; don't write to them. */
  bytesAt(index: number): Uint8Array | undefined {
    return index >= 0 && index < this.length ? this.#bytes.subarray(...this.#range(index)) : undefined;
  }

  toArray(): string[] {
    return Array.from({ length: this.length }, (_, index) => this.#bytes.toString('utf8', ...this.#range(index)));
  }

  #range(index: number): [start: number, end: number] {
    return [this.#starts[index] ?? 0, (this.#starts[index + 1] ?? 0) - 8];
  }
}

export interface GgufMetadata {
  readonly metadata: ReadonlyMap<string, GgufValue>;
}

function wrong(key: string, expected: string, value: GgufValue | undefined): Error {
  return invalidInput(`GGUF key ${quoted(key)} ${value === undefined ? 'is missing' : `must be ${expected}`}.`);
}

/** @throws HearthError `invalid-input` if the key is missing, isn't a number, or is an integer over 2^53. */
export function metadataNumber(file: GgufMetadata, key: string): number {
  const value = file.metadata.get(key);
  if (typeof value !== 'number') throw wrong(key, 'a number', value);
  return value;
}

export function metadataBoolean(file: GgufMetadata, key: string): boolean {
  const value = file.metadata.get(key);
  if (typeof value !== 'boolean') throw wrong(key, 'true or false', value);
  return value;
}

export function metadataString(file: GgufMetadata, key: string): string {
  const value = file.metadata.get(key);
  if (typeof value !== 'string') throw wrong(key, 'a text', value);
  return value;
}

/** Booleans count as 0 and 1; 64-bit integers are rejected. */
export function metadataNumberArray(
  file: GgufMetadata,
  key: string,
): Exclude<GgufNumbers, BigInt64Array | BigUint64Array> {
  const value = file.metadata.get(key);
  if (!ArrayBuffer.isView(value) || value instanceof BigInt64Array || value instanceof BigUint64Array) {
    throw wrong(key, 'a list of numbers', value);
  }
  return value;
}

export function metadataStrings(file: GgufMetadata, key: string): GgufStrings {
  const value = file.metadata.get(key);
  if (!(value instanceof GgufStrings)) throw wrong(key, 'a list of texts', value);
  return value;
}

/** Builds a new array on every call. */
export function metadataStringArray(file: GgufMetadata, key: string): string[] {
  return metadataStrings(file, key).toArray();
}

/** Reads the key if it exists: `optionalMetadata(file, key, metadataNumber)`. */
export function optionalMetadata<T>(
  file: GgufMetadata,
  key: string,
  read: (file: GgufMetadata, key: string) => T,
): T | undefined {
  return file.metadata.has(key) ? read(file, key) : undefined;
}

/** The keys of the file's architecture, named without its prefix: `attention.head_count`. Errors name the whole key. */
export interface GgufKeys {
  readonly architecture: string;
  /** An integer from 1 to `max`. */
  size(key: string, max: number): number;
  optionalSize(key: string, max: number): number | undefined;
  optionalNumber(key: string): number | undefined;
  positive(key: string): number;
  optionalPositive(key: string): number | undefined;
  optionalBoolean(key: string): boolean | undefined;
  optionalString(key: string): string | undefined;
}

export function ggufKeys(metadata: GgufMetadata['metadata']): GgufKeys {
  const architecture = metadata.get('general.architecture');
  if (typeof architecture !== 'string') throw invalidInput('GGUF key general.architecture is missing.');
  const typed = <T>(key: string, type: string, convert: (value: unknown) => T | undefined): T | undefined => {
    const value = metadata.get(`${architecture}.${key}`);
    if (value === undefined) return undefined;
    const converted = convert(value);
    if (converted === undefined) throw invalidInput(`GGUF key ${architecture}.${key} must be ${type}.`);
    return converted;
  };
  const needed = <T>(key: string, value: T | undefined): T => {
    if (value === undefined) throw invalidInput(`GGUF key ${architecture}.${key} is missing.`);
    return value;
  };
  const optionalNumber = (key: string) => typed(key, 'one finite number', finiteNumber);
  const optionalPositive = (key: string) =>
    typed(key, 'one positive number', (value) => {
      const number = finiteNumber(value);
      return number !== undefined && number > 0 ? number : undefined;
    });
  const optionalSize = (key: string, max: number) =>
    typed(key, `one whole number from 1 to ${max}`, (value) => {
      const number = finiteNumber(value);
      return number !== undefined && Number.isInteger(number) && number >= 1 && number <= max ? number : undefined;
    });
  return {
    architecture,
    optionalNumber,
    optionalPositive,
    positive: (key) => needed(key, optionalPositive(key)),
    optionalSize,
    size: (key, max) => needed(key, optionalSize(key, max)),
    optionalBoolean: (key) => typed(key, 'true or false', (value) => (typeof value === 'boolean' ? value : undefined)),
    optionalString: (key) => typed(key, 'a text', (value) => (typeof value === 'string' ? value : undefined)),
  };
}

function finiteNumber(value: unknown): number | undefined {
  const number = typeof value === 'bigint' ? Number(value) : value;
  return typeof number === 'number' && Number.isFinite(number) ? number : undefined;
}

// Parses one metadata value: a type number, then a scalar, a string, or an array of either.

/** ggml.h `enum gguf_type`. */
const stringType = 8;
const arrayType = 9;
const booleanType = 7;

type ScalarReader = (reader: ByteReader) => number | bigint | boolean;

const scalars: ReadonlyMap<number, ScalarReader> = new Map<number, ScalarReader>([
  [0, (reader) => reader.uint8()],
  [1, (reader) => reader.int8()],
  [2, (reader) => reader.uint16()],
  [3, (reader) => reader.int16()],
  [4, (reader) => reader.uint32()],
  [5, (reader) => reader.int32()],
  [6, (reader) => reader.float32()],
  [booleanType, readBoolean],
  [10, (reader) => safe(reader.uint64())],
  [11, (reader) => safe(reader.int64())],
  [12, (reader) => reader.float64()],
]);

interface ElementType {
  readonly bytes: number;
  readonly array: (buffer: ArrayBuffer) => GgufNumbers;
}

const elements: ReadonlyMap<number, ElementType> = new Map<number, ElementType>([
  [0, { bytes: 1, array: (buffer) => new Uint8Array(buffer) }],
  [1, { bytes: 1, array: (buffer) => new Int8Array(buffer) }],
  [2, { bytes: 2, array: (buffer) => new Uint16Array(buffer) }],
  [3, { bytes: 2, array: (buffer) => new Int16Array(buffer) }],
  [4, { bytes: 4, array: (buffer) => new Uint32Array(buffer) }],
  [5, { bytes: 4, array: (buffer) => new Int32Array(buffer) }],
  [6, { bytes: 4, array: (buffer) => new Float32Array(buffer) }],
  [booleanType, { bytes: 1, array: (buffer) => new Uint8Array(buffer) }],
  [10, { bytes: 8, array: (buffer) => new BigUint64Array(buffer) }],
  [11, { bytes: 8, array: (buffer) => new BigInt64Array(buffer) }],
  [12, { bytes: 8, array: (buffer) => new Float64Array(buffer) }],
]);

export function readGgufValue(reader: ByteReader): GgufValue {
  const type = reader.uint32();
  if (type === stringType) return readString(reader);
  if (type === arrayType) return readArray(reader);
  const scalar = scalars.get(type);
  if (scalar === undefined) throw reader.fail(`${type} is not a value type`);
  return scalar(reader);
}

function readBoolean(reader: ByteReader): boolean {
  const value = reader.uint8();
  if (value > 1) throw reader.fail(`a boolean is stored as ${value}`);
  return value === 1;
}

function safe(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** Writers don't check for valid UTF-8; invalid bytes become U+FFFD. */
function readString(reader: ByteReader): string {
  const length = reader.count('the length of its text', limits.formats.ggufStringBytes);
  return Buffer.from(reader.bytes(length).buffer).toString('utf8');
}

function readArray(reader: ByteReader): GgufValue {
  const type = reader.uint32();
  if (type === arrayType) throw reader.failUnsupported('arrays of arrays are not supported');
  const count = reader.count('the length of its array', Number.MAX_SAFE_INTEGER);
  if (type === stringType) return readStrings(reader, count);
  const element = elements.get(type);
  if (element === undefined) throw reader.fail(`${type} is not a value type`);
  const values = element.array(reader.bytes(count * element.bytes).buffer);
  if (type === booleanType) requireBooleans(reader, values);
  return values;
}

function requireBooleans(reader: ByteReader, values: GgufNumbers): void {
  for (const value of values) if (value > 1) throw reader.fail(`a boolean is stored as ${value}`);
}

function readStrings(reader: ByteReader, count: number): GgufStrings {
  // Each string takes at least the eight bytes of its length.
  if (count > reader.remainingBytes / 8) throw reader.failIncomplete(`its ${count} strings don't fit in the file`);
  const starts = new Uint32Array(count + 1);
  const begin = reader.position;
  for (let i = 0; i < count; i++) {
    const length = reader.count('the length of a text', limits.formats.ggufStringBytes);
    starts[i] = reader.position - begin;
    reader.skip(length);
  }
  starts[count] = reader.position - begin + 8;
  return new GgufStrings(reader.bytesSince(begin), starts);
}
