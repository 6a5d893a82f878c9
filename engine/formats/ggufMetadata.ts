/** The values of a GGUF's metadata, and typed access to them. */
import { invalidInput } from '../errors.ts';
import { quoted } from './byteReader.ts';

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
 * An array of texts, kept as the file's bytes: a vocabulary has hundreds of thousands, and decoding waits until one
 * is asked for. GGUF does not check that texts are UTF-8, and vocabularies hold fragments: bad bytes become U+FFFD.
 */
export class GgufStrings {
  /** Each text with its u64 length before it, as in the file. */
  readonly #bytes: Buffer;
  /** Where each text starts in `#bytes`; one more entry for the end, as if another length followed. */
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

  /** The bytes of one text, not to be written to. */
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

/** @throws HearthError `invalid-input` when the key is missing, no number, or an integer beyond 2^53. */
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

/** Numbers, booleans (as 0 and 1) included; 64-bit integers are refused. */
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

/** A new array each time: keep it, or use `metadataStrings`. */
export function metadataStringArray(file: GgufMetadata, key: string): string[] {
  return metadataStrings(file, key).toArray();
}

/** `read` where the key is there: `optionalMetadata(file, key, metadataNumber)`. */
export function optionalMetadata<T>(
  file: GgufMetadata,
  key: string,
  read: (file: GgufMetadata, key: string) => T,
): T | undefined {
  return file.metadata.has(key) ? read(file, key) : undefined;
}
