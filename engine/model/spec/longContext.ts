/** YaRN on request: models whose publisher documents a longer context than the configuration switches on. */
import { unsupported } from '../../errors.ts';
import { yarnMscale } from './rope.ts';
import type { AttentionSpec, DecoderSpec } from './spec.ts';

/**
 * Qwen states 4 (131,072 tokens) as the largest factor it validated, "original_max_position_embeddings": 32768
 * (QwenLM/Qwen3 docs/source/inference/transformers.md; the same text in Qwen2.5's model cards). The 40,960 positions of
 * Qwen3's configuration are 32,768 plus room for the answer.
 */
const qwenOriginalContextTokens = 32_768;
const qwenShippedContextTokens = 40_960;
const largestFactor = 4;

/** The spec with YaRN's static stretch by `factor`. It can cost quality on short texts: ask for no more than needed. */
export function withYarn(spec: DecoderSpec, factor: number): DecoderSpec {
  if (!canStretch(spec)) throw unsupported(`${spec.family} with these rotary settings documents no YaRN on request.`);
  if (!(factor >= 1 && factor <= largestFactor)) {
    throw unsupported(`YaRN factors from 1 to ${largestFactor} are documented for ${spec.family}, not ${factor}.`);
  }
  const originalContextTokens = originalContextTokensOf(spec);
  const yarn = {
    factor,
    originalContextTokens,
    betaFast: 32,
    betaSlow: 1,
    truncate: true,
    attentionFactor: yarnMscale(factor),
  };
  const stretched = (attention: AttentionSpec): AttentionSpec => ({ ...attention, rope: { ...attention.rope, yarn } });
  return {
    ...spec,
    contextTokens: Math.floor(originalContextTokens * factor),
    layers: spec.layers.map((layer) => ({ ...layer, attention: stretched(layer.attention) })),
  };
}

/** The spec for a context of `contextTokens`: as it is where that suffices, else with the smallest stretch that does. */
export function withContext(spec: DecoderSpec, contextTokens: number): DecoderSpec {
  if (contextTokens <= spec.contextTokens) return spec;
  return withYarn(spec, contextTokens / originalContextTokensOf(spec));
}

/** What `withYarn` may be asked for; undefined where the publisher documents nothing, or the configuration stretches already. */
export function yarnOnRequest(
  spec: DecoderSpec,
): { readonly largestFactor: number; readonly originalContextTokens: number } | undefined {
  return canStretch(spec) ? { largestFactor, originalContextTokens: originalContextTokensOf(spec) } : undefined;
}

/** The longest context that `withContext` can give. */
export function longestContextTokens(spec: DecoderSpec): number {
  const yarn = yarnOnRequest(spec);
  return Math.max(spec.contextTokens, yarn ? yarn.largestFactor * yarn.originalContextTokens : 0);
}

function canStretch(spec: DecoderSpec): boolean {
  const isQwen = spec.family === 'qwen2' || spec.family === 'qwen3' || spec.family === 'qwen3-moe';
  return isQwen && spec.layers.every(({ attention: { rope } }) => !rope.yarn && rope.linearFactor === undefined);
}

function originalContextTokensOf(spec: DecoderSpec): number {
  return spec.contextTokens === qwenShippedContextTokens ? qwenOriginalContextTokens : spec.contextTokens;
}
