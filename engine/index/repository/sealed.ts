/**
 * Values that can be found in what is left of a damaged file, and prove that they are whole and in their place:
 *
 *     marker, 4 bytes · bytes of the value u32 · CRC-32 of the seed and the value u32 · value
 *
 * The seed stands for whatever the value belongs to, so that it never passes for another's. The checksum guards against
 * accidents only. CRC-32 detects every burst error of up to 32 bits and all but one in 2^32 of others.
 */
import { crc32 } from 'node:zlib';

/** Another one for another format of the value. */
export type Marker = 'HEM1' | 'HEV1';

const headBytes = 12;

export function seal(marker: Marker, seed: number, value: Uint8Array): Uint8Array {
  const sealed = Buffer.alloc(headBytes + value.byteLength);
  sealed.write(marker, 'latin1');
  sealed.writeUInt32LE(value.byteLength, 4);
  sealed.writeUInt32LE(crc32(value, seed), 8);
  sealed.set(value, headBytes);
  return sealed;
}

/** The value that begins `bytes`, which share its memory; undefined where it is none of this seed, or not whole. */
export function unseal(marker: Marker, seed: number, bytes: Uint8Array): Uint8Array | undefined {
  const sealed = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (sealed.byteLength < headBytes || sealed.toString('latin1', 0, marker.length) !== marker) return undefined;
  const end = headBytes + sealed.readUInt32LE(4);
  if (end > sealed.byteLength) return undefined;
  const value = sealed.subarray(headBytes, end);
  return crc32(value, seed) === sealed.readUInt32LE(8) ? value : undefined;
}

/** The value of sealed bytes that were checked before. */
export const sealedValue = (sealed: Uint8Array): Uint8Array => sealed.subarray(headBytes);
