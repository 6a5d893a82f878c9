/** Writes GGUF files with generated weights, one tensor at a time, for benchmarks. */
import { closeSync, openSync, renameSync, writeSync } from 'node:fs';

/** GGUF value types. */
const uint32Type = 4;
const int32Type = 5;
const float32Type = 6;
const stringType = 8;
const arrayType = 9;

export type MetadataValue =
  | { readonly uint32: number }
  | { readonly float32: number }
  | { readonly string: string }
  | { readonly strings: readonly string[] }
  | { readonly int32s: readonly number[] };

/** One tensor to write. */
export interface WrittenTensor {
  readonly name: string;
  /** Outermost dimension first. */
  readonly shape: readonly number[];
  /** ggml type number. */
  readonly typeId: number;
  readonly byteLength: number;
  /** The tensor's bytes, in chunks. */
  readonly pieces: () => Iterable<Uint8Array>;
}

const alignment = 32;
const align = (offset: number): number => Math.ceil(offset / alignment) * alignment;

export function writeGguf(
  path: string,
  entries: Readonly<Record<string, MetadataValue>>,
  tensors: readonly WrittenTensor[],
): void {
  const partial = `${path}.partial`;
  const file = openSync(partial, 'w');
  try {
    writeWhole(file, header(entries, tensors));
    for (const { byteLength, pieces } of tensors) {
      for (const piece of pieces()) writeWhole(file, piece);
      writeWhole(file, new Uint8Array(align(byteLength) - byteLength));
    }
  } finally {
    closeSync(file);
  }
  renameSync(partial, path);
}

function writeWhole(file: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
}

function header(entries: Readonly<Record<string, MetadataValue>>, tensors: readonly WrittenTensor[]): Buffer {
  const bytes = new Bytes();
  bytes.uint32(0x46554747); // 'GGUF'
  bytes.uint32(3);
  bytes.uint64(tensors.length);
  bytes.uint64(Object.keys(entries).length);
  writeMetadata(bytes, entries);
  let offset = 0;
  for (const { name, shape, typeId, byteLength } of tensors) {
    bytes.string(name);
    bytes.uint32(shape.length);
    for (const size of shape.toReversed()) bytes.uint64(size);
    bytes.uint32(typeId);
    bytes.uint64(offset);
    offset += align(byteLength);
  }
  bytes.padTo(alignment);
  return bytes.concat();
}

class Bytes {
  readonly #parts: Buffer[] = [];
  byteLength = 0;

  #push(part: Buffer): void {
    this.#parts.push(part);
    this.byteLength += part.length;
  }
  uint32(value: number): void {
    const part = Buffer.alloc(4);
    part.writeUInt32LE(value);
    this.#push(part);
  }
  uint64(value: number): void {
    const part = Buffer.alloc(8);
    part.writeBigUInt64LE(BigInt(value));
    this.#push(part);
  }
  float32(value: number): void {
    const part = Buffer.alloc(4);
    part.writeFloatLE(value);
    this.#push(part);
  }
  string(value: string): void {
    this.uint64(Buffer.byteLength(value));
    this.#push(Buffer.from(value));
  }
  padTo(multiple: number): void {
    this.#push(Buffer.alloc((multiple - (this.byteLength % multiple)) % multiple));
  }
  concat(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

function writeMetadata(bytes: Bytes, entries: Readonly<Record<string, MetadataValue>>): void {
  for (const [key, value] of Object.entries(entries)) {
    bytes.string(key);
    if ('uint32' in value) {
      bytes.uint32(uint32Type);
      bytes.uint32(value.uint32);
    } else if ('float32' in value) {
      bytes.uint32(float32Type);
      bytes.float32(value.float32);
    } else if ('string' in value) {
      bytes.uint32(stringType);
      bytes.string(value.string);
    } else if ('strings' in value) {
      bytes.uint32(arrayType);
      bytes.uint32(stringType);
      bytes.uint64(value.strings.length);
      for (const item of value.strings) bytes.string(item);
    } else {
      bytes.uint32(arrayType);
      bytes.uint32(int32Type);
      bytes.uint64(value.int32s.length);
      for (const item of value.int32s) bytes.uint32(item);
    }
  }
}

/** GPT-2's visible character for each byte (openai/gpt-2, encoder.py, `bytes_to_unicode`). */
export function byteAlphabet(): string[] {
  const visible = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(visible(byte) ? byte : next++));
}

/** Bits of a positive normal float16, rounded down. */
export function float16Bits(value: number): number {
  const exponent = Math.floor(Math.log2(value));
  return ((exponent + 15) << 10) | Math.floor((value / 2 ** exponent - 1) * 1024);
}

/** xorshift32, for reproducible files. */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 0x1_0000_0000;
  };
}

/** A dummy vocabulary: special tokens, bytes, one merge, padding. */
export function dummyVocabulary(size: number, pre: string): Record<string, MetadataValue> {
  const used = ['<|bos|>', '<|eos|>', ...byteAlphabet(), 'ab'];
  const padding = Array.from({ length: size - used.length }, (_, index) => `[PAD${index}]`);
  const [normal, control, unused] = [1, 3, 5];
  const kind = (index: number) => (index < 2 ? control : index < used.length ? normal : unused);
  return {
    'tokenizer.ggml.model': { string: 'gpt2' },
    'tokenizer.ggml.pre': { string: pre },
    'tokenizer.ggml.tokens': { strings: [...used, ...padding] },
    'tokenizer.ggml.token_type': { int32s: Array.from({ length: size }, (_, index) => kind(index)) },
    'tokenizer.ggml.merges': { strings: ['a b'] },
    'tokenizer.ggml.bos_token_id': { uint32: 0 },
    'tokenizer.ggml.eos_token_id': { uint32: 1 },
  };
}
