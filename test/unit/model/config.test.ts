import { describe, expect, it } from 'vitest';
import { llama as llamaFamily } from '../../../engine/model/families/llama.ts';
import { specFromConfig } from '../../../engine/model/open.ts';
import { describeSpec, longestContextTokens, withContext, withYarn } from '../../../engine/model/spec/describe.ts';
import { attentionFactor, inverseFrequencies, queryFactor } from '../../../engine/model/spec/rope.ts';
import type { DecoderSpec, GroupedQueryAttentionSpec } from '../../../engine/model/spec/spec.ts';
import { MemoryFile } from './memoryFile.ts';

const llama = {
  model_type: 'llama',
  hidden_act: 'silu',
  hidden_size: 64,
  intermediate_size: 128,
  max_position_embeddings: 1024,
  num_attention_heads: 4,
  num_hidden_layers: 2,
  rms_norm_eps: 1e-5,
  vocab_size: 256,
};
const qwen3 = { ...llama, model_type: 'qwen3', head_dim: 32, max_position_embeddings: 40960, rope_theta: 1e6 };
const qwen3Moe = {
  ...qwen3,
  model_type: 'qwen3_moe',
  num_experts: 8,
  num_experts_per_tok: 2,
  moe_intermediate_size: 32,
};
const deepseek = {
  ...llama,
  model_type: 'deepseek_v3',
  kv_lora_rank: 16,
  qk_nope_head_dim: 8,
  qk_rope_head_dim: 8,
  v_head_dim: 8,
  first_k_dense_replace: 1,
  moe_intermediate_size: 32,
  n_routed_experts: 8,
  num_experts_per_tok: 2,
  n_group: 2,
  topk_group: 1,
  routed_scaling_factor: 1,
};
// zai-org/GLM-4.7-Flash, config.json.
const glm47Flash = {
  model_type: 'glm4_moe_lite',
  attention_bias: false,
  hidden_act: 'silu',
  hidden_size: 2048,
  intermediate_size: 10_240,
  max_position_embeddings: 202_752,
  moe_intermediate_size: 1536,
  topk_method: 'noaux_tc',
  norm_topk_prob: true,
  num_attention_heads: 20,
  n_group: 1,
  topk_group: 1,
  n_routed_experts: 64,
  n_shared_experts: 1,
  routed_scaling_factor: 1.8,
  num_experts_per_tok: 4,
  first_k_dense_replace: 1,
  num_hidden_layers: 47,
  num_key_value_heads: 20,
  num_nextn_predict_layers: 1,
  partial_rotary_factor: 1.0,
  rms_norm_eps: 1e-5,
  rope_scaling: null,
  rope_theta: 1_000_000,
  tie_word_embeddings: false,
  q_lora_rank: 768,
  kv_lora_rank: 512,
  qk_nope_head_dim: 192,
  qk_rope_head_dim: 64,
  v_head_dim: 256,
  vocab_size: 154_880,
};
// MiniMaxAI/MiniMax-M2, config.json.
const miniMaxM2 = {
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
  rms_norm_eps: 1e-6,
  rope_theta: 5_000_000,
  rotary_dim: 64,
  scoring_func: 'sigmoid',
  shared_intermediate_size: 0,
  tie_word_embeddings: false,
  use_qk_norm: true,
  use_routing_bias: true,
  vocab_size: 200_064,
};
const { rms_norm_eps: norm_epsilon, ...unnormed } = llama;
const starcoder2 = { ...unnormed, model_type: 'starcoder2', norm_epsilon, hidden_act: 'gelu_pytorch_tanh' };

// mistralai/Devstral-Small-2-24B-Instruct-2512, config.json, without its pictures.
const devstral = {
  model_type: 'mistral3',
  text_config: {
    head_dim: 128,
    hidden_act: 'silu',
    hidden_size: 5120,
    intermediate_size: 32_768,
    max_position_embeddings: 393_216,
    model_type: 'ministral3',
    num_attention_heads: 32,
    num_hidden_layers: 40,
    num_key_value_heads: 8,
    rms_norm_eps: 1e-5,
    rope_parameters: {
      ...{ beta_fast: 32, beta_slow: 1, factor: 48, llama_4_scaling_beta: 0.1, mscale: 1, mscale_all_dim: 1 },
      ...{ original_max_position_embeddings: 8192, rope_theta: 1e8, rope_type: 'yarn', type: 'yarn' },
    },
    sliding_window: null,
    vocab_size: 131_072,
  },
};

describe('a configuration that Hearth cannot compute is refused by the name of its key', () => {
  it.each([
    ['hidden_act', { ...llama, hidden_act: 'gelu' }],
    ['mlp_bias', { ...llama, mlp_bias: true }],
    ['rope_scaling.rope_type', { ...llama, rope_scaling: { type: 'dynamic', factor: 2 } }],
    ['model_type', { ...llama, model_type: 'mamba' }],
    ['attention_bias', { ...qwen3, attention_bias: true }],
    ['shared_expert_intermediate_size', { ...qwen3Moe, shared_expert_intermediate_size: 64 }],
    ['scoring_func', { ...deepseek, scoring_func: 'softmax' }],
    ['topk_method', { ...deepseek, topk_method: 'greedy' }],
    ['moe_layer_freq', { ...deepseek, moe_layer_freq: 2 }],
    ['mlp_layer_types', { ...glm47Flash, mlp_layer_types: ['sparse', 'dense'] }],
    ['attention_bias', { ...glm47Flash, attention_bias: true }],
    ['scoring_func', { ...miniMaxM2, scoring_func: 'softmax' }],
    ['qk_norm_type', { ...miniMaxM2, qk_norm_type: 'per_head' }],
    ['shared_intermediate_size', { ...miniMaxM2, shared_intermediate_size: 1536 }],
    ['attn_type_list', { ...miniMaxM2, attn_type_list: [0, 1] }],
    ['use_bias', { ...starcoder2, use_bias: false }],
    ['hidden_act', { ...starcoder2, hidden_act: 'gelu' }],
    ['norm_type', { ...starcoder2, norm_type: 'rms_norm' }],
    ['text_config.model_type', { ...devstral, text_config: { ...devstral.text_config, model_type: 'ministral' } }],
  ])('%s', (key, config) => {
    expect(() => specFromConfig(config)).toThrow(
      expect.objectContaining({ code: 'unsupported', message: expect.stringContaining(`key ${key}:`) }),
    );
  });
});

describe('a malformed configuration is refused by the name of its key', () => {
  it.each([
    ['hidden_size', { ...llama, hidden_size: undefined }],
    ['hidden_size', { ...llama, hidden_size: 1e12 }],
    ['num_hidden_layers', { ...llama, num_hidden_layers: 2.5 }],
    ['vocab_size', { ...llama, vocab_size: '256' }],
    ['rms_norm_eps', { ...llama, rms_norm_eps: -1 }],
    ['max_position_embeddings', { ...llama, max_position_embeddings: 0 }],
    ['rope_scaling.factor', { ...llama, rope_scaling: { rope_type: 'yarn' } }],
    ['rope_scaling.low_freq_factor', { ...llama, rope_scaling: { rope_type: 'llama3', factor: 8 } }],
    ['sliding_window', { ...qwen3, use_sliding_window: true }],
    ['num_experts', { ...qwen3Moe, num_experts: -1 }],
    ['model_type', null],
    ['model_type', []],
  ])('%s', (key, config) => {
    expect(() => specFromConfig(config)).toThrow(
      expect.objectContaining({ code: 'invalid-input', message: expect.stringContaining(`key ${key}`) }),
    );
  });

  it.each([
    ['4 query heads on 3 key-value heads', { ...llama, num_key_value_heads: 3 }],
    ['a head of 12.8 elements', { ...llama, num_attention_heads: 5 }],
    ['choosing 9 of 8 experts', { ...qwen3Moe, num_experts_per_tok: 9 }],
    ['8 experts in 3 groups', { ...deepseek, n_group: 3 }],
    ['choosing 5 experts from 1 of 2 groups', { ...deepseek, num_experts_per_tok: 5 }],
  ])('%s', (relation, config) => {
    expect(() => specFromConfig(config)).toThrow(
      expect.objectContaining({ code: 'invalid-input', message: expect.stringContaining(relation) }),
    );
  });
});

it('weights quantised in a way that Hearth has no kernels for are refused by the name of the method', () => {
  const config = { ...llama, quantization_config: { quant_method: 'gptq', bits: 4 } };
  const build = () => llamaFamily.weightsFromHuggingFace(specFromConfig(config), new MemoryFile(new Map()), config);
  expect(build).toThrow(
    expect.objectContaining({
      code: 'unsupported',
      message: expect.stringContaining('quantization_config.quant_method'),
    }),
  );
});

function attentionOf(config: unknown, layer = 0): GroupedQueryAttentionSpec {
  const attention = specFromConfig(config).layers[layer]?.attention;
  if (attention?.kind !== 'grouped-query') throw new Error('no grouped-query attention');
  return attention;
}

describe('rotary settings', () => {
  it('are the same under rope_scaling and under rope_parameters', () => {
    const rope_scaling = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 256 };
    const older = specFromConfig({ ...qwen3, rope_scaling });
    const { rope_theta, ...rest } = qwen3;
    const newer = specFromConfig({ ...rest, rope_parameters: { ...rope_scaling, rope_theta } });
    expect(newer).toEqual(older);
  });

  it('take the base 10000 if the configuration has none', () => {
    expect(attentionOf(llama).rope.theta).toBe(10000);
  });

  it('of Llama 3 become divisors', () => {
    const llama3 = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 512 };
    const { rope } = attentionOf({ ...llama, rope_scaling: { rope_type: 'llama3', ...llama3 } });
    expect(rope.frequencyFactors?.[0]).toBe(1);
    expect(rope.frequencyFactors?.at(-1)).toBe(8);
  });

  describe('of longrope', () => {
    // Phi-4-mini's lengths.
    const lengths = { original_max_position_embeddings: 4096, max_position_embeddings: 131_072 };
    const factors = { short_factor: [1, 2, 3, 4, 5, 6], long_factor: [7, 8, 9, 10, 11, 12] };
    const phi = { ...llama, model_type: 'phi3', head_dim: 16, partial_rotary_factor: 0.75, ...lengths };
    const longrope = { ...phi, rope_scaling: { type: 'longrope', ...factors } };

    it('take the long factors for a context beyond the original one, and the short ones for others', () => {
      const spec = specFromConfig(longrope);
      const factorsOf = ({ layers }: DecoderSpec) => layers.map(({ attention }) => attention.rope?.frequencyFactors);
      expect(spec.contextTokens).toBe(131_072);
      expect(factorsOf(withContext(spec, 131_072))).toEqual([factors.long_factor, factors.long_factor]);
      expect(withContext(spec, 4097)).toBe(spec);
      expect(factorsOf(withContext(spec, 4096))).toEqual([factors.short_factor, factors.short_factor]);
    });

    it('multiply cos and sin alike in both, by what transformers computes', () => {
      const spec = specFromConfig(longrope);
      // transformers' `_compute_longrope_parameters`: sqrt(1 + ln(32) / ln(4096)).
      for (const tokens of [4096, 8192]) {
        const { rope } = withContext(spec, tokens).layers[0]?.attention ?? {};
        expect(rope && attentionFactor(rope)).toBeCloseTo(1.190238, 6);
      }
      const stated = { ...longrope, rope_scaling: { ...longrope.rope_scaling, attention_factor: 2 } };
      expect(attentionFactor(attentionOf(stated).rope)).toBe(2);
    });

    it('need one factor a rotated pair', () => {
      const short = { ...longrope, rope_scaling: { type: 'longrope', ...factors, short_factor: [1] } };
      expect(() => specFromConfig(short)).toThrow(/1 rotary factors for 6 pairs/);
    });
  });

  it('with YaRN claim the stretched context', () => {
    const rope_scaling = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 32768 };
    expect(specFromConfig({ ...qwen3, rope_scaling }).contextTokens).toBe(131072);
  });
});

describe('queries that are sharpened by position', () => {
  const { text_config: text } = devstral;

  it('are those of Devstral Small 2, whose factors on cos and sin cancel', () => {
    const spec = specFromConfig(devstral);
    const { queryTemperature, rope, headDim } = attentionOf(devstral);
    expect(queryTemperature).toEqual({ beta: 0.1, originalContextTokens: 8192 });
    expect(attentionFactor(rope)).toBe(1);
    expect(headDim).toBe(128);
    expect(spec.contextTokens).toBe(393_216);
    // The card: 24B parameters.
    expect(describeSpec(spec).parameters / 1e9).toBeCloseTo(23.57, 2);
  });

  it('have the factor 1 + beta ln(1 + floor(position / original context)) of transformers', () => {
    const temperature = { beta: 0.1, originalContextTokens: 8192 };
    expect(queryFactor(temperature, 8191)).toBe(1);
    expect(queryFactor(temperature, 8192)).toBeCloseTo(1.0693147, 7);
    expect(queryFactor(temperature, 393_215)).toBeCloseTo(1 + 0.1 * Math.log(48), 12);
    expect(queryFactor(undefined, 393_215)).toBe(1);
  });

  it('are none without a beta, or with one of 0 (Devstral 2)', () => {
    const { llama_4_scaling_beta: beta, ...rope_parameters } = text.rope_parameters;
    expect(beta).toBe(0.1);
    for (const settings of [rope_parameters, { ...rope_parameters, llama_4_scaling_beta: 0 }]) {
      expect(attentionOf({ ...text, rope_parameters: settings })).not.toHaveProperty('queryTemperature');
    }
  });

  it.each([
    ['a query temperature of -1', { ...text.rope_parameters, llama_4_scaling_beta: -1 }],
    ['key rope_parameters.original_max_position_embeddings is missing', { rope_theta: 1e8, llama_4_scaling_beta: 0.1 }],
  ])('are refused with %s', (said, rope_parameters) => {
    expect(() => specFromConfig({ ...text, rope_parameters })).toThrow(
      expect.objectContaining({ code: 'invalid-input', message: expect.stringContaining(said) }),
    );
  });
});

describe('Mistral', () => {
  const mistral = { ...llama, model_type: 'mistral', head_dim: 32, sliding_window: null };
  const { model_type: _, ...architecture } = mistral;

  it('has the architecture of Llama', () => {
    const { family, ...spec } = specFromConfig(mistral);
    const { family: other, ...expected } = specFromConfig({ ...architecture, model_type: 'llama' });
    expect([family, other]).toEqual(['mistral3', 'llama']);
    expect(spec).toEqual(expected);
  });

  it('has a window where its configuration has one, or says nothing (transformers)', () => {
    const { sliding_window, ...silent } = mistral;
    expect(sliding_window).toBeNull();
    expect(attentionOf({ ...mistral, sliding_window: 16 }).slidingWindow).toBe(16);
    expect(attentionOf(silent).slidingWindow).toBe(4096);
    expect(attentionOf(mistral).slidingWindow).toBeUndefined();
    expect(attentionOf({ ...silent, model_type: 'ministral3' }).slidingWindow).toBeUndefined();
  });

  it('ties its head if the text part says so, whatever the outer configuration says', () => {
    const tiedOf = (config: unknown) => specFromConfig(config).tiedEmbeddings;
    expect(tiedOf({ ...devstral, tie_word_embeddings: true })).toBe(false);
    expect(tiedOf({ ...devstral, text_config: { ...devstral.text_config, tie_word_embeddings: true } })).toBe(true);
  });
});

describe('a sliding window', () => {
  it('of Qwen starts after max_window_layers, when it is switched on', () => {
    const config = { ...qwen3, use_sliding_window: true, sliding_window: 16, max_window_layers: 1 };
    expect(attentionOf(config, 0).slidingWindow).toBeUndefined();
    expect(attentionOf(config, 1).slidingWindow).toBe(16);
  });

  it('that is mentioned but switched off is ignored', () => {
    expect(attentionOf({ ...qwen3, sliding_window: 16, max_window_layers: 0 }).slidingWindow).toBeUndefined();
  });
});

it('dense layers among experts stay dense', () => {
  const kinds = (config: unknown) => specFromConfig(config).layers.map(({ feedForward }) => feedForward.kind);
  expect(kinds({ ...qwen3Moe, num_hidden_layers: 4, mlp_only_layers: [1] })).toEqual([
    'experts',
    'dense',
    'experts',
    'experts',
  ]);
  expect(kinds({ ...qwen3Moe, num_hidden_layers: 4, decoder_sparse_step: 2 })).toEqual([
    'dense',
    'experts',
    'dense',
    'experts',
  ]);
});

it('DeepSeek without q_lora_rank projects its query directly', () => {
  const attention = specFromConfig(deepseek).layers[0]?.attention;
  expect(attention).toMatchObject({ kind: 'latent', keyValueRank: 16 });
  expect(attention).not.toHaveProperty('queryRank');
});

describe('GLM-4.7-Flash', () => {
  const spec = specFromConfig(glm47Flash);

  it('has latent attention without YaRN, and one group of experts', () => {
    expect(spec).toMatchObject({ family: 'glm4-moe-lite', contextTokens: 202_752, normEpsilon: 1e-5 });
    expect(spec.layers).toHaveLength(47);
    expect(spec.layers[0]?.attention).toEqual({
      kind: 'latent',
      ...{ numAttentionHeads: 20, queryRank: 768, keyValueRank: 512 },
      ...{ nopeHeadDim: 192, ropeHeadDim: 64, valueHeadDim: 256 },
      // transformers' Glm4MoeLiteAttention makes these norms without `rms_norm_eps`.
      normEpsilon: 1e-6,
      rope: { theta: 1_000_000, dimensions: 64, layout: 'interleaved' },
      softmaxScale: 1 / 16,
    });
    expect(spec.layers[0]?.feedForward).toMatchObject({ kind: 'dense', intermediateSize: 10_240 });
    expect(spec.layers[1]?.feedForward).toEqual({
      kind: 'experts',
      ...{ numExperts: 64, expertsPerToken: 4, intermediateSize: 1536, sharedIntermediateSize: 1536 },
      router: { kind: 'sigmoid-grouped', groups: 1, groupsUsed: 1, renormalise: true },
      ...{ bias: false, activation: { kind: 'silu-gate' }, routedScale: 1.8 },
    });
  });

  it('has the sizes of its name, 30B-A3B', () => {
    const { parameters, activeParameters } = describeSpec(spec);
    expect(Math.round(parameters / 1e9)).toBe(30);
    expect(Math.floor(activeParameters / 1e9)).toBe(3);
  });

  it('is the same if transformers 5 wrote the layer types', () => {
    const { first_k_dense_replace: _, ...others } = glm47Flash;
    const mlp_layer_types = ['dense', ...Array.from({ length: 46 }, () => 'sparse')];
    expect(specFromConfig({ ...others, mlp_layer_types })).toEqual(spec);
    expect(specFromConfig(others)).toEqual(spec);
  });
});

describe('MiniMax-M2', () => {
  const spec = specFromConfig(miniMaxM2);

  it('normalises queries and keys over all heads, and rotates half of a head', () => {
    expect(attentionOf(miniMaxM2)).toEqual({
      kind: 'grouped-query',
      ...{ numAttentionHeads: 48, numKeyValueHeads: 8, headDim: 128, bias: { qkv: false, output: false } },
      ...{ qkNorm: true, jointNorm: true, sinks: false, softmaxScale: 128 ** -0.5 },
      rope: { theta: 5_000_000, dimensions: 64, layout: 'half-split' },
    });
    expect(spec.layers).toHaveLength(62);
    expect(spec.layers[61]?.feedForward).toMatchObject({ numExperts: 256, expertsPerToken: 8, routedScale: 1 });
  });

  it('has the 230 billion parameters of its card, of which 10 compute a token', () => {
    const { parameters, activeParameters } = describeSpec(spec);
    expect(Math.round(parameters / 1e10)).toBe(23);
    expect(Math.round(activeParameters / 1e9)).toBe(10);
  });
});

describe('a longer context on request', () => {
  const spec = specFromConfig(qwen3);

  it('changes nothing if the shipped one suffices', () => {
    expect(withContext(spec, 40960)).toBe(spec);
  });

  it('stretches from the 32768 tokens that Qwen names, by no more than needed', () => {
    const stretched = withContext(spec, 65536);
    expect(stretched.contextTokens).toBe(65536);
    expect(stretched.layers[0]?.attention.rope?.yarn).toMatchObject({ factor: 2, originalContextTokens: 32768 });
  });

  it('is what the documented configuration gives', () => {
    // QwenLM/Qwen3 docs/source/inference/transformers.md.
    const rope_scaling = { rope_type: 'yarn', factor: 4.0, original_max_position_embeddings: 32768 };
    expect(withYarn(spec, 4)).toEqual(specFromConfig({ ...qwen3, rope_scaling }));
    expect(longestContextTokens(spec)).toBe(131072);
  });

  it('beyond what the publisher validated is refused', () => {
    expect(() => withContext(spec, 200_000)).toThrow(expect.objectContaining({ code: 'unsupported' }));
    expect(() => withContext(specFromConfig(llama), 2048)).toThrow(expect.objectContaining({ code: 'unsupported' }));
    expect(longestContextTokens(specFromConfig(llama))).toBe(1024);
  });

  it('turns slow pairs more slowly', () => {
    const before = inverseFrequencies(attentionOf(qwen3).rope);
    const after = inverseFrequencies(withYarn(spec, 4).layers[0]?.attention.rope ?? attentionOf(qwen3).rope);
    expect((before.at(-1) ?? 0) / (after.at(-1) ?? 1)).toBeCloseTo(4, 10);
    expect(after[0]).toBe(before[0]);
  });
});

describe('models with gated delta nets', () => {
  // Sizes of the Qwen3-Next-80B-A3B, Qwen3.6-27B and Qwen3.6-35B-A3B cards ("Model Overview").
  const delta = { linear_conv_kernel_dim: 4, linear_key_head_dim: 128, linear_value_head_dim: 128 };
  const heads = { ...delta, linear_num_key_heads: 16, linear_num_value_heads: 32, head_dim: 256 };
  const outside = { hidden_act: 'silu', rms_norm_eps: 1e-6, max_position_embeddings: 262_144, rope_theta: 1e7 };
  const next = {
    ...outside,
    ...heads,
    model_type: 'qwen3_next',
    hidden_size: 2048,
    intermediate_size: 5120,
    num_hidden_layers: 48,
    num_attention_heads: 16,
    num_key_value_heads: 2,
    num_experts: 512,
    num_experts_per_tok: 10,
    moe_intermediate_size: 512,
    shared_expert_intermediate_size: 512,
    vocab_size: 151_936,
  };
  const dense = {
    ...outside,
    ...heads,
    linear_num_value_heads: 48,
    model_type: 'qwen3_5_text',
    hidden_size: 5120,
    intermediate_size: 17_408,
    num_hidden_layers: 64,
    num_attention_heads: 24,
    num_key_value_heads: 4,
    vocab_size: 248_320,
  };
  const { intermediate_size: _, ...sparse } = { ...next, model_type: 'qwen3_5_moe_text' };
  const small = { ...sparse, num_hidden_layers: 40, num_experts: 256, num_experts_per_tok: 8, vocab_size: 248_320 };

  it.each([
    ['Qwen3-Next-80B-A3B', 80, 3, next],
    ['Qwen3.6-27B', 27, 27, { model_type: 'qwen3_5', text_config: dense }],
    ['Qwen3.6-35B-A3B', 35, 3, { model_type: 'qwen3_5_moe', text_config: small }],
  ])('%s has %d billion parameters, %d active', (_name, total, active, config) => {
    const { parameters, activeParameters } = describeSpec(specFromConfig(config));
    expect(parameters / 1e9 / total).toBeCloseTo(1, 1);
    // The cards count without embeddings, and round.
    expect(activeParameters / 1e9 / active).toBeGreaterThan(0.9);
    expect(activeParameters / 1e9 / active).toBeLessThan(1.3);
  });

  it('have attention in every fourth layer, or as configured', () => {
    const kinds = (config: unknown) => specFromConfig(config).layers.map(({ attention }) => attention.kind);
    expect(kinds({ ...next, num_hidden_layers: 5 })).toEqual([
      ...['gated-delta', 'gated-delta', 'gated-delta', 'grouped-query', 'gated-delta'],
    ]);
    const layer_types = ['full_attention', 'linear_attention'];
    expect(kinds({ ...next, num_hidden_layers: 2, layer_types })).toEqual(['grouped-query', 'gated-delta']);
  });

  it.each([
    ['no attention', { num_hidden_layers: 2 }, /no layer with attention/],
    ['heads that do not divide', { linear_num_value_heads: 20 }, /20 value heads on 16 key heads/],
    ['a convolution of one token', { linear_conv_kernel_dim: 1 }, /a convolution over 1 tokens/],
    ['no size of its experts', { moe_intermediate_size: undefined }, /moe_intermediate_size is missing/],
  ])('are refused with %s', (_what, wrong, said) => {
    expect(() => specFromConfig({ ...next, ...wrong })).toThrow(said);
  });
});
