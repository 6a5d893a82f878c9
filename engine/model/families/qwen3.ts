/**
 * Qwen3, dense: RMSNorm on every query and key head before RoPE, an independent head width, no biases. Sources:
 * transformers `models/qwen3/modeling_qwen3.py`; llama.cpp `convert_hf_to_gguf.py` (Qwen3Model).
 */
import { z } from 'zod';
import type { GgufKeys } from '../../formats/ggufMetadata.ts';
import { checkedSpec, type DecoderSpec, type GroupedQueryAttentionSpec } from '../spec/spec.ts';
import {
  configOuterFields,
  configSizes,
  decoderFields,
  type GgufSource,
  ggufOuterFields,
  ggufSizes,
  optional,
  parseConfig,
  requireSiluActivation,
  requireValue,
  ropeFromConfig,
  ropeFromGguf,
} from './config.ts';
import { type FamilyBuilder, groupedQueryAttention, type HeadSizes, swiGlu, usualWeights } from './family.ts';
import { qwenSlidingWindows, qwenWindowFields } from './qwen2.ts';

export const qwen3Fields = {
  ...decoderFields,
  ...qwenWindowFields,
  attention_bias: optional(z.boolean()),
};
const qwen3Config = z.looseObject(qwen3Fields);
export type Qwen3Config = z.infer<typeof qwen3Config>;

/** Every query head and every key head is normalised. */
export const qwen3Attention = (sizes: HeadSizes, slidingWindow?: number): GroupedQueryAttentionSpec =>
  groupedQueryAttention(sizes, { qkNorm: true, slidingWindow });

/** Attention of each layer, and the fields outside the layers, of dense and mixture-of-experts models. */
export function qwen3FromConfig(config: Qwen3Config) {
  requireSiluActivation(config);
  requireValue('attention_bias', config.attention_bias ?? false, false);
  // 128 in all published models, some of which differ from hidden_size / num_attention_heads; also transformers'
  // default.
  const sizes = configSizes({ ...config, head_dim: config.head_dim ?? 128 });
  const rope = ropeFromConfig(config, { dimensions: sizes.headDim, layout: 'half-split' });
  const attentions = qwenSlidingWindows(config).map((window) => qwen3Attention({ ...sizes, rope }, window));
  return { outer: configOuterFields(config, rope), attentions };
}

export function qwen3FromGguf(keys: GgufKeys, gguf: GgufSource) {
  const sizes = ggufSizes(keys, gguf);
  const { headDim: dimensions, contextTokens } = sizes;
  const rope = ropeFromGguf(keys, { dimensions, layout: 'half-split', contextTokens, yarnTruncate: true });
  return { sizes, outer: ggufOuterFields(sizes, rope), attention: qwen3Attention({ ...sizes, rope }) };
}

function specFromConfig(config: unknown): DecoderSpec {
  const parsed = parseConfig(qwen3Config, config);
  const { outer, attentions } = qwen3FromConfig(parsed);
  const feedForward = swiGlu(parsed.intermediate_size);
  return checkedSpec({
    family: 'qwen3',
    ...outer,
    layers: attentions.map((attention) => ({ attention, feedForward })),
  });
}

async function specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec> {
  const { sizes, outer, attention } = qwen3FromGguf(keys, gguf);
  const feedForward = swiGlu(sizes.intermediateSize);
  return checkedSpec({
    family: 'qwen3',
    ...outer,
    layers: Array.from({ length: sizes.numLayers }, () => ({ attention, feedForward })),
  });
}

export const qwen3: FamilyBuilder = {
  modelTypes: ['qwen3'],
  ggufArchitecture: 'qwen3',
  // "Best practices" of the Qwen3 cards, thinking.
  sampling: { temperature: 0.6, topP: 0.95, topK: 20 },
  specFromConfig,
  specFromGguf,
  ...usualWeights,
};
