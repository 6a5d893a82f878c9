/** Model files written byte by byte, right or wrong on purpose. Independent of the readers under test. */
import type { ByteSource } from '../../../engine/formats/byteReader.ts';

export type Bytes = Uint8Array<ArrayBuffer>;

export function concat(...parts: readonly Uint8Array[]): Bytes {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.byteLength;
  }
  return bytes;
}

const viewed = (length: number, write: (view: DataView) => void): Bytes => {
  const bytes = new Uint8Array(length);
  write(new DataView(bytes.buffer));
  return bytes;
};

export const u8 = (value: number): Bytes => Uint8Array.of(value);
export const u32 = (value: number): Bytes => viewed(4, (view) => view.setUint32(0, value, true));
export const u64 = (value: number | bigint): Bytes => viewed(8, (view) => view.setBigUint64(0, BigInt(value), true));
export const f32 = (value: number): Bytes => viewed(4, (view) => view.setFloat32(0, value, true));
export const f64 = (value: number): Bytes => viewed(8, (view) => view.setFloat64(0, value, true));
export const ascii = (text: string): Bytes => new Uint8Array(Buffer.from(text, 'utf8'));
export const zeros = (length: number): Bytes => new Uint8Array(length);

/** A GGUF string: u64 length, then UTF-8. */
export const text = (value: string): Bytes => concat(u64(Buffer.byteLength(value)), ascii(value));

/** ggml.h `enum gguf_type`. */
export const ggufType = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  boolean: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
  f64: 12,
} as const;

/** ggml.h `enum ggml_type`. */
export const ggmlType = { f32: 0, f16: 1, q4_0: 2, q8_0: 8, q6_k: 14, i32: 26, mxfp4: 39 } as const;

export const key = (name: string, type: number, value: Uint8Array): Bytes => concat(text(name), u32(type), value);
export const stringKey = (name: string, value: string): Bytes => key(name, ggufType.string, text(value));
export const u32Key = (name: string, value: number): Bytes => key(name, ggufType.u32, u32(value));
export const arrayKey = (name: string, elementType: number, count: number | bigint, data: Uint8Array): Bytes =>
  key(name, ggufType.array, concat(u32(elementType), u64(count), data));
export const stringsKey = (name: string, values: readonly string[]): Bytes =>
  arrayKey(name, ggufType.string, values.length, concat(...values.map(text)));

/** One row of the tensor table; `dimensions` innermost first, as in the file. */
export function tensorRow(
  name: string,
  dimensions: readonly (number | bigint)[],
  type: number,
  offset: number | bigint,
): Bytes {
  return concat(text(name), u32(dimensions.length), ...dimensions.map(u64), u32(type), u64(offset));
}

export interface GgufParts {
  readonly magic?: string;
  readonly version?: number;
  readonly keys?: readonly Uint8Array[];
  readonly keyCount?: number | bigint;
  readonly tensors?: readonly Uint8Array[];
  readonly tensorCount?: number | bigint;
  readonly alignment?: number;
  readonly data?: Uint8Array;
}

export function gguf(parts: GgufParts): Bytes {
  const { keys = [], tensors = [], alignment = 32 } = parts;
  const header = concat(
    ascii(parts.magic ?? 'GGUF'),
    u32(parts.version ?? 3),
    u64(parts.tensorCount ?? tensors.length),
    u64(parts.keyCount ?? keys.length),
    ...keys,
    ...tensors,
  );
  const padding = (alignment - (header.byteLength % alignment)) % alignment;
  return concat(header, zeros(padding), parts.data ?? zeros(0));
}

/** Two keys and two tensors, `a` of 8 F32 values and `b` of one Q4_0 block, with recognisable data. */
export function soundGguf(): Bytes {
  return gguf({
    keys: [
      stringKey('general.architecture', 'llama'),
      u32Key('llama.block_count', 2),
      stringsKey('tokenizer.ggml.tokens', ['<s>', 'a', 'é', '']),
      arrayKey('tokenizer.ggml.scores', ggufType.f32, 2, concat(f32(1.5), f32(-2))),
    ],
    tensors: [tensorRow('a', [4, 2], ggmlType.f32, 0), tensorRow('b', [32], ggmlType.q4_0, 32)],
    data: concat(
      ...Array.from({ length: 8 }, (_, i) => f32(i)),
      Uint8Array.from({ length: 18 }, (_, i) => i),
    ),
  });
}

/** A safetensors file from its header's text. */
export function safetensors(header: string, data: Uint8Array = zeros(0), headerBytes?: number | bigint): Bytes {
  return concat(u64(headerBytes ?? Buffer.byteLength(header)), ascii(header), data);
}

/** Two tensors, `a` of 2 × 2 F16 values and `b` of three bytes. */
export function soundSafetensors(): Bytes {
  const header = {
    __metadata__: { format: 'pt' },
    a: { dtype: 'F16', shape: [2, 2], data_offsets: [0, 8] },
    b: { dtype: 'U8', shape: [3], data_offsets: [8, 11] },
  };
  return safetensors(
    JSON.stringify(header),
    Uint8Array.from({ length: 11 }, (_, i) => i),
  );
}

export function memorySource(bytes: Uint8Array, name = 'test'): ByteSource {
  return {
    name,
    byteLength: bytes.byteLength,
    read(position, destination) {
      if (position + destination.byteLength > bytes.byteLength) throw new RangeError('read behind the end');
      destination.set(bytes.subarray(position, position + destination.byteLength));
    },
  };
}
