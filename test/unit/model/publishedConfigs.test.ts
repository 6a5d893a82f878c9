import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { specFromConfig } from '../../../engine/model/open.ts';
import { describeSpec } from '../../../engine/model/spec/describe.ts';
import type { DecoderSpec, ExpertsSpec, GroupedQueryAttentionSpec } from '../../../engine/model/spec/spec.ts';
import { describeShared, sharedFile } from '../shared.ts';

function published(model: string, file = 'config.json'): DecoderSpec {
  return specFromConfig(JSON.parse(readFileSync(sharedFile(`models/${model}/${file}`), 'utf8')));
}

function groupedQuery(spec: DecoderSpec, layer = 0): GroupedQueryAttentionSpec {
  const attention = spec.layers[layer]?.attention;
  if (attention?.kind !== 'grouped-query') throw new Error('no grouped-query attention');
  return attention;
}

function experts(spec: DecoderSpec, layer = spec.layers.length - 1): ExpertsSpec {
  const feedForward = spec.layers[layer]?.feedForward;
  if (feedForward?.kind !== 'experts') throw new Error('no experts');
  return feedForward;
}

const billions = (count: number) => Math.round(count / 1e7) / 100;

// Geometry from the model cards, as tabled in QwenLM/Qwen3 and THUDM/slime scripts/models.
describeShared('Qwen3 as published', ['models/Qwen3-0.6B/config.json'], () => {
  it.each([
    ['Qwen3-0.6B', 1024, 3072, 28, 16, true],
    ['Qwen3-1.7B', 2048, 6144, 28, 16, true],
    ['Qwen3-4B', 2560, 9728, 36, 32, true],
    ['Qwen3-8B', 4096, 12288, 36, 32, false],
    ['Qwen3-14B', 5120, 17408, 40, 40, false],
    ['Qwen3-32B', 5120, 25600, 64, 64, false],
  ])('%s', (model, hiddenSize, intermediateSize, layers, numAttentionHeads, tiedEmbeddings) => {
    const spec = published(model);
    expect(spec).toMatchObject({ family: 'qwen3', hiddenSize, tiedEmbeddings, vocabularySize: 151936 });
    expect(spec).toMatchObject({ normEpsilon: 1e-6, contextTokens: 40960 });
    expect(spec.layers).toHaveLength(layers);
    expect(groupedQuery(spec)).toMatchObject({
      numAttentionHeads,
      numKeyValueHeads: 8,
      headDim: 128,
      qkNorm: true,
      sinks: false,
      bias: { qkv: false, output: false },
      rope: { theta: 1e6, dimensions: 128, layout: 'half-split' },
    });
    expect(groupedQuery(spec).slidingWindow).toBeUndefined();
    expect(groupedQuery(spec).softmaxScale).toBeCloseTo(1 / Math.sqrt(128), 15);
    expect(spec.layers.at(-1)?.feedForward).toEqual({
      kind: 'dense',
      intermediateSize,
      activation: { kind: 'silu-gate' },
    });
  });

  it.each([
    ['Qwen3-30B-A3B', 'config.json', 2048, 768, 48, 32, 1e6, 40960],
    ['Qwen3-Coder-30B-A3B-Instruct', 'config.json', 2048, 768, 48, 32, 1e7, 262144],
    ['Qwen3-235B-A22B', 'config.json', 4096, 1536, 94, 64, 1e6, 40960],
    ['Qwen3-235B-A22B', 'config.2507.json', 4096, 1536, 94, 64, 5e6, 262144],
  ])('%s %s', (model, file, hiddenSize, intermediateSize, layers, numAttentionHeads, theta, contextTokens) => {
    const spec = published(model, file);
    expect(spec).toMatchObject({ family: 'qwen3-moe', hiddenSize, contextTokens, tiedEmbeddings: false });
    expect(spec.layers).toHaveLength(layers);
    expect(groupedQuery(spec)).toMatchObject({ numAttentionHeads, numKeyValueHeads: 4, headDim: 128, rope: { theta } });
    for (const layer of spec.layers) {
      expect(layer.feedForward).toMatchObject({
        kind: 'experts',
        numExperts: 128,
        expertsPerToken: 8,
        intermediateSize,
        router: { kind: 'softmax-then-topk', renormalise: true },
        bias: false,
        routedScale: 1,
      });
    }
    expect(experts(spec).sharedIntermediateSize).toBeUndefined();
  });

  // "Number of Parameters: 30.5B in total and 3.3B activated; (Non-Embedding): 29.9B" and their like, from the model cards.
  it.each([
    ['Qwen3-0.6B', 0.6, 0.44, 0.6],
    ['Qwen3-4B', 4.0, 3.6, 4.0],
    ['Qwen3-8B', 8.2, 6.95, 7.6],
    ['Qwen3-30B-A3B', 30.5, 29.9, 3.3],
    ['Qwen3-235B-A22B', 235, 234, 22],
  ])('%s has %d billion parameters, %d without embeddings, and %d active', (model, total, inside, active) => {
    const spec = published(model);
    const { parameters, activeParameters } = describeSpec(spec);
    const embedding = spec.vocabularySize * spec.hiddenSize;
    expect(parameters / 1e9 / total).toBeCloseTo(1, 1);
    expect((parameters - (spec.tiedEmbeddings ? 1 : 2) * embedding) / 1e9 / inside).toBeCloseTo(1, 1.5);
    expect(activeParameters / 1e9 / active).toBeGreaterThan(0.9);
    expect(activeParameters / 1e9 / active).toBeLessThan(1.02);
  });
});

// openai/gpt-oss and its model card (arXiv 2508.10925), table 1.
describeShared('GPT-OSS as published', ['models/gpt-oss-20b/config.json', 'models/gpt-oss-120b/config.json'], () => {
  it.each([
    ['gpt-oss-20b', 24, 32, 20.91, 3.61],
    ['gpt-oss-120b', 36, 128, 116.83, 5.13],
  ])('%s', (model, layers, numExperts, total, active) => {
    const spec = published(model);
    expect(spec).toMatchObject({
      family: 'gpt-oss',
      hiddenSize: 2880,
      vocabularySize: 201088,
      normEpsilon: 1e-5,
      contextTokens: 131072,
      tiedEmbeddings: false,
    });
    expect(spec.layers).toHaveLength(layers);
    for (const [index, { attention }] of spec.layers.entries()) {
      expect(attention).toMatchObject({
        numAttentionHeads: 64,
        numKeyValueHeads: 8,
        headDim: 64,
        bias: { qkv: true, output: true },
        sinks: true,
        softmaxScale: 1 / 8,
      });
      expect('slidingWindow' in attention ? attention.slidingWindow : undefined).toBe(index % 2 ? undefined : 128);
    }
    expect(groupedQuery(spec).rope).toMatchObject({
      theta: 150000,
      layout: 'half-split',
      yarn: { factor: 32, originalContextTokens: 4096, betaFast: 32, betaSlow: 1, truncate: false },
    });
    expect(experts(spec)).toMatchObject({
      numExperts,
      expertsPerToken: 4,
      intermediateSize: 2880,
      bias: true,
      router: { kind: 'topk-then-softmax' },
      activation: { kind: 'swiglu-clamped', alpha: 1.702, limit: 7 },
    });
    const { parameters, activeParameters } = describeSpec(spec);
    expect(billions(parameters)).toBe(total);
    expect(billions(activeParameters)).toBe(active);
  });

  it("OpenAI's own configuration describes the same model", () => {
    // gpt-oss-20b/original/config.json, keys as openai/gpt-oss gpt_oss/torch/model.py ModelConfig.
    const original = {
      num_hidden_layers: 24,
      num_experts: 32,
      experts_per_token: 4,
      vocab_size: 201088,
      hidden_size: 2880,
      intermediate_size: 2880,
      swiglu_limit: 7.0,
      head_dim: 64,
      num_attention_heads: 64,
      num_key_value_heads: 8,
      sliding_window: 128,
      initial_context_length: 4096,
      rope_theta: 150000,
      rope_scaling_factor: 32.0,
      rope_ntk_alpha: 1,
      rope_ntk_beta: 32,
    };
    expect(specFromConfig(original)).toEqual(published('gpt-oss-20b'));
  });
});

describeShared('DeepSeek as published', ['models/DeepSeek-V3/config.json', 'models/DeepSeek-V3.1/config.json'], () => {
  it.each(['DeepSeek-V3', 'DeepSeek-V3.1'])('%s', (model) => {
    const spec = published(model);
    expect(spec).toMatchObject({
      family: 'deepseek-v3',
      hiddenSize: 7168,
      vocabularySize: 129280,
      contextTokens: 163840,
    });
    expect(spec.layers).toHaveLength(61);
    expect(spec.layers[0]?.attention).toMatchObject({
      kind: 'latent',
      numAttentionHeads: 128,
      queryRank: 1536,
      keyValueRank: 512,
      nopeHeadDim: 128,
      ropeHeadDim: 64,
      valueHeadDim: 128,
      rope: {
        theta: 10000,
        layout: 'interleaved',
        yarn: { factor: 40, originalContextTokens: 4096, truncate: true, attentionFactor: 1 },
      },
    });
    // 192^-0.5 · (0.1 · ln 40 + 1)², inference/model.py.
    expect(spec.layers[0]?.attention.softmaxScale).toBeCloseTo(0.1352337788608801, 14);
    expect(spec.layers.map(({ feedForward }) => feedForward.kind).lastIndexOf('dense')).toBe(2);
    expect(spec.layers[0]?.feedForward).toMatchObject({ intermediateSize: 18432 });
    expect(experts(spec)).toMatchObject({
      numExperts: 256,
      expertsPerToken: 8,
      intermediateSize: 2048,
      sharedIntermediateSize: 2048,
      router: { kind: 'sigmoid-grouped', groups: 8, groupsUsed: 4, renormalise: true },
      routedScale: 2.5,
    });
  });

  it('has 671 billion parameters and 36.7 active, embedding included (README_WEIGHTS.md)', () => {
    const { parameters, activeParameters, cacheValuesPerToken } = describeSpec(published('DeepSeek-V3'));
    expect(Math.round(parameters / 1e9)).toBe(671);
    const embedding = 129280 * 7168;
    expect(Math.abs((activeParameters + embedding) / 1e9 - 36.7)).toBeLessThan(1);
    expect(cacheValuesPerToken).toBe(61 * 576);
  });
});

describeShared('SmolLM2 as published', ['models/SmolLM2-135M-Instruct/config.json'], () => {
  it('SmolLM2-135M-Instruct', () => {
    const spec = published('SmolLM2-135M-Instruct');
    expect(spec).toMatchObject({ family: 'llama', hiddenSize: 576, contextTokens: 8192, tiedEmbeddings: true });
    expect(spec.layers).toHaveLength(30);
    expect(groupedQuery(spec)).toMatchObject({
      numAttentionHeads: 9,
      numKeyValueHeads: 3,
      headDim: 64,
      rope: { theta: 100000, dimensions: 64, layout: 'half-split' },
    });
    expect(Math.round(describeSpec(spec).parameters / 1e6)).toBe(135);
  });
});

describe('Qwen2.5-Coder', () => {
  it('has biases on q, k and v, and no window although its configuration mentions one', () => {
    // Qwen/Qwen2.5-Coder-1.5B config.json.
    const spec = specFromConfig({
      model_type: 'qwen2',
      hidden_act: 'silu',
      hidden_size: 1536,
      intermediate_size: 8960,
      max_position_embeddings: 32768,
      max_window_layers: 28,
      num_attention_heads: 12,
      num_hidden_layers: 28,
      num_key_value_heads: 2,
      rms_norm_eps: 1e-6,
      rope_theta: 1000000.0,
      sliding_window: 131072,
      tie_word_embeddings: true,
      use_sliding_window: false,
      vocab_size: 151936,
    });
    expect(groupedQuery(spec)).toMatchObject({ headDim: 128, bias: { qkv: true, output: false }, qkNorm: false });
    expect(groupedQuery(spec).slidingWindow).toBeUndefined();
    // "Number of Parameters: 1.54B", its model card.
    expect(billions(describeSpec(spec).parameters)).toBe(1.54);
  });
});
