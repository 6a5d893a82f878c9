/**
 * WGSL to access the KV cache: pages of `pageTokens` tokens, found through a page table for each sequence. A page
 * is rows of `CacheRow.width` values: f32, f16 in halves of a word (no adapter feature needed), or `q8`, bytes followed by the scales
 * of the row's blocks.
 */

import { type CacheRow, cacheRowBytes } from '../../../model/spec/spec.ts';
import type { CachePrecision } from '../../../protocol/models.ts';

/** Tokens of a page. The keys that attention loads at once are within one page. */
export const pageTokens = 32;

/**
 * A row of the batch: its position in its sequence, the start of the sequence's page table in `pages`, its token id, and the
 * row of `angles` that rotates its heads.
 */
export const rowStruct = 'struct Row { position: u32, table: u32, id: u32, angle: u32 }';

/** Reads rows of a cache in items of `quads` times four values, 16 bytes each if rows start at multiples of 16 bytes. */
export interface CacheReader {
  /** WGSL type of the buffer's elements, and of an item as `fetch_NAME` gives it. */
  readonly element: 'u32' | 'vec4u';
  readonly item: 'vec4u' | 'vec4f';
  readonly quads: 1 | 2;
  /** `fn fetch_NAME(row: u32, item: u32) -> item` */
  readonly code: string;
  /** WGSL of one of an item's four values. */
  readonly quad: (item: string, index: number) => string;
}

export function cacheReader(name: string, precision: CachePrecision, row: CacheRow): CacheReader {
  const rowBytes = cacheRowBytes(row, precision);
  const fetch = (item: string, body: string) => `fn fetch_${name}(row: u32, item: u32) -> ${item} { ${body} }`;
  if (precision !== 'q8' && rowBytes % 16 === 0) {
    const code = fetch('vec4u', `return ${name}[row * ${rowBytes / 16}u + item];`);
    const halves = (item: string, pair: string) =>
      `vec4f(unpack2x16float(${item}.${pair[0]}), unpack2x16float(${item}.${pair[1]}))`;
    return precision === 'f16'
      ? {
          element: 'vec4u',
          item: 'vec4u',
          quads: 2,
          code,
          quad: (item, index) => halves(item, index === 0 ? 'xy' : 'zw'),
        }
      : { element: 'vec4u', item: 'vec4u', quads: 1, code, quad: (item) => `bitcast<vec4f>(${item})` };
  }
  const first = `row * ${rowBytes / 4}u`;
  const scalars = { element: 'u32', item: 'vec4f', quads: 1, quad: (item: string) => item } as const;
  if (precision === 'f16') {
    const body = `let at = ${first} + 2u * item; return vec4f(unpack2x16float(${name}[at]), unpack2x16float(${name}[at + 1u]));`;
    return { ...scalars, code: fetch('vec4f', body) };
  }
  if (precision === 'f32') {
    const body = `let at = ${first} + 4u * item; return bitcast<vec4f>(vec4u(${name}[at], ${name}[at + 1u], ${name}[at + 2u], ${name}[at + 3u]));`;
    return { ...scalars, code: fetch('vec4f', body) };
  }
  const body = /* wgsl */ `
  let bytes = vec4i(vec4u(${name}[${first} + item]) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u);
  return vec4f(bytes) * bitcast<f32>(${name}[${first} + ${row.width / 4}u + item / ${row.block / 4}u]);`;
  return { ...scalars, code: fetch('vec4f', body) };
}

/** WGSL: two values as halves. Values beyond f16's range are clamped as on the CPU, because WGSL does not define how they are packed. */
export const packHalves = (pair: string): string => `pack2x16float(clamp(${pair}, vec2f(-65504.0), vec2f(65504.0)))`;

/**
 * Statement by which `threads` threads write the row `row` (WGSL) of `name`; `value` returns four values of `quad`, and is
 * evaluated twice for `q8`.
 */
export function writeCacheRow(
  name: string,
  precision: CachePrecision,
  { width, block }: CacheRow,
  { row, value, threads }: { readonly row: string; readonly value: string; readonly threads: number },
): string {
  const first = `let first = ${row} * ${cacheRowBytes({ width, block }, precision) / 4}u;`;
  const quads = width / 4;
  if (precision !== 'q8') {
    const store =
      precision === 'f16'
        ? `let at = first + 2u * quad; ${name}[at] = ${packHalves('value.xy')}; ${name}[at + 1u] = ${packHalves('value.zw')};`
        : `let at = first + 4u * quad; let bits = bitcast<vec4u>(value); ${name}[at] = bits.x; ${name}[at + 1u] = bits.y; ${name}[at + 2u] = bits.z; ${name}[at + 3u] = bits.w;`;
    return /* wgsl */ `{ ${first} for (var quad = thread; quad < ${quads}u; quad += ${threads}u) { let value = ${value}; ${store} } }`;
  }
  const each = (body: string) =>
    `for (var quad = block * ${block / 4}u; quad < (block + 1u) * ${block / 4}u; quad++) { let value = ${value}; ${body} }`;
  return /* wgsl */ `{
    ${first}
    for (var block = thread; block < ${width / block}u; block += ${threads}u) {
      var most = vec4f();
      ${each('most = max(most, abs(value));')}
      let largest = max(max(most.x, most.y), max(most.z, most.w));
      // Values below 1e-30 become zero; their reciprocal would overflow f32.
      let up = select(0.0, 127.0 / largest, largest > 1e-30);
      ${each(`let bytes = bitcast<vec4u>(vec4i(round(value * up))) & vec4u(255u); ${name}[first + quad] = bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);`)}
      ${name}[first + ${quads}u + block] = bitcast<u32>(largest / 127.0);
    }
  }`;
}
