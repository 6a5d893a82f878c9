/**
 * Qwen3, dense: RMSNorm on every query and key head before RoPE, a head width of its own, no biases.
 * Sources: transformers `models/qwen3/modeling_qwen3.py`; llama.cpp `convert_hf_to_gguf.py` (Qwen3Model).
 */
import { z } from 'zod';
import {
  checkedSpec,
  type DecoderSpec,
  type DenseSpec,
  type GroupedQueryAttentionSpec,
  type RopeSpec,
} from '../spec/spec.ts';
import { decoderWeights, ggufNames, huggingFaceNames, tensorTable } from '../weights/decoderWeights.ts';
import {
  contextTokensOf,
  decoderFields,
  type FamilyBuilder,
  fp8BlockOf,
  type GgufKeys,
  type GgufSource,
  ggufSizes,
  optional,
  parseConfig,
  requireSiluActivation,
  requireValue,
  ropeFromConfig,
  ropeFromGguf,
} from './config.ts';
import { qwenSlidingWindows, qwenWindowFields } from './qwen2.ts';

export const qwen3Fields = {
  ...decoderFields,
  ...qwenWindowFields,
  attention_bias: optional(z.boolean()),
};
const qwen3Config = z.looseObject(qwen3Fields);
export type Qwen3Config = z.infer<typeof qwen3Config>;

interface Qwen3AttentionSizes {
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly rope: RopeSpec;
}

/** Attention of dense and mixture-of-experts models. */
export function qwen3Attention(sizes: Qwen3AttentionSizes, slidingWindow?: number): GroupedQueryAttentionSpec {
  const { numAttentionHeads, numKeyValueHeads, headDim, rope } = sizes;
  return {
    kind: 'grouped-query',
    numAttentionHeads,
    numKeyValueHeads,
    headDim,
    bias: { qkv: false, output: false },
    qkNorm: true,
    sinks: false,
    ...(slidingWindow !== undefined && { slidingWindow }),
    rope,
    softmaxScale: headDim ** -0.5,
  };
}

/** The attention of each layer, from config.json. */
export function qwen3AttentionsFromConfig(config: Qwen3Config): GroupedQueryAttentionSpec[] {
  requireSiluActivation(config);
  requireValue('attention_bias', config.attention_bias ?? false, false);
  // 128 in all published models, some of which differ from hidden_size / num_attention_heads; also transformers'
  // default.
  const headDim = config.head_dim ?? 128;
  const sizes: Qwen3AttentionSizes = {
    numAttentionHeads: config.num_attention_heads,
    numKeyValueHeads: config.num_key_value_heads ?? config.num_attention_heads,
    headDim,
    rope: ropeFromConfig(config, { dimensions: headDim, layout: 'half-split' }),
  };
  return qwenSlidingWindows(config).map((window) => qwen3Attention(sizes, window));
}

export function qwen3AttentionFromGguf(keys: GgufKeys, gguf: GgufSource): GroupedQueryAttentionSpec {
  const sizes = ggufSizes(keys, gguf);
  const { headDim: dimensions, contextTokens } = sizes;
  const rope = ropeFromGguf(keys, { dimensions, layout: 'half-split', contextTokens, yarnTruncate: true });
  return qwen3Attention({ ...sizes, rope });
}

function specFromConfig(config: unknown): DecoderSpec {
  const parsed = parseConfig(qwen3Config, config);
  const attentions = qwen3AttentionsFromConfig(parsed);
  return checkedSpec({
    family: 'qwen3',
    ...qwen3Outside(parsed, attentions),
    layers: attentions.map((attention) => ({ attention, feedForward: qwen3Dense(parsed.intermediate_size) })),
  });
}

/** All fields of a spec except the family and the layers. */
export function qwen3Outside(config: Qwen3Config, attentions: readonly GroupedQueryAttentionSpec[]) {
  const rope = attentions[0]?.rope;
  return {
    vocabularySize: config.vocab_size,
    hiddenSize: config.hidden_size,
    normEpsilon: config.rms_norm_eps,
    contextTokens: rope ? contextTokensOf(config.max_position_embeddings, rope) : config.max_position_embeddings,
    tiedEmbeddings: config.tie_word_embeddings ?? false,
  };
}

export function qwen3OutsideOfGguf(keys: GgufKeys, gguf: GgufSource, { rope }: GroupedQueryAttentionSpec) {
  const { vocabularySize, hiddenSize, normEpsilon, tiedEmbeddings, contextTokens } = ggufSizes(keys, gguf);
  return {
    vocabularySize,
    hiddenSize,
    normEpsilon,
    contextTokens: contextTokensOf(contextTokens, rope),
    tiedEmbeddings,
  };
}

export function qwen3Dense(intermediateSize: number): DenseSpec {
  return { kind: 'dense', intermediateSize, activation: { kind: 'silu-gate' } };
}

async function specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec> {
  const { numLayers, intermediateSize } = ggufSizes(keys, gguf);
  const attention = qwen3AttentionFromGguf(keys, gguf);
  const feedForward = qwen3Dense(intermediateSize);
  return checkedSpec({
    family: 'qwen3',
    ...qwen3OutsideOfGguf(keys, gguf, attention),
    layers: Array.from({ length: numLayers }, () => ({ attention, feedForward })),
  });
}

export const qwen3: FamilyBuilder = {
  modelTypes: ['qwen3'],
  ggufArchitecture: 'qwen3',
  // "Best practices" of the Qwen3 cards, thinking.
  sampling: { temperature: 0.6, topP: 0.95, topK: 20 },
  specFromConfig,
  specFromGguf,
  weightsFromHuggingFace: (spec, file, config) =>
    decoderWeights(spec, tensorTable(file, fp8BlockOf(config)), huggingFaceNames),
  weightsFromGguf: (spec, file) => decoderWeights(spec, tensorTable(file), ggufNames),
};
