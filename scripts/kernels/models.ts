/** Models whose kernels are compiled, with their published shapes and weight types. */
import type { TensorType } from '../../engine/formats/tensor.ts';
import { specFromConfig } from '../../engine/model/open.ts';
import {
  type AttentionSpec,
  type DecoderSpec,
  type FeedForwardSpec,
  qkNormWidths,
} from '../../engine/model/spec/spec.ts';
import type {
  AttentionWeights,
  DecoderWeights,
  DenseWeights,
  FeedForwardWeights,
  Linear,
  Weight,
} from '../../engine/model/weights/weights.ts';

export interface MatrixTypes {
  readonly embedding: TensorType;
  readonly head: TensorType;
  readonly attention: TensorType;
  /** Type of the value and down projections. llama.cpp's Q4_K_M uses six bits for both in half of the layers. */
  readonly value: TensorType;
  readonly gate: TensorType;
  readonly down: TensorType;
}

export interface BenchModel {
  readonly name: string;
  readonly spec: DecoderSpec;
  readonly types: MatrixTypes;
}

const uniform = (type: TensorType): MatrixTypes => ({
  embedding: type,
  head: type,
  attention: type,
  value: type,
  gate: type,
  down: type,
});

const q4KM: MatrixTypes = { ...uniform('Q4_K'), head: 'Q6_K', value: 'Q6_K', down: 'Q6_K' };

const qwen3 = {
  head_dim: 128,
  rms_norm_eps: 1e-6,
  rope_theta: 1e6,
  vocab_size: 151_936,
  max_position_embeddings: 40_960,
  hidden_act: 'silu',
  attention_bias: false,
  tie_word_embeddings: false,
};

/** Fields of the published config.json that the spec is built from. */
const configs = {
  gptOss20b: {
    architectures: ['GptOssForCausalLM'],
    model_type: 'gpt_oss',
    attention_bias: true,
    experts_per_token: 4,
    head_dim: 64,
    hidden_act: 'silu',
    hidden_size: 2880,
    initial_context_length: 4096,
    intermediate_size: 2880,
    layer_types: Array.from({ length: 24 }, (_, i) => (i % 2 === 0 ? 'sliding_attention' : 'full_attention')),
    max_position_embeddings: 131_072,
    num_attention_heads: 64,
    num_experts_per_tok: 4,
    num_hidden_layers: 24,
    num_key_value_heads: 8,
    num_local_experts: 32,
    quantization_config: { quant_method: 'mxfp4' },
    rms_norm_eps: 1e-5,
    rope_scaling: {
      beta_fast: 32,
      beta_slow: 1,
      factor: 32,
      original_max_position_embeddings: 4096,
      rope_type: 'yarn',
      truncate: false,
    },
    rope_theta: 150_000,
    sliding_window: 128,
    swiglu_limit: 7,
    tie_word_embeddings: false,
    vocab_size: 201_088,
  },
  qwen3Moe: {
    ...qwen3,
    architectures: ['Qwen3MoeForCausalLM'],
    model_type: 'qwen3_moe',
    decoder_sparse_step: 1,
    hidden_size: 2048,
    intermediate_size: 6144,
    mlp_only_layers: [],
    moe_intermediate_size: 768,
    norm_topk_prob: true,
    num_attention_heads: 32,
    num_experts: 128,
    num_experts_per_tok: 8,
    num_hidden_layers: 48,
    num_key_value_heads: 4,
  },
  qwen3: {
    ...qwen3,
    architectures: ['Qwen3ForCausalLM'],
    model_type: 'qwen3',
    hidden_size: 4096,
    intermediate_size: 12_288,
    num_attention_heads: 32,
    num_hidden_layers: 36,
    num_key_value_heads: 8,
  },
  qwen2: {
    architectures: ['Qwen2ForCausalLM'],
    model_type: 'qwen2',
    hidden_size: 3584,
    intermediate_size: 18_944,
    num_hidden_layers: 28,
    num_attention_heads: 28,
    num_key_value_heads: 4,
    vocab_size: 152_064,
    rms_norm_eps: 1e-6,
    rope_theta: 1e6,
    max_position_embeddings: 32_768,
    hidden_act: 'silu',
    tie_word_embeddings: false,
    use_sliding_window: false,
  },
  deepseekV3: {
    architectures: ['DeepseekV3ForCausalLM'],
    model_type: 'deepseek_v3',
    attention_bias: false,
    first_k_dense_replace: 3,
    hidden_act: 'silu',
    hidden_size: 7168,
    intermediate_size: 18_432,
    kv_lora_rank: 512,
    max_position_embeddings: 163_840,
    moe_intermediate_size: 2048,
    moe_layer_freq: 1,
    n_group: 8,
    n_routed_experts: 256,
    n_shared_experts: 1,
    norm_topk_prob: true,
    num_attention_heads: 128,
    num_experts_per_tok: 8,
    num_hidden_layers: 61,
    num_key_value_heads: 128,
    q_lora_rank: 1536,
    qk_nope_head_dim: 128,
    qk_rope_head_dim: 64,
    quantization_config: { fmt: 'e4m3', quant_method: 'fp8', weight_block_size: [128, 128] },
    rms_norm_eps: 1e-6,
    rope_scaling: {
      beta_fast: 32,
      beta_slow: 1,
      factor: 40,
      mscale: 1,
      mscale_all_dim: 1,
      original_max_position_embeddings: 4096,
      type: 'yarn',
    },
    rope_theta: 10_000,
    routed_scaling_factor: 2.5,
    scoring_func: 'sigmoid',
    tie_word_embeddings: false,
    topk_group: 4,
    topk_method: 'noaux_tc',
    v_head_dim: 128,
    vocab_size: 129_280,
  },
};

/** Of MiniMaxAI/MiniMax-M2. */
const miniMaxM2 = {
  architectures: ['MiniMaxM2ForCausalLM'],
  model_type: 'minimax_m2',
  attn_type_list: Array.from({ length: 62 }, () => 1),
  head_dim: 128,
  hidden_act: 'silu',
  hidden_size: 3072,
  intermediate_size: 1536,
  max_position_embeddings: 196_608,
  num_attention_heads: 48,
  num_experts_per_tok: 8,
  num_hidden_layers: 62,
  num_key_value_heads: 8,
  num_local_experts: 256,
  qk_norm_type: 'per_layer',
  quantization_config: {
    activation_scheme: 'dynamic',
    fmt: 'float8_e4m3fn',
    quant_method: 'fp8',
    weight_block_size: [128, 128],
  },
  rms_norm_eps: 1e-6,
  rope_theta: 5e6,
  rotary_dim: 64,
  scoring_func: 'sigmoid',
  shared_intermediate_size: 0,
  tie_word_embeddings: false,
  use_qk_norm: true,
  use_routing_bias: true,
  vocab_size: 200_064,
};

const fp8: MatrixTypes = { ...uniform('F8_E4M3'), embedding: 'BF16', head: 'BF16' };

export const models: readonly BenchModel[] = [
  {
    name: 'gpt-oss-20b',
    spec: specFromConfig(configs.gptOss20b),
    types: { ...uniform('Q8_0'), gate: 'MXFP4', down: 'MXFP4' },
  },
  { name: 'Qwen3-30B-A3B Q4_K_M', spec: specFromConfig(configs.qwen3Moe), types: q4KM },
  { name: 'Qwen3-8B Q4_K_M', spec: specFromConfig(configs.qwen3), types: q4KM },
  { name: 'Qwen2.5-Coder-7B Q4_K_M', spec: specFromConfig(configs.qwen2), types: q4KM },
  { name: 'Qwen2.5-Coder-7B Q8_0', spec: specFromConfig(configs.qwen2), types: uniform('Q8_0') },
  { name: 'DeepSeek-V3', spec: specFromConfig(configs.deepseekV3), types: fp8 },
  { name: 'MiniMax-M2', spec: specFromConfig(miniMaxM2), types: fp8 },
];

/** Weights with shape and type but no data. */
export function weightsOf({ spec, types }: BenchModel): DecoderWeights {
  const hidden = spec.hiddenSize;
  return {
    embedding: weight(types.embedding, spec.vocabularySize, hidden),
    layers: spec.layers.map(({ attention, feedForward }) => ({
      attentionNorm: weight('F32', hidden),
      attention: attentionWeights(attention, hidden, types),
      feedForwardNorm: weight('F32', hidden),
      feedForward: feedForwardWeights(feedForward, hidden, types),
    })),
    finalNorm: weight('F32', hidden),
    head: weight(types.head, spec.vocabularySize, hidden),
  };
}

const scaleBlock = 128;

function weight(type: TensorType, ...shape: readonly number[]): Weight {
  const unread = () => Promise.reject(new Error('only the shapes of these weights are known'));
  return {
    name: 'weight',
    type,
    shape,
    readRows: unread,
    ...(type === 'F8_E4M3' && { blockScale: { blockRows: scaleBlock, blockColumns: scaleBlock, read: unread } }),
  };
}

function linear(type: TensorType, shape: readonly number[], biased = false): Linear {
  return { weight: weight(type, ...shape), ...(biased && { bias: weight('F32', ...shape.slice(0, -1)) }) };
}

function attentionWeights(spec: AttentionSpec, hidden: number, types: MatrixTypes): AttentionWeights {
  const type = types.attention;
  if (spec.kind === 'latent') {
    const { numAttentionHeads: heads, queryRank = hidden, keyValueRank: rank, valueHeadDim: value } = spec;
    const { nopeHeadDim: nope, ropeHeadDim: rope } = spec;
    return {
      kind: 'latent',
      queryDown: weight(type, queryRank, hidden),
      queryNorm: weight('F32', queryRank),
      queryUp: weight(type, heads * (nope + rope), queryRank),
      keyValueDown: weight(type, rank + rope, hidden),
      keyValueNorm: weight('F32', rank),
      keyUp: { weight: weight(type, heads, nope, rank), transposed: false },
      valueUp: weight(type, heads, value, rank),
      output: weight(type, hidden, heads * value),
    };
  }
  if (spec.kind === 'gated-delta') throw new Error('No model with a gated delta net is made here.');
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim, bias, qkNorm, sinks } = spec;
  const normWidths = qkNormWidths(spec);
  return {
    kind: 'grouped-query',
    query: linear(type, [heads * headDim, hidden], bias.qkv),
    key: linear(type, [kvHeads * headDim, hidden], bias.qkv),
    value: linear(types.value, [kvHeads * headDim, hidden], bias.qkv),
    output: linear(type, [hidden, heads * headDim], bias.output),
    ...(qkNorm && { queryNorm: weight('F32', normWidths[0]), keyNorm: weight('F32', normWidths[1]) }),
    ...(sinks && { sinks: weight('F32', heads) }),
  };
}

function dense({ gate, down }: MatrixTypes, width: number, hidden: number): DenseWeights {
  const wide = weight(gate, width, hidden);
  return { kind: 'dense', gate: wide, up: wide, down: weight(down, hidden, width) };
}

function feedForwardWeights(spec: FeedForwardSpec, hidden: number, types: MatrixTypes): FeedForwardWeights {
  if (spec.kind === 'dense') return dense(types, spec.intermediateSize, hidden);
  if (spec.kind === 'plain') {
    const { intermediateSize: width } = spec;
    return {
      kind: 'plain',
      up: linear(types.gate, [width, hidden], true),
      down: linear(types.down, [hidden, width], true),
    };
  }
  const { numExperts: experts, intermediateSize: width, bias, router, sharedIntermediateSize } = spec;
  return {
    kind: 'experts',
    router: linear('F32', [experts, hidden], bias),
    ...(router.kind === 'sigmoid-grouped' && { selectionBias: weight('F32', experts) }),
    gate: linear(types.gate, [experts, width, hidden], bias),
    up: linear(types.gate, [experts, width, hidden], bias),
    down: linear(types.down, [experts, hidden, width], bias),
    ...(sharedIntermediateSize !== undefined && { shared: dense(types, sharedIntermediateSize, hidden) }),
  };
}
