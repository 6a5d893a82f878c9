/**
 * Qwen3-Next: three of four layers are gated delta nets, every fourth is attention with an output gate and partly
 * rotated heads; many small experts, and a shared expert with its own gate. Qwen3.5 and 3.6, dense or with experts, are
 * the same with other names. Sources: transformers `models/{qwen3_next,qwen3_5,qwen3_5_moe}/modeling_*.py`; llama.cpp
 * `conversion/qwen.py` (Qwen3NextModel, Qwen3_5TextModel) and `src/models/{qwen3next,qwen35,qwen35moe}.cpp`.
 */
import { z } from 'zod';
import type { GgufKeys } from '../../formats/ggufMetadata.ts';
import { limits } from '../../limits.ts';
import {
  checkedSpec,
  type DecoderSpec,
  type DenseSpec,
  type ExpertsSpec,
  type Family,
  type FeedForwardSpec,
  type GatedDeltaSpec,
  type GroupedQueryAttentionSpec,
  type LayerSpec,
} from '../spec/spec.ts';
import {
  configOuterFields,
  configSizes,
  decoderFields,
  experts,
  type GgufSource,
  ggufOuterFields,
  ggufSizes,
  heads,
  optional,
  parseConfig,
  required,
  requireValue,
  ropeFromConfig,
  ropeFromGguf,
  rotatedDimensions,
  size,
  textConfig,
  width,
} from './config.ts';
import { type FamilyBuilder, type HeadSizes, type PublishedSampling, swiGlu } from './family.ts';
import { qwen3Attention } from './qwen3.ts';
import { qwen3Experts } from './qwen3Moe.ts';
import { qwen3NextFromGguf, qwen3NextFromHuggingFace } from './qwen3NextWeights.ts';

const layerTypes = z.array(z.enum(['linear_attention', 'full_attention'])).max(limits.model.layers);

const qwen3NextConfig = z.looseObject({
  ...decoderFields,
  /** Absent if all layers have experts (Qwen3.5). */
  intermediate_size: optional(width),
  attention_bias: optional(z.boolean()),
  linear_conv_kernel_dim: size(16),
  linear_key_head_dim: width,
  linear_value_head_dim: width,
  linear_num_key_heads: heads,
  linear_num_value_heads: heads,
  layer_types: optional(layerTypes),
  full_attention_interval: optional(size(limits.model.layers)),
  num_experts: optional(experts),
  num_experts_per_tok: optional(experts),
  moe_intermediate_size: optional(width),
  shared_expert_intermediate_size: optional(width),
  norm_topk_prob: optional(z.boolean()),
  decoder_sparse_step: optional(z.number().int().min(1)),
  mlp_only_layers: optional(z.array(z.number().int()).max(limits.model.layers)),
});

/** Published and transformers' default. */
const usualInterval = 4;

const gatedAttention = (sizes: HeadSizes): GroupedQueryAttentionSpec => ({
  ...qwen3Attention(sizes),
  outputGate: true,
});

const gatedExperts = (sizes: Parameters<typeof qwen3Experts>[0], sharedIntermediateSize: number): ExpertsSpec => ({
  ...qwen3Experts(sizes),
  sharedIntermediateSize,
  sharedGate: true,
});

type Qwen3NextConfig = z.infer<typeof qwen3NextConfig>;

function specFromConfig(family: Family, config: unknown): DecoderSpec {
  const { text, tiedEmbeddings } = textConfig(config);
  const parsed = parseConfig(qwen3NextConfig, text);
  requireValue('hidden_act', parsed.hidden_act, 'silu');
  requireValue('attention_bias', parsed.attention_bias ?? false, false);
  const sizes = configSizes({ ...parsed, head_dim: parsed.head_dim ?? 256 });
  const dimensions = rotatedDimensions(text, sizes.headDim, 0.25);
  const rope = ropeFromConfig(parsed, { dimensions, layout: 'half-split' });
  const attention = gatedAttention({ ...sizes, rope });
  const delta = deltaFromConfig(parsed);
  const isFull = fullLayers(parsed);
  const feedForward = feedForwardsFromConfig(parsed);
  return checkedSpec({
    family,
    ...configOuterFields({ ...parsed, tie_word_embeddings: parsed.tie_word_embeddings ?? tiedEmbeddings }, rope),
    layers: Array.from({ length: sizes.numLayers }, (_, layer): LayerSpec => {
      return { attention: isFull(layer) ? attention : delta, feedForward: feedForward(layer) };
    }),
  });
}

const deltaFromConfig = (config: Qwen3NextConfig): GatedDeltaSpec => ({
  kind: 'gated-delta',
  numKeyHeads: config.linear_num_key_heads,
  numValueHeads: config.linear_num_value_heads,
  keyHeadDim: config.linear_key_head_dim,
  valueHeadDim: config.linear_value_head_dim,
  convolutionTokens: config.linear_conv_kernel_dim,
  sharing: 'grouped',
});

function fullLayers({ layer_types: types, full_attention_interval: interval = usualInterval }: Qwen3NextConfig) {
  return (layer: number): boolean => (types ? types[layer] === 'full_attention' : (layer + 1) % interval === 0);
}

function feedForwardsFromConfig(config: Qwen3NextConfig): (layer: number) => FeedForwardSpec {
  const { num_experts: numExperts, decoder_sparse_step: step = 1, mlp_only_layers: denseLayers = [] } = config;
  const dense = (): DenseSpec => swiGlu(required(config.intermediate_size, 'intermediate_size'));
  if (numExperts === undefined) return dense;
  const sparse = gatedExperts(
    {
      numExperts,
      expertsPerToken: required(config.num_experts_per_tok, 'num_experts_per_tok'),
      intermediateSize: required(config.moe_intermediate_size, 'moe_intermediate_size'),
      // transformers' default.
      renormalise: config.norm_topk_prob ?? true,
    },
    required(config.shared_expert_intermediate_size, 'shared_expert_intermediate_size'),
  );
  return (layer) => (!denseLayers.includes(layer) && (layer + 1) % step === 0 ? sparse : dense());
}

function deltaFromGguf(keys: GgufKeys, sharing: GatedDeltaSpec['sharing']): GatedDeltaSpec {
  const { heads, width } = limits.model;
  const numValueHeads = keys.size('ssm.time_step_rank', heads);
  return {
    kind: 'gated-delta',
    numKeyHeads: keys.size('ssm.group_count', heads),
    numValueHeads,
    keyHeadDim: keys.size('ssm.state_size', width),
    valueHeadDim: keys.size('ssm.inner_size', width) / numValueHeads,
    convolutionTokens: keys.size('ssm.conv_kernel', 16),
    sharing,
  };
}

async function specFromGguf(family: Family, keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec> {
  const sizes = ggufSizes(keys, gguf);
  const { headDim, contextTokens, numLayers, intermediateSize } = sizes;
  const dimensions = keys.optionalSize('rope.dimension_count', headDim) ?? headDim / 4;
  const rope = ropeFromGguf(keys, { dimensions, layout: 'half-split', contextTokens, yarnTruncate: true });
  const attention = gatedAttention({ ...sizes, rope });
  // The converter stores value heads that share a key head adjacent (`grouped`) or interleaved with others (`tiled`).
  const delta = deltaFromGguf(keys, family === 'qwen3.5' ? 'tiled' : 'grouped');
  const numExperts = keys.optionalSize('expert_count', limits.model.experts);
  const feedForward = numExperts === undefined ? swiGlu(intermediateSize) : expertsFromGguf(keys, numExperts);
  const isDelta = (layer: number): boolean => gguf.tensors.has(`blk.${layer}.ssm_a`);
  // Multi-token prediction layers come last and are not used.
  const layers = numLayers - (keys.optionalNumber('nextn_predict_layers') ?? 0);
  return checkedSpec({
    family,
    ...ggufOuterFields(sizes, rope),
    layers: Array.from({ length: layers }, (_, layer) => ({
      attention: isDelta(layer) ? delta : attention,
      feedForward,
    })),
  });
}

const expertsFromGguf = (keys: GgufKeys, numExperts: number): ExpertsSpec =>
  gatedExperts(
    {
      numExperts,
      expertsPerToken: keys.size('expert_used_count', limits.model.experts),
      intermediateSize: keys.size('expert_feed_forward_length', limits.model.width),
      renormalise: keys.optionalBoolean('expert_weights_norm') ?? true,
    },
    keys.size('expert_shared_feed_forward_length', limits.model.width),
  );

const builder = (
  family: Family,
  modelTypes: readonly string[],
  ggufArchitecture: string,
  sampling: PublishedSampling,
): FamilyBuilder => ({
  modelTypes,
  ggufArchitecture,
  sampling,
  specFromConfig: (config) => specFromConfig(family, config),
  specFromGguf: (keys, gguf) => specFromGguf(family, keys, gguf),
  weightsFromHuggingFace: qwen3NextFromHuggingFace,
  weightsFromGguf: qwen3NextFromGguf,
});

/** "Best practices" of the Qwen3-Next-80B-A3B-Instruct card. */
const qwen3NextSampling: PublishedSampling = { temperature: 0.7, topP: 0.8, topK: 20 };
/** The Qwen3.5 cards, thinking, for precise coding. */
const qwen35Sampling: PublishedSampling = { temperature: 0.6, topP: 0.95, topK: 20 };

export const qwen3Next = builder('qwen3-next', ['qwen3_next'], 'qwen3next', qwen3NextSampling);
export const qwen35 = builder('qwen3.5', ['qwen3_5', 'qwen3_5_text'], 'qwen35', qwen35Sampling);
export const qwen35Moe = builder('qwen3.5', ['qwen3_5_moe', 'qwen3_5_moe_text'], 'qwen35moe', qwen35Sampling);
