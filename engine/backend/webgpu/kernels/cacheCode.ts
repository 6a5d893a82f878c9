/**
 * WGSL to reach the key-value cache: pages of `pageTokens` tokens, found through a table of page numbers a sequence. A
 * value is f32, or f16 in halves of a word (no adapter feature needed).
 */

/** Tokens a page. A block of keys that attention loads at once lies within one page. */
export const pageTokens = 32;

export type CachePrecision = 'f32' | 'f16';

/** Bytes of one cached value. */
export const cacheValueBytes = (precision: CachePrecision): number => (precision === 'f16' ? 2 : 4);

/**
 * A row of the batch, as kernels see it: its position in its sequence, where its sequence's page table starts in `pages`,
 * its token id, and the row of `angles` that turns its heads.
 */
export const rowStruct = 'struct Row { position: u32, table: u32, id: u32, angle: u32 }';

/** Four consecutive values of `name` (array of u32) at value index `4 * quad`. */
export function readCache(name: string, precision: CachePrecision): string {
  return precision === 'f16'
    ? /* wgsl */ `fn read_${name}(quad: u32) -> vec4f { return vec4f(unpack2x16float(${name}[2u * quad]), unpack2x16float(${name}[2u * quad + 1u])); }`
    : /* wgsl */ `fn read_${name}(quad: u32) -> vec4f { let at = 4u * quad; return bitcast<vec4f>(vec4u(${name}[at], ${name}[at + 1u], ${name}[at + 2u], ${name}[at + 3u])); }`;
}

export function writeCache(name: string, precision: CachePrecision): string {
  return precision === 'f16'
    ? /* wgsl */ `fn write_${name}(quad: u32, value: vec4f) { ${name}[2u * quad] = pack2x16float(value.xy); ${name}[2u * quad + 1u] = pack2x16float(value.zw); }`
    : /* wgsl */ `fn write_${name}(quad: u32, value: vec4f) { let at = 4u * quad; let bits = bitcast<vec4u>(value); ${name}[at] = bits.x; ${name}[at + 1u] = bits.y; ${name}[at + 2u] = bits.z; ${name}[at + 3u] = bits.w; }`;
}
