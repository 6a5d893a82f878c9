/**
 * Facts about the catalogue's models that are needed before a download: the architecture fields of the published config.json, and the
 * thinking modes of the published chat template.
 */
import { specFromConfig } from '../model/open.ts';
import type { DecoderSpec } from '../model/spec/spec.ts';
import type { ThinkingMode } from '../prompt/thinking.ts';

export interface Architecture {
  /** Fields of the publisher's config.json. */
  readonly config: Readonly<Record<string, unknown>>;
  /** The GGUF stores a separate output head, although config.json ties it to the embedding. */
  readonly headStored?: true;
  readonly thinkingModes: readonly ThinkingMode[];
}

const noThinking: readonly ThinkingMode[] = ['off'];
const switchedThinking: readonly ThinkingMode[] = ['off', 'on'];
const thinkingEffort: readonly ThinkingMode[] = ['low', 'medium', 'high'];

interface Sizes {
  readonly hidden: number;
  readonly intermediate: number;
  readonly layers: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly tied: boolean;
}

const decoder = ({ hidden, intermediate, layers, heads, keyValueHeads, tied }: Sizes) => ({
  hidden_act: 'silu',
  hidden_size: hidden,
  intermediate_size: intermediate,
  num_hidden_layers: layers,
  num_attention_heads: heads,
  num_key_value_heads: keyValueHeads,
  tie_word_embeddings: tied,
});

const smolLm2: Architecture = {
  config: {
    ...decoder({ hidden: 576, intermediate: 1536, layers: 30, heads: 9, keyValueHeads: 3, tied: true }),
    model_type: 'llama',
    vocab_size: 49_152,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 100_000,
  },
  thinkingModes: noThinking,
};

const qwen25Coder = (sizes: Sizes, vocabulary = 151_936): Architecture => ({
  config: {
    ...decoder(sizes),
    model_type: 'qwen2',
    vocab_size: vocabulary,
    max_position_embeddings: 32_768,
    rms_norm_eps: 1e-6,
    rope_theta: 1_000_000,
  },
  ...(sizes.tied && { headStored: true }),
  thinkingModes: noThinking,
});

/** ggml-org's conversions omit the tied head. */
const headTied = ({ config, thinkingModes }: Architecture): Architecture => ({ config, thinkingModes });

const starCoder2: Architecture = {
  config: {
    ...decoder({ hidden: 3072, intermediate: 12_288, layers: 30, heads: 24, keyValueHeads: 2, tied: true }),
    model_type: 'starcoder2',
    hidden_act: 'gelu_pytorch_tanh',
    vocab_size: 49_152,
    max_position_embeddings: 16_384,
    norm_epsilon: 1e-5,
    rope_theta: 999_999.4420358813,
    sliding_window: 4096,
    use_bias: true,
  },
  thinkingModes: noThinking,
};

const qwen3 = (sizes: Sizes): Architecture => ({
  config: {
    ...decoder(sizes),
    model_type: 'qwen3',
    head_dim: 128,
    vocab_size: 151_936,
    max_position_embeddings: 40_960,
    rms_norm_eps: 1e-6,
    rope_theta: 1_000_000,
  },
  thinkingModes: switchedThinking,
});

/** Qwen3-0.6B-Base with a smaller vocabulary and tied embeddings. */
const qwen3Embedding: Architecture = {
  config: {
    ...qwen3({ hidden: 1024, intermediate: 3072, layers: 28, heads: 16, keyValueHeads: 8, tied: true }).config,
    vocab_size: 151_669,
    max_position_embeddings: 32_768,
  },
  thinkingModes: noThinking,
};

const qwen3Experts = (
  context: { readonly max_position_embeddings: number; readonly rope_theta: number },
  thinkingModes: Architecture['thinkingModes'],
): Architecture => ({
  config: {
    ...decoder({ hidden: 2048, intermediate: 6144, layers: 48, heads: 32, keyValueHeads: 4, tied: false }),
    model_type: 'qwen3_moe',
    head_dim: 128,
    vocab_size: 151_936,
    rms_norm_eps: 1e-6,
    ...context,
    num_experts: 128,
    num_experts_per_tok: 8,
    moe_intermediate_size: 768,
    norm_topk_prob: true,
  },
  thinkingModes,
});

interface DeltaNetSizes extends Omit<Sizes, 'intermediate' | 'heads'> {
  readonly vocabulary: number;
}

/** Three layers with a gated delta net for each with attention. */
const deltaNet = ({ vocabulary, ...sizes }: DeltaNetSizes, feedForward: Record<string, number>) => ({
  ...decoder({ intermediate: 0, heads: 16, ...sizes }),
  intermediate_size: undefined,
  head_dim: 256,
  vocab_size: vocabulary,
  max_position_embeddings: 262_144,
  rms_norm_eps: 1e-6,
  full_attention_interval: 4,
  linear_conv_kernel_dim: 4,
  linear_key_head_dim: 128,
  linear_value_head_dim: 128,
  linear_num_key_heads: 16,
  linear_num_value_heads: 32,
  ...feedForward,
});

/** Published as the text part of a model that also reads images. */
const qwen35 = (sizes: Omit<DeltaNetSizes, 'vocabulary'>, feedForward: Record<string, number>): Architecture => {
  const type = 'num_experts' in feedForward ? 'qwen3_5_moe' : 'qwen3_5';
  const text_config = {
    ...deltaNet({ ...sizes, vocabulary: 248_320 }, feedForward),
    model_type: `${type}_text`,
    rope_parameters: {
      rope_type: 'default',
      rope_theta: 10_000_000,
      partial_rotary_factor: 0.25,
      mrope_section: [11, 11, 10],
      mrope_interleaved: true,
    },
  };
  return { config: { model_type: type, text_config }, thinkingModes: switchedThinking };
};

const qwen3Next: Architecture = {
  config: {
    ...deltaNet(
      { hidden: 2048, layers: 48, keyValueHeads: 2, tied: false, vocabulary: 151_936 },
      {
        num_experts: 512,
        num_experts_per_tok: 10,
        moe_intermediate_size: 512,
        shared_expert_intermediate_size: 512,
        intermediate_size: 5120,
        decoder_sparse_step: 1,
      },
    ),
    model_type: 'qwen3_next',
    norm_topk_prob: true,
    rope_theta: 10_000_000,
    partial_rotary_factor: 0.25,
  },
  thinkingModes: noThinking,
};

const gptOss = (layers: number, experts: number): Architecture => ({
  config: {
    ...decoder({ hidden: 2880, intermediate: 2880, layers, heads: 64, keyValueHeads: 8, tied: false }),
    model_type: 'gpt_oss',
    head_dim: 64,
    vocab_size: 201_088,
    max_position_embeddings: 131_072,
    rms_norm_eps: 1e-5,
    rope_theta: 150_000,
    rope_scaling: {
      rope_type: 'yarn',
      factor: 32,
      original_max_position_embeddings: 4096,
      beta_fast: 32,
      beta_slow: 1,
      truncate: false,
    },
    sliding_window: 128,
    num_local_experts: experts,
    num_experts_per_tok: 4,
    swiglu_limit: 7,
  },
  thinkingModes: thinkingEffort,
});

const deepSeek: Architecture = {
  config: {
    ...decoder({ hidden: 7168, intermediate: 18_432, layers: 61, heads: 128, keyValueHeads: 128, tied: false }),
    model_type: 'deepseek_v3',
    vocab_size: 129_280,
    max_position_embeddings: 163_840,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
    rope_scaling: {
      rope_type: 'yarn',
      factor: 40,
      original_max_position_embeddings: 4096,
      beta_fast: 32,
      beta_slow: 1,
      mscale: 1,
      mscale_all_dim: 1,
    },
    q_lora_rank: 1536,
    kv_lora_rank: 512,
    qk_nope_head_dim: 128,
    qk_rope_head_dim: 64,
    v_head_dim: 128,
    first_k_dense_replace: 3,
    moe_intermediate_size: 2048,
    n_routed_experts: 256,
    n_shared_experts: 1,
    num_experts_per_tok: 8,
    n_group: 8,
    topk_group: 4,
    norm_topk_prob: true,
    routed_scaling_factor: 2.5,
  },
  thinkingModes: switchedThinking,
};

/** Keyed by catalogue id. */
export const architectures: Readonly<Record<string, Architecture>> = {
  'smollm2-135m-instruct': smolLm2,
  'qwen2.5-coder-0.5b-instruct': qwen25Coder({
    hidden: 896,
    intermediate: 4864,
    layers: 24,
    heads: 14,
    keyValueHeads: 2,
    tied: true,
  }),
  'qwen2.5-coder-1.5b-instruct': qwen25Coder({
    hidden: 1536,
    intermediate: 8960,
    layers: 28,
    heads: 12,
    keyValueHeads: 2,
    tied: true,
  }),
  'qwen2.5-coder-3b-instruct': qwen25Coder({
    hidden: 2048,
    intermediate: 11_008,
    layers: 36,
    heads: 16,
    keyValueHeads: 2,
    tied: true,
  }),
  'qwen2.5-coder-7b-instruct': qwen25Coder(
    { hidden: 3584, intermediate: 18_944, layers: 28, heads: 28, keyValueHeads: 4, tied: false },
    152_064,
  ),
  'qwen2.5-coder-14b-instruct': qwen25Coder(
    { hidden: 5120, intermediate: 13_824, layers: 48, heads: 40, keyValueHeads: 8, tied: false },
    152_064,
  ),
  'qwen2.5-coder-32b-instruct': qwen25Coder(
    { hidden: 5120, intermediate: 27_648, layers: 64, heads: 40, keyValueHeads: 8, tied: false },
    152_064,
  ),
  'qwen2.5-coder-1.5b': headTied(
    qwen25Coder({ hidden: 1536, intermediate: 8960, layers: 28, heads: 12, keyValueHeads: 2, tied: true }),
  ),
  'qwen2.5-coder-3b': headTied(
    qwen25Coder({ hidden: 2048, intermediate: 11_008, layers: 36, heads: 16, keyValueHeads: 2, tied: true }),
  ),
  'qwen2.5-coder-7b': qwen25Coder(
    { hidden: 3584, intermediate: 18_944, layers: 28, heads: 28, keyValueHeads: 4, tied: false },
    152_064,
  ),
  'starcoder2-3b': starCoder2,
  'qwen3-0.6b': qwen3({ hidden: 1024, intermediate: 3072, layers: 28, heads: 16, keyValueHeads: 8, tied: true }),
  'qwen3-1.7b': qwen3({ hidden: 2048, intermediate: 6144, layers: 28, heads: 16, keyValueHeads: 8, tied: true }),
  'qwen3-4b': qwen3({ hidden: 2560, intermediate: 9728, layers: 36, heads: 32, keyValueHeads: 8, tied: true }),
  'qwen3-8b': qwen3({ hidden: 4096, intermediate: 12_288, layers: 36, heads: 32, keyValueHeads: 8, tied: false }),
  'qwen3-14b': qwen3({ hidden: 5120, intermediate: 17_408, layers: 40, heads: 40, keyValueHeads: 8, tied: false }),
  'qwen3-32b': qwen3({ hidden: 5120, intermediate: 25_600, layers: 64, heads: 64, keyValueHeads: 8, tied: false }),
  'qwen3-4b-instruct-2507': {
    config: {
      ...qwen3({ hidden: 2560, intermediate: 9728, layers: 36, heads: 32, keyValueHeads: 8, tied: true }).config,
      max_position_embeddings: 262_144,
      rope_theta: 5e6,
    },
    thinkingModes: noThinking,
  },
  'qwen3-30b-a3b': qwen3Experts({ max_position_embeddings: 40_960, rope_theta: 1e6 }, switchedThinking),
  'qwen3-30b-a3b-instruct-2507': qwen3Experts({ max_position_embeddings: 262_144, rope_theta: 1e7 }, noThinking),
  'qwen3-coder-30b-a3b': qwen3Experts({ max_position_embeddings: 262_144, rope_theta: 1e7 }, noThinking),
  'qwen3.5-4b': qwen35({ hidden: 2560, layers: 32, keyValueHeads: 4, tied: true }, { intermediate_size: 9216 }),
  'qwen3.5-9b': qwen35({ hidden: 4096, layers: 32, keyValueHeads: 4, tied: false }, { intermediate_size: 12_288 }),
  'qwen3.6-35b-a3b': qwen35(
    { hidden: 2048, layers: 40, keyValueHeads: 2, tied: false },
    { num_experts: 256, num_experts_per_tok: 8, moe_intermediate_size: 512, shared_expert_intermediate_size: 512 },
  ),
  'qwen3-next-80b-a3b': qwen3Next,
  'gpt-oss-20b': gptOss(24, 32),
  'gpt-oss-20b-gguf': gptOss(24, 32),
  'gpt-oss-120b': gptOss(36, 128),
  'deepseek-v3.1': deepSeek,
  'qwen3-embedding-0.6b': qwen3Embedding,
};

/** Builds the spec that the downloaded files will have. */
export function specOfArchitecture({ config, headStored }: Architecture): DecoderSpec {
  const spec = specFromConfig(config);
  return headStored ? { ...spec, tiedEmbeddings: false } : spec;
}
