/** Rows of the key-value cache as kernels keep them. */

import { type CacheRow, cacheRowBytes } from '../../engine/model/spec/spec.ts';
import type { CachePrecision } from '../../engine/protocol/models.ts';

/** `[rows, row.width]` as words. */
export function packRows(values: Float32Array, precision: CachePrecision, row: CacheRow): Uint32Array<ArrayBuffer> {
  if (precision === 'f32') return new Uint32Array(Float32Array.from(values).buffer);
  if (precision === 'f16') return new Uint32Array(new Float16Array(values).buffer);
  const { width, block } = row;
  const rowBytes = cacheRowBytes(row, 'q8');
  const bytes = new DataView(new ArrayBuffer((values.length / width) * rowBytes));
  for (let start = 0; start < values.length; start += block) {
    const first = Math.floor(start / width) * rowBytes;
    const scale = Math.max(...values.subarray(start, start + block).map(Math.abs)) / 127;
    bytes.setFloat32(first + width + 4 * ((start % width) / block), scale, true);
    for (let i = start; i < start + block; i++) {
      bytes.setInt8(first + (i % width), scale === 0 ? 0 : Math.round((values[i] ?? 0) / scale));
    }
  }
  return new Uint32Array(bytes.buffer);
}

/** The other way. */
export function unpackRows(
  words: ArrayBufferView<ArrayBuffer>,
  precision: CachePrecision,
  row: CacheRow,
): Float32Array {
  const { buffer, byteOffset, byteLength } = words;
  if (precision === 'f32') return new Float32Array(buffer, byteOffset, byteLength / 4);
  if (precision === 'f16') return Float32Array.from(new Float16Array(buffer, byteOffset, byteLength / 2));
  const { width, block } = row;
  const rowBytes = cacheRowBytes(row, 'q8');
  const bytes = new DataView(buffer, byteOffset, byteLength);
  return Float32Array.from({ length: (byteLength / rowBytes) * width }, (_, i) => {
    const first = Math.floor(i / width) * rowBytes;
    const scale = bytes.getFloat32(first + width + 4 * Math.floor((i % width) / block), true);
    return bytes.getInt8(first + (i % width)) * scale;
  });
}
