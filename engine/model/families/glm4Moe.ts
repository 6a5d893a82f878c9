/**
 * GLM-4.5 and GLM-4.5-Air: grouped-query attention with biases and half-rotated heads, then DeepSeek-V3's experts.
 * Sources: transformers `models/glm4_moe/modeling_glm4_moe.py`; llama.cpp `convert_hf_to_gguf.py` (Glm4MoeModel).
 */
import { z } from 'zod';
import type { GgufKeys } from '../../formats/ggufMetadata.ts';
import { checkedSpec, type DecoderSpec } from '../spec/spec.ts';
import { ggufNames, groupedQueryWeights } from '../weights/decoderWeights.ts';
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
  ropeFromConfig,
  ropeFromGguf,
  rotatedDimensions,
} from './config.ts';
import { expertFields, feedForwardsFromConfig, feedForwardsFromGguf, sigmoidGating } from './deepseekV3.ts';
import { deepseekLikeFromGguf, deepseekLikeFromHuggingFace } from './deepseekV3Weights.ts';
import { type FamilyBuilder, groupedQueryAttention } from './family.ts';

const glm4MoeConfig = z.looseObject({
  ...decoderFields,
  ...expertFields,
  attention_bias: optional(z.boolean()),
  use_qk_norm: optional(z.boolean()),
});

function specFromConfig(config: unknown): DecoderSpec {
  const parsed = parseConfig(glm4MoeConfig, config);
  requireSiluActivation(parsed);
  const sizes = configSizes(parsed);
  // transformers' default.
  const dimensions = rotatedDimensions(config, sizes.headDim, 0.5);
  const rope = ropeFromConfig(parsed, { dimensions, layout: 'half-split' });
  const attention = groupedQueryAttention(
    { ...sizes, rope },
    { bias: { qkv: parsed.attention_bias ?? false, output: false }, qkNorm: parsed.use_qk_norm ?? false },
  );
  return checkedSpec({
    family: 'glm4-moe',
    ...configOuterFields(parsed, rope),
    layers: feedForwardsFromConfig(parsed, sizes.numLayers).map((feedForward) => ({ attention, feedForward })),
  });
}

async function specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec> {
  const sizes = ggufSizes(keys, gguf);
  const { headDim, contextTokens } = sizes;
  const dimensions = keys.optionalNumber('rope.dimension_count') ?? headDim / 2;
  const rope = ropeFromGguf(keys, { dimensions, layout: 'half-split', contextTokens, yarnTruncate: true });
  const attention = groupedQueryAttention(
    { ...sizes, rope },
    {
      bias: { qkv: gguf.tensors.has('blk.0.attn_q.bias'), output: false },
      qkNorm: gguf.tensors.has('blk.0.attn_q_norm.weight'),
    },
  );
  return checkedSpec({
    family: 'glm4-moe',
    ...ggufOuterFields(sizes, rope),
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
      // The converter names the norm before the feed-forward block for its position after attention.
      layer: (index) => ({
        ...ggufNames.layer(index),
        feedForwardNorm: `blk.${index}.post_attention_norm.weight`,
      }),
    }),
};
