/** One metadata value of a GGUF: a type number, then a scalar, a text, or an array of either. */
import { limits } from '../limits.ts';
import type { ByteReader } from './byteReader.ts';
import { type GgufNumbers, GgufStrings, type GgufValue } from './ggufMetadata.ts';

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
  if (scalar === undefined) throw reader.fail(`${type} is no value type`);
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

/** Texts are not checked to be UTF-8 by those who write them; what is not becomes U+FFFD. */
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
  if (element === undefined) throw reader.fail(`${type} is no value type`);
  const values = element.array(reader.bytes(count * element.bytes).buffer);
  if (type === booleanType) requireBooleans(reader, values);
  return values;
}

function requireBooleans(reader: ByteReader, values: GgufNumbers): void {
  for (const value of values) if (value > 1) throw reader.fail(`a boolean is stored as ${value}`);
}

function readStrings(reader: ByteReader, count: number): GgufStrings {
  // Each text takes at least the eight bytes of its length.
  if (count > reader.remainingBytes / 8) throw reader.fail(`its ${count} texts do not fit into the file`);
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
