/** How keys and values are kept between tokens, and what that takes. */
import type { CachePrecision } from '../../protocol/engineProtocol.ts';
import { type AttentionSpec, cacheValuesPerToken, type DecoderSpec } from './spec.ts';

/** How the CPU backend keeps what is asked for. */
export const processorPrecision = (asked: CachePrecision = 'f16'): 'f32' | 'f16' => (asked === 'f32' ? 'f32' : 'f16');

/** What is cached together: the key or the value of one head, or a latent with its rotated key. */
export interface CacheRow {
  /** Values, a multiple of four. */
  readonly width: number;
  /** Values of a block of `q8`; a latent's block holds nothing of its key. */
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

/** Rows that a token adds to a layer. */
export const cacheRowsPerToken = (attention: AttentionSpec): number =>
  attention.kind === 'latent' ? 1 : 2 * attention.numKeyValueHeads;

/** Bytes of one token in all of these layers. */
export function cacheBytesPerToken(attentions: readonly AttentionSpec[], precision: CachePrecision): number {
  return attentions.reduce(
    (sum, attention) => sum + cacheRowsPerToken(attention) * cacheRowBytes(cacheRowOf(attention), precision),
    0,
  );
}

/** Scales included, on average. */
export function cacheBytesPerValue({ layers }: Pick<DecoderSpec, 'layers'>, precision: CachePrecision): number {
  const attentions = layers.map(({ attention }) => attention);
  const values = attentions.reduce((sum, attention) => sum + cacheValuesPerToken(attention), 0);
  return cacheBytesPerToken(attentions, precision) / values;
}
