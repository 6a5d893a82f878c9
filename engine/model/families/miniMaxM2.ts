/**
 * MiniMax-M2, M2.1 and M2.5: grouped-query attention with norms over all query heads and over all key heads together,
 * partly rotated heads, and experts chosen as in DeepSeek-V3, but in one group and without a shared expert. Sources:
 * transformers `models/minimax_m2/modular_minimax_m2.py`; llama.cpp `conversion/minimax.py` and
 * `src/models/minimax-m2.cpp`.
 */
import { z } from 'zod';
import type { GgufKeys } from '../../formats/ggufMetadata.ts';
import type { TensorFile } from '../../formats/tensor.ts';
import { limits } from '../../limits.ts';
import { checkedSpec, type DecoderSpec, type ExpertsSpec, type GroupedQueryAttentionSpec } from '../spec/spec.ts';
import {
  decoderWeights,
  expertsApart,
  expertsOf,
  groupedQueryWeights,
  huggingFaceNames,
  tensorTable,
} from '../weights/decoderWeights.ts';
import type { DecoderWeights } from '../weights/weights.ts';
import {
  configOuterFields,
  configSizes,
  decoderFields,
  experts,
  fp8BlockOf,
  type GgufSource,
  ggufOuterFields,
  ggufSizes,
  optional,
  parseConfig,
  requireSiluActivation,
  requireValue,
  ropeFromConfig,
  ropeFromGguf,
  rotatedDimensions,
  width,
} from './config.ts';
import { requireSigmoidGating, sigmoidExperts } from './deepseekV3.ts';
import { deepseekFeedForward, deepseekLikeFromGguf } from './deepseekV3Weights.ts';
import { type FamilyBuilder, groupedQueryAttention, type HeadSizes } from './family.ts';

const miniMaxConfig = z.looseObject({
  ...decoderFields,
  rotary_dim: optional(width),
  num_local_experts: experts,
  num_experts_per_tok: experts,
  scoring_func: optional(z.string()),
  use_routing_bias: optional(z.boolean()),
  use_qk_norm: optional(z.boolean()),
  qk_norm_type: optional(z.string()),
  shared_intermediate_size: optional(z.number()),
  /** 1: attention; 0: the linear attention of MiniMax-M1. */
  attn_type_list: optional(z.array(z.number())),
});

const attentionOf = (sizes: HeadSizes): GroupedQueryAttentionSpec =>
  groupedQueryAttention(sizes, { qkNorm: true, jointNorm: true });

const feedForwardOf = (sizes: Pick<ExpertsSpec, 'numExperts' | 'expertsPerToken' | 'intermediateSize'>): ExpertsSpec =>
  sigmoidExperts({ ...sizes, sharedExperts: 0, groups: 1, groupsUsed: 1, renormalise: true, routedScale: 1 });

function specFromConfig(config: unknown): DecoderSpec {
  const parsed = parseConfig(miniMaxConfig, config);
  requireSiluActivation(parsed);
  requireValue('scoring_func', parsed.scoring_func ?? 'sigmoid', 'sigmoid');
  requireValue('use_routing_bias', parsed.use_routing_bias ?? true, true);
  requireValue('use_qk_norm', parsed.use_qk_norm ?? true, true);
  requireValue('qk_norm_type', parsed.qk_norm_type ?? 'per_layer', 'per_layer');
  requireValue('shared_intermediate_size', parsed.shared_intermediate_size ?? 0, 0);
  for (const type of parsed.attn_type_list ?? []) requireValue('attn_type_list', type, 1);
  const sizes = configSizes(parsed);
  // transformers' default.
  const dimensions = parsed.rotary_dim ?? rotatedDimensions(config, sizes.headDim, 0.5);
  const rope = ropeFromConfig(parsed, { dimensions, layout: 'half-split' });
  const attention = attentionOf({ ...sizes, rope });
  const feedForward = feedForwardOf({
    numExperts: parsed.num_local_experts,
    expertsPerToken: parsed.num_experts_per_tok,
    intermediateSize: parsed.intermediate_size,
  });
  return checkedSpec({
    family: 'minimax-m2',
    ...configOuterFields(parsed, rope),
    layers: Array.from({ length: sizes.numLayers }, () => ({ attention, feedForward })),
  });
}

async function specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec> {
  const sizes = ggufSizes(keys, gguf);
  const { headDim, contextTokens } = sizes;
  requireSigmoidGating(keys);
  const dimensions = keys.optionalNumber('rope.dimension_count') ?? headDim / 2;
  const rope = ropeFromGguf(keys, { dimensions, layout: 'half-split', contextTokens, yarnTruncate: true });
  const attention = attentionOf({ ...sizes, rope });
  const feedForward = feedForwardOf({
    numExperts: keys.size('expert_count', limits.model.experts),
    expertsPerToken: keys.size('expert_used_count', limits.model.experts),
    intermediateSize: keys.optionalSize('expert_feed_forward_length', limits.model.width) ?? sizes.intermediateSize,
  });
  return checkedSpec({
    family: 'minimax-m2',
    ...ggufOuterFields(sizes, rope),
    layers: Array.from({ length: sizes.numLayers }, () => ({ attention, feedForward })),
  });
}

function weightsFromHuggingFace(spec: DecoderSpec, file: TensorFile, config: unknown): DecoderWeights {
  const block = (index: number) => `model.layers.${index}.block_sparse_moe`;
  const names = {
    ...huggingFaceNames,
    layer: (index: number) => ({ ...huggingFaceNames.layer(index), router: `${block(index)}.gate` }),
  };
  return decoderWeights(spec, tensorTable(file, fp8BlockOf(config)), names, {
    attention: groupedQueryWeights,
    feedForward: (context) =>
      deepseekFeedForward(context, {
        selectionBias: `${block(context.index)}.e_score_correction_bias`,
        // Mixtral's names.
        experts: expertsApart(context, expertsOf(context), `${block(context.index)}.experts`, {
          gate: 'w1',
          up: 'w3',
          down: 'w2',
        }),
      }),
  });
}

export const miniMaxM2: FamilyBuilder = {
  modelTypes: ['minimax_m2'],
  ggufArchitecture: 'minimax-m2',
  // "MiniMax-M2" card, "Inference Parameters".
  sampling: { temperature: 1, topP: 0.95, topK: 40 },
  specFromConfig,
  specFromGguf,
  weightsFromHuggingFace,
  weightsFromGguf: (spec, file) => deepseekLikeFromGguf(spec, file, groupedQueryWeights),
};
