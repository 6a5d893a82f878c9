import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { openModel, specFromConfig } from '../../../engine/model/open.ts';
import {
  cacheBytes,
  describeModel,
  describeSpec,
  type Inspection,
  inspectSpec,
  type WeightGroup,
} from '../../../engine/model/spec/describe.ts';
import type { DecoderSpec } from '../../../engine/model/spec/spec.ts';
import { plannedGroups, type Storage, storageOfConfig } from '../../../engine/model/weights/specTensors.ts';
import { describeShared, fixtureFile, sharedFile } from '../shared.ts';

const published = (model: string): DecoderSpec =>
  specFromConfig(JSON.parse(readFileSync(sharedFile(`models/${model}/config.json`), 'utf8')));

function inspected(model: string, storage: Storage, contexts: readonly number[] = []): Inspection {
  const spec = published(model);
  return inspectSpec(spec, plannedGroups(spec, storage), contexts);
}

const sorted = (groups: readonly WeightGroup[]) =>
  [...groups].sort((a, b) => `${a.role} ${a.type}`.localeCompare(`${b.role} ${b.type}`));
const bytesOf = (groups: readonly WeightGroup[]) => groups.reduce((sum, { bytes }) => sum + bytes, 0);

describe('weights planned from a spec are those of the checkpoint that transformers wrote', () => {
  it.each([
    ['llama', 'BF16'],
    ['qwen2', 'BF16'],
    ['qwen3', 'BF16'],
    ['qwen3-moe', 'BF16'],
    ['deepseek-v3', 'BF16'],
    ['gpt-oss', 'MXFP4'],
  ] as const)('%s in %s, type by type and byte by byte', async (name, storage) => {
    const model = await openModel(fixtureFile(`goldens/${name}`));
    const { groups } = describeModel(model);
    await model.file.close();
    expect(sorted(plannedGroups(model.spec, storage))).toEqual(sorted(groups));
  });

  it('deepseek-v3 in FP8, scales of partial blocks included', async () => {
    const model = await openModel(fixtureFile('goldens/deepseek-v3-fp8'));
    const stored = [...model.file.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    await model.file.close();
    expect(bytesOf(plannedGroups(model.spec, 'FP8'))).toBe(stored);
  });
});

// What a token costs, as derived by hand in ../shared/performance.md ("Bytes per token") from the published shapes.
describeShared(
  'bytes a token of GPT-OSS',
  ['models/gpt-oss-20b/config.json', 'models/gpt-oss-120b/config.json'],
  () => {
    it.each([
      ['gpt-oss-20b', 3.71],
      ['gpt-oss-120b', 5.0],
    ])('%s reads %d GB of weights as published', (model, gigabytes) => {
      expect(inspected(model, 'MXFP4').weights.bytesPerToken / 1e9).toBeCloseTo(gigabytes, 2);
    });

    it.each([
      ['gpt-oss-20b', 2.57],
      ['gpt-oss-120b', 3.56],
    ])('%s would read %d GB with attention and head in Q8_0', (model, gigabytes) => {
      const { groups, bytesPerToken } = inspected(model, 'MXFP4').weights;
      const saved = bytesOf(groups.filter(({ role }) => role === 'attention' || role === 'head')) * (1 - 34 / 32 / 2);
      // The derivation there leaves out what is not a matrix.
      expect(Math.abs((bytesPerToken - saved) / 1e9 - gigabytes)).toBeLessThan(0.01);
    });

    it('GPT-OSS-20B caches 24.6 kB a token in 12 full-attention layers, and 128 tokens in the other 12', () => {
      const { cache, memory, weights } = inspected('gpt-oss-20b', 'MXFP4', [100, 8192, 131_072, 131_073]);
      expect(cache.bytesPerToken).toBe(24_576);
      // "SWA ring snapshots (3.1 MB each)", ibid.
      expect(cache.windowBytes).toBe(128 * 24_576);
      expect(memory.map(({ cacheBytes: bytes }) => bytes)).toEqual(
        [100 + 100, 8192 + 128, 131_072 + 128, 131_073 + 128].map((tokens) => tokens * 24_576),
      );
      expect(memory.map(({ bytes }) => bytes)).toEqual([
        ...memory.slice(0, 3).map((each) => weights.bytes + each.cacheBytes),
        undefined,
      ]);
    });
  },
);

describeShared(
  'what other models cost',
  ['Qwen3-30B-A3B', 'Qwen3-Coder-30B-A3B-Instruct', 'DeepSeek-V3'].map((model) => `models/${model}/config.json`),
  () => {
    it('Qwen3-30B-A3B reads 2.36 GB a token with attention and head in Q8_0, less as Q4_K_M is published', () => {
      const { weights, activeParameters } = inspected('Qwen3-30B-A3B', 'Q4_K_M');
      const spec = published('Qwen3-30B-A3B');
      const eight = plannedGroups(spec, 'Q8_0');
      const always = (groups: readonly WeightGroup[]) =>
        bytesOf(groups.filter(({ role }) => role !== 'embedding' && role !== 'routed-experts'));
      // 8 of 128 experts of 3 x 2048 x 768 in 48 layers, at 4.5 bits.
      const experts = (48 * 8 * 3 * 2048 * 768 * 4.5) / 8;
      expect((always(eight) + experts) / 1e9).toBeCloseTo(2.36, 2);
      // "3.3B activated", its model card, counts the embedding.
      expect((activeParameters + 151_936 * 2048) / 1e9).toBeCloseTo(3.35, 2);
      expect(weights.bytesPerToken).toBeLessThan(always(eight) + experts);
    });

    it('DeepSeek-V3 caches 576 values a token and layer, 70 kB in all', () => {
      const { cache, attention, feedForward } = inspected('DeepSeek-V3', 'FP8');
      expect(cache).toEqual({ precision: 'f16', bytesPerToken: 61 * 576 * 2, windowBytes: 0 });
      const spec = published('DeepSeek-V3');
      const eight = inspectSpec(spec, plannedGroups(spec, 'FP8'), [1000], 'q8');
      // A byte a value, and a scale of four bytes for 32 of them.
      expect(eight.cache).toEqual({ precision: 'q8', bytesPerToken: 61 * (576 + 4 * 18), windowBytes: 0 });
      expect(eight.memory[0]?.cacheBytes).toBe(1000 * 61 * (576 + 4 * 18));
      expect(attention.map(({ layers }) => layers)).toEqual([61]);
      expect(feedForward.map(({ layers, spec }) => [layers, spec.kind])).toEqual([
        [3, 'dense'],
        [58, 'experts'],
      ]);
    });

    it('Qwen3 reaches 131,072 tokens with YaRN on request', () => {
      const [at131k] = inspected('Qwen3-30B-A3B', 'Q4_K_M', [131_072]).memory;
      expect(at131k?.cacheBytes).toBe(131_072 * 2 * 2 * 4 * 128 * 48);
      expect(at131k?.bytes).toBeGreaterThan(0);
      expect(inspected('Qwen3-30B-A3B', 'Q4_K_M')).toMatchObject({
        contextTokens: 40_960,
        longestContextTokens: 131_072,
        yarnOnRequest: { largestFactor: 4, originalContextTokens: 32_768 },
      });
      expect(inspected('DeepSeek-V3', 'FP8').yarnOnRequest).toBeUndefined();
    });
  },
);

describe('what a context takes', () => {
  const layer = (slidingWindow?: number): DecoderSpec['layers'][number] => ({
    attention: {
      kind: 'grouped-query',
      numAttentionHeads: 1,
      numKeyValueHeads: 1,
      headDim: 1,
      bias: { qkv: false, output: false },
      qkNorm: false,
      sinks: false,
      ...(slidingWindow !== undefined && { slidingWindow }),
      rope: { theta: 1, dimensions: 2, layout: 'half-split' },
      softmaxScale: 1,
    },
    feedForward: { kind: 'dense', intermediateSize: 1, activation: { kind: 'silu-gate' } },
  });
  // Each layer caches 4 bytes a token.
  const spec = { layers: [layer(), layer(10)] };

  it('counts a window only until it is full', () => {
    expect([1, 10, 11, 100].map((tokens) => cacheBytes(spec, tokens, 2))).toEqual([8, 80, 84, 440]);
  });
});

describe('how a checkpoint is stored, by its config.json', () => {
  it.each([
    [{ model_type: 'gpt_oss', quantization_config: { quant_method: 'mxfp4' } }, 'MXFP4', false],
    [{ rope_ntk_alpha: 1 }, 'MXFP4', false],
    [{ quantization_config: { quant_method: 'fp8', weight_block_size: [128, 128] } }, 'FP8', false],
    [{ torch_dtype: 'bfloat16' }, 'BF16', false],
    [{ dtype: 'float16' }, 'F16', false],
    [{ torch_dtype: 'float32' }, 'F32', false],
    [{}, 'BF16', true],
  ])('%j', (config, storage, assumed) => {
    expect(storageOfConfig(config)).toMatchObject({ storage, assumed });
  });

  it('is refused if Hearth cannot compute with it', () => {
    expect(() => storageOfConfig({ quantization_config: { quant_method: 'gptq' } })).toThrow(/quant_method.*gptq/);
  });
});

describeShared('active parameters', ['models/gpt-oss-20b/config.json'], () => {
  it('are whole numbers that agree with the planned groups', () => {
    const spec = published('gpt-oss-20b');
    const { parameters, activeParameters } = describeSpec(spec);
    expect(plannedGroups(spec, 'BF16').reduce((sum, group) => sum + group.parameters, 0)).toBe(parameters);
    // arXiv 2508.10925, table 1.
    expect([parameters, activeParameters].map((count) => Math.round(count / 1e7) / 100)).toEqual([20.91, 3.61]);
    expect(Number.isSafeInteger(activeParameters)).toBe(true);
  });
});
