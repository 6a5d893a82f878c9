/** KV-cache precisions and their sizes. */
import type { CachePrecision } from '../../protocol/engineProtocol.ts';
import { type AttentionSpec, cacheValuesPerToken, type DecoderSpec } from './spec.ts';

/** The precision that the CPU backend uses for a requested one. */
export const processorPrecision = (asked: CachePrecision = 'f16'): 'f32' | 'f16' => (asked === 'f32' ? 'f32' : 'f16');

/** One row of the KV cache: the key or value of one head, or a latent with its rotated key. */
export interface CacheRow {
  /** Elements; a multiple of four. */
  readonly width: number;
  /** Elements of a `q8` block. No block spans a latent and its rotated key. */
  readonly block: number;
}

export function cacheRowOf(attention: AttentionSpec): CacheRow {
  if (attention.kind === 'grouped-query') return { width: attention.headDim, block: blockOf(attention.headDim) };
  const { keyValueRank: rank, ropeHeadDim: rope } = attention;
  return { width: rank + rope, block: blockOf(rank, rope) };
}

const blockOf = (...widths: readonly number[]): number =>
  [32, 16, 8].find((block) => widths.every((width) => width % block === 0)) ?? 4;

export function cacheRowBytes({ width, block }: CacheRow, precision: CachePrecision): number {
  return precision === 'q8' ? width + (4 * width) / block : width * (precision === 'f16' ? 2 : 4);
}

/** Rows that a token adds to one layer. */
export const cacheRowsPerToken = (attention: AttentionSpec): number =>
  attention.kind === 'latent' ? 1 : 2 * attention.numKeyValueHeads;

/** Bytes of one token in all given layers. */
export function cacheBytesPerToken(attentions: readonly AttentionSpec[], precision: CachePrecision): number {
  return attentions.reduce(
    (sum, attention) => sum + cacheRowsPerToken(attention) * cacheRowBytes(cacheRowOf(attention), precision),
    0,
  );
}

/** Average bytes of one cached element, scales included. */
export function cacheBytesPerValue({ layers }: Pick<DecoderSpec, 'layers'>, precision: CachePrecision): number {
  const attentions = layers.map(({ attention }) => attention);
  const values = attentions.reduce((sum, attention) => sum + cacheValuesPerToken(attention), 0);
  return cacheBytesPerToken(attentions, precision) / values;
}
