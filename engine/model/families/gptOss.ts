/**
 * GPT-OSS: attention with biases and sinks, alternating between a sliding window of 128 tokens and full attention;
 * YaRN; MXFP4 experts with a clamped gate. Sources: transformers `models/gpt_oss/modeling_gpt_oss.py`; openai/gpt-oss
 * `gpt_oss/torch/model.py`; llama.cpp `convert_hf_to_gguf.py` (GptOssModel). Weights: gptOssWeights.ts.
 */
import { z } from 'zod';
import { invalidInput } from '../../errors.ts';
import type { GgufKeys } from '../../formats/ggufMetadata.ts';
import { limits } from '../../limits.ts';
import { yarnAttentionFactor } from '../spec/rope.ts';
import { checkedSpec, type DecoderSpec, type LayerSpec, type RopeSpec } from '../spec/spec.ts';
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
  quantisationMethodOf,
  requireSiluActivation,
  requireValue,
  ropeFromConfig,
  ropeFromGguf,
  size,
  width,
} from './config.ts';
import { type FamilyBuilder, groupedQueryAttention, type HeadSizes } from './family.ts';
import { gptOssFromGguf, gptOssFromHuggingFace, gptOssFromOriginal } from './gptOssWeights.ts';

/** Alpha of the gate's sigmoid. All implementations hard-code it; no configuration contains it. */
const swigluAlpha = 1.702;
/** Default of transformers, and llama.cpp's constant: GGUF has no key for it. */
const defaultSwigluLimit = 7;

const gptOssConfig = z.looseObject({
  ...decoderFields,
  num_local_experts: experts,
  num_experts_per_tok: optional(experts),
  experts_per_token: optional(experts),
  sliding_window: size(limits.model.contextTokens),
  layer_types: optional(z.array(z.string()).max(limits.model.layers)),
  swiglu_limit: optional(z.number().positive()),
  attention_bias: optional(z.boolean()),
});

/** `original/config.json`, as read by openai/gpt-oss. It has no `model_type`. */
const originalConfig = z.looseObject({
  num_hidden_layers: size(limits.model.layers),
  num_experts: experts,
  experts_per_token: experts,
  vocab_size: size(limits.model.vocabulary),
  hidden_size: width,
  intermediate_size: width,
  swiglu_limit: optional(z.number().positive()),
  head_dim: width,
  num_attention_heads: heads,
  num_key_value_heads: heads,
  sliding_window: size(limits.model.contextTokens),
  initial_context_length: size(limits.model.contextTokens),
  rope_theta: z.number().positive(),
  rope_scaling_factor: z.number().positive(),
  /** YaRN's beta_slow. */
  rope_ntk_alpha: z.number().positive(),
  /** YaRN's beta_fast. */
  rope_ntk_beta: z.number().positive(),
});

interface GptOssSizes extends HeadSizes {
  readonly numExperts: number;
  readonly expertsPerToken: number;
  readonly intermediateSize: number;
  readonly swigluLimit: number;
}

function gptOssLayer(sizes: GptOssSizes, slidingWindow: number | undefined): LayerSpec {
  const { numExperts, expertsPerToken, intermediateSize } = sizes;
  return {
    attention: groupedQueryAttention(sizes, { bias: { qkv: true, output: true }, sinks: true, slidingWindow }),
    feedForward: {
      kind: 'experts',
      numExperts,
      expertsPerToken,
      intermediateSize,
      router: { kind: 'topk-then-softmax' },
      bias: true,
      activation: { kind: 'swiglu-clamped', alpha: swigluAlpha, limit: sizes.swigluLimit },
      routedScale: 1,
    },
  };
}

/** Even layers have the sliding window, odd layers full attention. */
function alternatingLayers(numLayers: number, sizes: GptOssSizes, slidingWindow: number): LayerSpec[] {
  return Array.from({ length: numLayers }, (_, layer) =>
    gptOssLayer(sizes, layer % 2 === 0 ? slidingWindow : undefined),
  );
}

function specFromConfig(config: unknown): DecoderSpec {
  if (isOriginal(config)) return specFromOriginalConfig(config);
  const parsed = parseConfig(gptOssConfig, config);
  requireSiluActivation(parsed);
  requireValue('attention_bias', parsed.attention_bias ?? true, true);
  requireValue('quantization_config.quant_method', quantisationMethodOf(config), 'mxfp4', undefined);
  const expertsPerToken = parsed.num_experts_per_tok ?? parsed.experts_per_token;
  if (expertsPerToken === undefined) throw invalidInput('config.json, key num_experts_per_tok is missing.');
  const { numLayers, ...headSizes } = configSizes({ ...parsed, head_dim: parsed.head_dim ?? 64 });
  const rope = ropeFromConfig(parsed, { dimensions: headSizes.headDim, layout: 'half-split' });
  const sizes: GptOssSizes = {
    ...headSizes,
    rope,
    numExperts: parsed.num_local_experts,
    expertsPerToken,
    intermediateSize: parsed.intermediate_size,
    swigluLimit: parsed.swiglu_limit ?? defaultSwigluLimit,
  };
  const alternating = alternatingLayers(numLayers, sizes, parsed.sliding_window);
  return checkedSpec({
    family: 'gpt-oss',
    ...configOuterFields(parsed, rope),
    layers: alternating.map((layer, index) => {
      const type = parsed.layer_types?.[index];
      if (type === undefined) return layer;
      requireValue(`layer_types.${index}`, type, 'sliding_attention', 'full_attention');
      return gptOssLayer(sizes, type === 'sliding_attention' ? parsed.sliding_window : undefined);
    }),
  });
}

export function isOriginal(config: unknown): boolean {
  return typeof config === 'object' && config !== null && 'rope_ntk_alpha' in config && !('model_type' in config);
}

function specFromOriginalConfig(config: unknown): DecoderSpec {
  const parsed = parseConfig(originalConfig, config);
  const factor = parsed.rope_scaling_factor;
  const rope: RopeSpec = {
    theta: parsed.rope_theta,
    dimensions: parsed.head_dim,
    layout: 'half-split',
    yarn: {
      factor,
      originalContextTokens: parsed.initial_context_length,
      betaFast: parsed.rope_ntk_beta,
      betaSlow: parsed.rope_ntk_alpha,
      // RotaryEmbedding in torch/model.py doesn't truncate.
      truncate: false,
      attentionFactor: yarnAttentionFactor(factor),
    },
  };
  const { numLayers, ...headSizes } = configSizes(parsed);
  const sizes: GptOssSizes = {
    ...headSizes,
    rope,
    numExperts: parsed.num_experts,
    expertsPerToken: parsed.experts_per_token,
    intermediateSize: parsed.intermediate_size,
    swigluLimit: parsed.swiglu_limit ?? defaultSwigluLimit,
  };
  return checkedSpec({
    family: 'gpt-oss',
    ...configOuterFields(
      {
        ...parsed,
        // RMSNorm's default in torch/model.py.
        rms_norm_eps: 1e-5,
        max_position_embeddings: parsed.initial_context_length,
        tie_word_embeddings: false,
      },
      rope,
    ),
    layers: alternatingLayers(numLayers, sizes, parsed.sliding_window),
  });
}

async function specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec> {
  const sizes = ggufSizes(keys, gguf);
  const { headDim: dimensions, contextTokens } = sizes;
  // Files that predate the key `yarn_truncate` come from the same models, whose configuration says false.
  const rope = ropeFromGguf(keys, { dimensions, layout: 'half-split', contextTokens, yarnTruncate: false });
  const layerSizes: GptOssSizes = {
    ...sizes,
    rope,
    numExperts: keys.size('expert_count', limits.model.experts),
    expertsPerToken: keys.size('expert_used_count', limits.model.experts),
    intermediateSize: keys.size('expert_feed_forward_length', limits.model.width),
    swigluLimit: defaultSwigluLimit,
  };
  const slidingWindow = keys.size('attention.sliding_window', limits.model.contextTokens);
  return checkedSpec({
    family: 'gpt-oss',
    ...ggufOuterFields(sizes, rope),
    layers: alternatingLayers(sizes.numLayers, layerSizes, slidingWindow),
  });
}

export const gptOss: FamilyBuilder = {
  modelTypes: ['gpt_oss'],
  ggufArchitecture: 'gpt-oss',
  // openai/gpt-oss, README: "We recommend sampling with temperature=1.0 and top_p=1.0".
  sampling: { temperature: 1 },
  specFromConfig,
  specFromGguf,
  weightsFromHuggingFace: (spec, file, config) =>
    isOriginal(config) ? gptOssFromOriginal(spec, file) : gptOssFromHuggingFace(spec, file),
  weightsFromGguf: gptOssFromGguf,
};
