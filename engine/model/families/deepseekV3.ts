/**
 * DeepSeek-V3, V3.1 and R1: latent attention, a few dense layers, then grouped experts plus a shared expert. Sources:
 * technical report (arXiv 2412.19437, section 2.1); deepseek-ai/DeepSeek-V3 `inference/model.py`; transformers
 * `models/deepseek_v3/modeling_deepseek_v3.py`; llama.cpp `src/models/deepseek2.cpp`. Weights: deepseekV3Weights.ts.
 */
import { z } from 'zod';
import { invalidInput, unsupported } from '../../errors.ts';
import type { GgufKeys } from '../../formats/ggufMetadata.ts';
import { limits } from '../../limits.ts';
import { yarnMscale } from '../spec/rope.ts';
import {
  checkedSpec,
  type DecoderSpec,
  type DenseSpec,
  type ExpertsSpec,
  type Family,
  type LatentAttentionSpec,
  type RopeSpec,
} from '../spec/spec.ts';
import {
  configOuterFields,
  contextTokensOf,
  decoderFields,
  experts,
  type GgufSource,
  ggufVocabulary,
  optional,
  parseConfig,
  requireSiluActivation,
  requireValue,
  ropeFromConfig,
  ropeFromGguf,
  ropeMscaleAllDim,
  width,
} from './config.ts';
import { deepseekFromGguf, deepseekFromHuggingFace } from './deepseekV3Weights.ts';
import { type FamilyBuilder, swiGlu } from './family.ts';

/** Keys that families with these experts share (GLM-4.5). */
export const expertFields = {
  first_k_dense_replace: z.number().int().min(0),
  moe_layer_freq: optional(z.number()),
  moe_intermediate_size: width,
  n_routed_experts: experts,
  n_shared_experts: optional(z.number().int().min(0).max(limits.model.experts)),
  num_experts_per_tok: experts,
  n_group: experts,
  topk_group: experts,
  norm_topk_prob: optional(z.boolean()),
  routed_scaling_factor: z.number(),
  scoring_func: optional(z.string()),
  topk_method: optional(z.string()),
};
type ExpertConfig = z.infer<z.ZodObject<typeof expertFields>> & { readonly intermediate_size: number };

/** Configuration of families with this attention and these experts (GLM-4.7-Flash). */
const latentConfig = z.looseObject({
  ...decoderFields,
  ...expertFields,
  q_lora_rank: optional(width),
  kv_lora_rank: width,
  qk_nope_head_dim: width,
  qk_rope_head_dim: width,
  v_head_dim: width,
  rope_interleave: optional(z.boolean()),
  attention_bias: optional(z.boolean()),
});
type LatentConfig = z.infer<typeof latentConfig>;

/**
 * transformers leaves the epsilon of these two norms at its default and ignores `rms_norm_eps`. llama.cpp uses
 * `rms_norm_eps` (1e-5 in GLM-4.7-Flash): with a mean square of 1, the results differ by 5e-6.
 */
const latentNormEpsilon = 1e-6;

export function latentSpecFromConfig(family: Family, config: unknown): DecoderSpec {
  const parsed = parseConfig(latentConfig, config);
  requireComputable(parsed);
  const attention = attentionFromConfig(parsed);
  return checkedSpec({
    family,
    ...configOuterFields(parsed, attention.rope),
    layers: feedForwardsFromConfig(parsed, parsed.num_hidden_layers).map((feedForward) => ({ attention, feedForward })),
  });
}

/** One entry a layer. Omits the multi-token prediction layer after the last one: plain decoding doesn't use it. */
export function feedForwardsFromConfig(config: ExpertConfig, numLayers: number): (DenseSpec | ExpertsSpec)[] {
  requireValue('moe_layer_freq', config.moe_layer_freq ?? 1, 1);
  requireValue('scoring_func', config.scoring_func ?? 'sigmoid', 'sigmoid');
  requireValue('topk_method', config.topk_method ?? 'noaux_tc', 'noaux_tc');
  const dense = swiGlu(config.intermediate_size);
  const sparse = expertsFromConfig(config);
  return Array.from({ length: numLayers }, (_, layer) => (layer < config.first_k_dense_replace ? dense : sparse));
}

function requireComputable(config: LatentConfig): void {
  requireSiluActivation(config);
  requireValue('attention_bias', config.attention_bias ?? false, false);
}

function attentionFromConfig(config: LatentConfig): LatentAttentionSpec {
  const rope = ropeFromConfig(config, {
    dimensions: config.qk_rope_head_dim,
    // Configurations without the key are interleaved: it was introduced after the models.
    layout: (config.rope_interleave ?? true) ? 'interleaved' : 'half-split',
  });
  const mscale = rope.yarn ? yarnMscale(rope.yarn.factor, ropeMscaleAllDim(config)) : 1;
  return {
    kind: 'latent',
    numAttentionHeads: config.num_attention_heads,
    ...(config.q_lora_rank !== undefined && { queryRank: config.q_lora_rank }),
    keyValueRank: config.kv_lora_rank,
    nopeHeadDim: config.qk_nope_head_dim,
    ropeHeadDim: config.qk_rope_head_dim,
    valueHeadDim: config.v_head_dim,
    normEpsilon: latentNormEpsilon,
    rope,
    softmaxScale: softmaxScaleOf(config.qk_nope_head_dim + config.qk_rope_head_dim, mscale),
  };
}

/** DeepSeek applies YaRN's temperature to the scores. On cos and sin, its two factors cancel. */
function softmaxScaleOf(headDim: number, mscale: number): number {
  return headDim ** -0.5 * mscale * mscale;
}

function expertsFromConfig(config: ExpertConfig): ExpertsSpec {
  return sigmoidExperts({
    numExperts: config.n_routed_experts,
    expertsPerToken: config.num_experts_per_tok,
    intermediateSize: config.moe_intermediate_size,
    sharedExperts: config.n_shared_experts ?? 0,
    groups: config.n_group,
    groupsUsed: config.topk_group,
    renormalise: config.norm_topk_prob ?? true,
    routedScale: config.routed_scaling_factor,
  });
}

interface DeepseekExperts {
  readonly numExperts: number;
  readonly expertsPerToken: number;
  readonly intermediateSize: number;
  /** Stored as one MLP of `sharedExperts` times the width. */
  readonly sharedExperts: number;
  readonly groups: number;
  readonly groupsUsed: number;
  readonly renormalise: boolean;
  readonly routedScale: number;
}

export function sigmoidExperts(sizes: DeepseekExperts): ExpertsSpec {
  const { numExperts, expertsPerToken, intermediateSize, sharedExperts, groups, groupsUsed, renormalise } = sizes;
  return {
    kind: 'experts',
    numExperts,
    expertsPerToken,
    intermediateSize,
    router: { kind: 'sigmoid-grouped', groups, groupsUsed, renormalise },
    bias: false,
    activation: { kind: 'silu-gate' },
    routedScale: sizes.routedScale,
    ...(sharedExperts > 0 && { sharedIntermediateSize: sharedExperts * intermediateSize }),
  };
}

/** @param gating as for `feedForwardsFromGguf`. */
export function latentSpecFromGguf(family: Family, keys: GgufKeys, gguf: GgufSource, gating?: number): DecoderSpec {
  const attention = attentionFromGguf(keys);
  return checkedSpec({
    family,
    ...ggufVocabulary(gguf),
    hiddenSize: keys.size('embedding_length', limits.model.width),
    normEpsilon: keys.positive('attention.layer_norm_rms_epsilon'),
    contextTokens: contextTokensOf(keys.size('context_length', limits.model.contextTokens), attention.rope),
    layers: feedForwardsFromGguf(keys, gating).map((feedForward) => ({ attention, feedForward })),
  });
}

/**
 * One entry a layer.
 * @param gating `expert_gating_func` of files without the key.
 */
export function feedForwardsFromGguf(keys: GgufKeys, gating = softmaxGating): (DenseSpec | ExpertsSpec)[] {
  const dense = swiGlu(keys.size('feed_forward_length', limits.model.width));
  const sparse = expertsFromGguf(keys, gating);
  // `block_count` includes multi-token prediction layers if the file has them.
  const numLayers = keys.size('block_count', limits.model.layers) - (keys.optionalNumber('nextn_predict_layers') ?? 0);
  if (numLayers < 1) throw invalidInput(`GGUF key ${keys.architecture}.block_count leaves only ${numLayers} layers.`);
  const numDense = keys.optionalNumber('leading_dense_block_count') ?? 0;
  return Array.from({ length: numLayers }, (_, layer) => (layer < numDense ? dense : sparse));
}

function attentionFromGguf(keys: GgufKeys): LatentAttentionSpec {
  const { width: max, heads } = limits.model;
  const ropeHeadDim = keys.size('rope.dimension_count', max);
  // In newer files, key_length is the width of a cache row, and *_mla are the head's own widths.
  const headDim = keys.optionalSize('attention.key_length_mla', max) ?? keys.size('attention.key_length', max);
  const valueHeadDim = keys.optionalSize('attention.value_length_mla', max) ?? keys.size('attention.value_length', max);
  if (headDim <= ropeHeadDim) throw invalidInput(`GGUF: can't rotate ${ropeHeadDim} of a head's ${headDim} elements.`);
  const rope = ropeFromGguf(keys, {
    dimensions: ropeHeadDim,
    layout: 'interleaved',
    contextTokens: keys.size('context_length', limits.model.contextTokens),
    yarnTruncate: true,
    yarnAttentionFactor: () => 1,
  });
  const queryRank = keys.optionalSize('attention.q_lora_rank', max);
  return {
    kind: 'latent',
    numAttentionHeads: keys.size('attention.head_count', heads),
    ...(queryRank !== undefined && { queryRank }),
    keyValueRank: keys.size('attention.kv_lora_rank', max),
    nopeHeadDim: headDim - ropeHeadDim,
    ropeHeadDim,
    valueHeadDim,
    normEpsilon: latentNormEpsilon,
    rope,
    softmaxScale: softmaxScaleOf(headDim, mscaleFromGguf(keys, rope)),
  };
}

/** The key holds 0.1 · mscale_all_dim, which makes this `yarnMscale` (llama.cpp src/models/deepseek2.cpp). */
function mscaleFromGguf(keys: GgufKeys, { yarn }: RopeSpec): number {
  const logMultiplier = keys.optionalNumber('rope.scaling.yarn_log_multiplier') ?? 0;
  return yarn ? 1 + logMultiplier * Math.log(Math.max(yarn.factor, 1)) : 1;
}

/** `LLAMA_EXPERT_GATING_FUNC_TYPE_SOFTMAX` (DeepSeek-V2) and `_SIGMOID`. */
const softmaxGating = 1;
export const sigmoidGating = 2;

/** @param missing `expert_gating_func` of files without the key. */
export function requireSigmoidGating(keys: GgufKeys, missing = sigmoidGating): void {
  const gating = keys.optionalNumber('expert_gating_func') ?? missing;
  if (gating === sigmoidGating) return;
  throw unsupported(`GGUF key ${keys.architecture}.expert_gating_func: Hearth supports 2 (sigmoid), not ${gating}.`);
}

function expertsFromGguf(keys: GgufKeys, gating: number): ExpertsSpec {
  const { experts: max } = limits.model;
  requireSigmoidGating(keys, gating);
  const numExperts = keys.size('expert_count', max);
  const [groups, groupsUsed] = groupsFromGguf(keys, numExperts);
  return sigmoidExperts({
    numExperts,
    expertsPerToken: keys.size('expert_used_count', max),
    intermediateSize: keys.size('expert_feed_forward_length', limits.model.width),
    sharedExperts: keys.optionalNumber('expert_shared_count') ?? 0,
    groups,
    groupsUsed,
    renormalise: keys.optionalBoolean('expert_weights_norm') ?? false,
    // llama.cpp doesn't scale weights if the key is missing or 0.
    routedScale: keys.optionalNumber('expert_weights_scale') || 1,
  });
}

/**
 * Files from before late 2025 have no group keys; llama.cpp then chose from all experts. DeepSeek-V3 and R1, the only
 * models of this architecture with 256 experts, choose from 4 of 8 groups.
 */
function groupsFromGguf(keys: GgufKeys, numExperts: number): [groups: number, groupsUsed: number] {
  const { experts: max } = limits.model;
  const groups = keys.optionalNumber('expert_group_count');
  if (groups === undefined) return numExperts === 256 ? [8, 4] : [1, 1];
  return groups > 1 ? [keys.size('expert_group_count', max), keys.size('expert_group_used_count', max)] : [1, 1];
}

export const deepseekV3: FamilyBuilder = {
  modelTypes: ['deepseek_v3'],
  ggufArchitecture: 'deepseek2',
  // DeepSeek-V3's generation_config.json.
  sampling: { temperature: 0.6, topP: 0.95 },
  specFromConfig: (config) => latentSpecFromConfig('deepseek-v3', config),
  specFromGguf: async (keys, gguf) => latentSpecFromGguf('deepseek-v3', keys, gguf),
  weightsFromHuggingFace: deepseekFromHuggingFace,
  weightsFromGguf: deepseekFromGguf,
};
