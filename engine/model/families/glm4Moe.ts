/**
 * GLM-4.5 and GLM-4.5-Air: grouped-query attention with biases and half-rotated heads, then DeepSeek-V3's experts.
 * Sources: transformers `models/glm4_moe/modeling_glm4_moe.py`; llama.cpp `convert_hf_to_gguf.py` (Glm4MoeModel).
 */
import { z } from 'zod';
import type { DecoderSpec, GroupedQueryAttentionSpec } from '../spec/spec.ts';
import { checkedSpec } from '../spec/spec.ts';
import { ggufNames, groupedQueryWeights } from '../weights/decoderWeights.ts';
import type { FamilyBuilder } from './config.ts';
import {
  contextTokensOf,
  decoderFields,
  type GgufKeys,
  type GgufSource,
  ggufSizes,
  headDimOf,
  optional,
  parseConfig,
  requireSiluActivation,
  ropeFromConfig,
  ropeFromGguf,
  rotatedDimensions,
} from './config.ts';
import { expertFields, feedForwardsFromConfig, feedForwardsFromGguf, sigmoidGating } from './deepseekV3.ts';
import { deepseekLikeFromGguf, deepseekLikeFromHuggingFace } from './deepseekV3Weights.ts';

const glm4MoeConfig = z.looseObject({
  ...decoderFields,
  ...expertFields,
  attention_bias: optional(z.boolean()),
  use_qk_norm: optional(z.boolean()),
});

type Sizes = Pick<GroupedQueryAttentionSpec, 'numAttentionHeads' | 'numKeyValueHeads' | 'headDim' | 'rope' | 'qkNorm'>;

const attentionOf = (sizes: Sizes, bias: boolean): GroupedQueryAttentionSpec => ({
  kind: 'grouped-query',
  ...sizes,
  bias: { qkv: bias, output: false },
  sinks: false,
  softmaxScale: sizes.headDim ** -0.5,
});

function specFromConfig(config: unknown): DecoderSpec {
  const parsed = parseConfig(glm4MoeConfig, config);
  requireSiluActivation(parsed);
  const headDim = headDimOf(parsed);
  // transformers' default.
  const dimensions = rotatedDimensions(config, headDim, 0.5);
  const rope = ropeFromConfig(parsed, { dimensions, layout: 'half-split' });
  const sizes = {
    numAttentionHeads: parsed.num_attention_heads,
    numKeyValueHeads: parsed.num_key_value_heads ?? parsed.num_attention_heads,
    headDim,
    rope,
    qkNorm: parsed.use_qk_norm ?? false,
  };
  const attention = attentionOf(sizes, parsed.attention_bias ?? false);
  return checkedSpec({
    family: 'glm4-moe',
    vocabularySize: parsed.vocab_size,
    hiddenSize: parsed.hidden_size,
    normEpsilon: parsed.rms_norm_eps,
    contextTokens: contextTokensOf(parsed.max_position_embeddings, rope),
    tiedEmbeddings: parsed.tie_word_embeddings ?? false,
    layers: feedForwardsFromConfig(parsed, parsed.num_hidden_layers).map((feedForward) => ({ attention, feedForward })),
  });
}

async function specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec> {
  const { numAttentionHeads, numKeyValueHeads, headDim, contextTokens, ...sizes } = ggufSizes(keys, gguf);
  const dimensions = keys.optionalNumber('rope.dimension_count') ?? headDim / 2;
  const rope = ropeFromGguf(keys, { dimensions, layout: 'half-split', contextTokens, yarnTruncate: true });
  const qkNorm = gguf.tensors.has('blk.0.attn_q_norm.weight');
  const heads = { numAttentionHeads, numKeyValueHeads, headDim, rope, qkNorm };
  const attention = attentionOf(heads, gguf.tensors.has('blk.0.attn_q.bias'));
  return checkedSpec({
    family: 'glm4-moe',
    vocabularySize: sizes.vocabularySize,
    hiddenSize: sizes.hiddenSize,
    normEpsilon: sizes.normEpsilon,
    contextTokens: contextTokensOf(contextTokens, rope),
    tiedEmbeddings: sizes.tiedEmbeddings,
    layers: feedForwardsFromGguf(keys, sigmoidGating).map((feedForward) => ({ attention, feedForward })),
  });
}

export const glm4Moe: FamilyBuilder = {
  modelTypes: ['glm4_moe'],
  ggufArchitecture: 'glm4moe',
  // "GLM-4.5" card and generation_config.json.
  sampling: { temperature: 0.6 },
  specFromConfig,
  specFromGguf,
  weightsFromHuggingFace: (spec, file, config) => deepseekLikeFromHuggingFace(spec, file, config, groupedQueryWeights),
  weightsFromGguf: (spec, file) =>
    deepseekLikeFromGguf(spec, file, groupedQueryWeights, {
      ...ggufNames,
      // The converter names the norm before the feed-forward block after its place behind attention.
      layer: (index) => ({
        ...ggufNames.layer(index),
        feedForwardNorm: `blk.${index}.post_attention_norm.weight`,
      }),
    }),
};
