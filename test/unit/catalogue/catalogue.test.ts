import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import {
  type CatalogueEntry,
  catalogue,
  defaultModelId,
  findEntry,
  parseCatalogue,
} from '../../../engine/catalogue/catalogue.ts';
import { catalogueData } from '../../../engine/catalogue/catalogueData.ts';
import { describeShared, sharedFile } from '../shared.ts';

function entry(id: string): CatalogueEntry {
  const found = findEntry(id);
  if (!found) throw new Error(`${id} is not in the catalogue.`);
  return found;
}

describe('the catalogue', () => {
  it('lists each model once', () => {
    const ids = catalogue.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids).toContain(defaultModelId);
  });

  it('has all expected models', () => {
    expect(catalogue.map(({ name }) => name)).toEqual([
      'SmolLM2 135M Instruct',
      ...['0.5B', '1.5B', '3B', '7B', '14B', '32B'].map((size) => `Qwen2.5-Coder ${size} Instruct`),
      ...['1.5B', '3B', '7B'].map((size) => `Qwen2.5-Coder ${size}`),
      'StarCoder2 3B',
      ...['0.6B', '1.7B', '4B', '8B', '14B', '32B'].map((size) => `Qwen3 ${size}`),
      'Qwen3 4B Instruct 2507',
      'Qwen3 30B-A3B',
      'Qwen3 30B-A3B Instruct 2507',
      'Qwen3-Coder 30B-A3B Instruct',
      'Qwen3.5 4B',
      'Qwen3.5 9B',
      'Qwen3.6 35B-A3B',
      'Qwen3-Next 80B-A3B Instruct',
      'GPT-OSS 20B',
      'GPT-OSS 20B (one file)',
      'GPT-OSS 120B',
      'DeepSeek-V3.1',
      'Qwen3-Embedding 0.6B',
    ]);
  });

  it('states download sizes that are the sum of the files, or marks them as estimates', () => {
    for (const { id, files, downloadBytes, downloadEstimated } of catalogue) {
      const known = files.every((file) => file.bytes !== undefined);
      const sum = files.reduce((total, file) => total + (file.bytes ?? 0), 0);
      expect([id, downloadEstimated], id).toEqual([id, !known]);
      if (known) expect(downloadBytes, id).toBe(sum);
    }
  });

  it('pins the default model to a digest, with the hub as first and PyPI as second source', () => {
    const { files, sources } = entry(defaultModelId);
    expect(sources.map(({ kind }) => kind)).toEqual(['hub', 'wheel']);
    expect(files).toHaveLength(1);
    expect(files[0]?.sha256).toMatch(/^[0-9a-f]{64}$/);
  });

  it('marks the licences that forbid some uses', () => {
    const closed = catalogue.filter(({ licence }) => !licence.open).map(({ id }) => id);
    expect(closed).toEqual(['qwen2.5-coder-3b-instruct', 'qwen2.5-coder-3b', 'starcoder2-3b']);
  });

  it.each(['../x.gguf', 'a/b.gguf', 'CON', '.hidden', ''])('rejects a file named %j', (name) => {
    const [first] = catalogueData;
    if (!first) throw new Error('The catalogue is empty.');
    expect(() => parseCatalogue([{ ...first, files: [{ name }] }])).toThrow('plain file name');
  });
});

// ---- Against the published configurations ----

const config = z.looseObject({
  hidden_size: z.number(),
  num_hidden_layers: z.number(),
  num_attention_heads: z.number(),
  num_key_value_heads: z.number(),
  head_dim: z.number().optional(),
  intermediate_size: z.number(),
  moe_intermediate_size: z.number().optional(),
  num_experts: z.number().optional(),
  num_local_experts: z.number().optional(),
  num_experts_per_tok: z.number().optional(),
  vocab_size: z.number(),
  tie_word_embeddings: z.boolean(),
  max_position_embeddings: z.number(),
  model_type: z.string(),
  layer_types: z.array(z.string()).optional(),
});
type Config = z.infer<typeof config>;

/** Counts weights per tensor, as declared in transformers' modelling files. */
function countParameters(c: Config): { all: number; active: number } {
  const headDim = c.head_dim ?? c.hidden_size / c.num_attention_heads;
  const gptOss = c.model_type === 'gpt_oss';
  const queries = c.num_attention_heads * headDim;
  const keys = c.num_key_value_heads * headDim;
  let attention = c.hidden_size * (2 * queries + 2 * keys);
  if (c.model_type.startsWith('qwen3')) attention += 2 * headDim;
  if (gptOss) attention += queries + 2 * keys + c.hidden_size + c.num_attention_heads;
  const experts = c.num_experts ?? c.num_local_experts;
  const width = c.moe_intermediate_size ?? c.intermediate_size;
  const feedForward = 3 * c.hidden_size * width + (gptOss ? 2 * width + c.hidden_size : 0);
  const router = experts === undefined ? 0 : experts * c.hidden_size + (gptOss ? experts : 0);
  const norms = 2 * c.hidden_size;
  const embeddings = c.vocab_size * c.hidden_size * (c.tie_word_embeddings ? 1 : 2);
  const total = (used: number) =>
    c.num_hidden_layers * (attention + norms + router + used * feedForward) + c.hidden_size + embeddings;
  return { all: total(experts ?? 1), active: total(experts === undefined ? 1 : (c.num_experts_per_tok ?? 1)) };
}

const configs: Readonly<Record<string, string>> = {
  'smollm2-135m-instruct': 'SmolLM2-135M-Instruct',
  'qwen3-0.6b': 'Qwen3-0.6B',
  'qwen3-1.7b': 'Qwen3-1.7B',
  'qwen3-4b': 'Qwen3-4B',
  'qwen3-8b': 'Qwen3-8B',
  'qwen3-14b': 'Qwen3-14B',
  'qwen3-32b': 'Qwen3-32B',
  'qwen3-30b-a3b': 'Qwen3-30B-A3B',
  'qwen3-coder-30b-a3b': 'Qwen3-Coder-30B-A3B-Instruct',
  'gpt-oss-20b': 'gpt-oss-20b',
  'gpt-oss-120b': 'gpt-oss-120b',
};
const configPath = (folder: string) => `models/${folder}/config.json`;

describeShared('the catalogue agrees with the published config.json', Object.values(configs).map(configPath), () => {
  it.each(Object.entries(configs))('of %s', (id, folder) => {
    const published = config.parse(JSON.parse(readFileSync(sharedFile(configPath(folder)), 'utf8')));
    const model = entry(id);
    const { all, active } = countParameters(published);
    expect([model.parameters, model.activeParameters]).toEqual([all, active]);
    expect(model.contextTokens).toBe(published.max_position_embeddings);
    const headDim = published.head_dim ?? published.hidden_size / published.num_attention_heads;
    const growing = published.layer_types?.filter((type) => type === 'full_attention').length;
    const layers = growing ?? published.num_hidden_layers;
    expect(model.cacheBytesPerToken).toBe(2 * 2 * published.num_key_value_heads * headDim * layers);
  });
});

describe('parameter counts of files', () => {
  // `n_params` that llama-server states of the file.
  it.each([
    ['qwen3.5-4b', 4_205_751_296],
    ['qwen3.5-9b', 8_953_803_264],
    ['qwen3.6-35b-a3b', 34_660_610_688],
    ['qwen3-next-80b-a3b', 79_674_391_296],
  ])('are those of the entry %s', (id, parameters) => {
    expect(entry(id).parameters).toBe(parameters);
  });
});

describe('parameter counts of model cards', () => {
  // https://huggingface.co/Qwen/Qwen2.5-Coder-*-Instruct, https://arxiv.org/abs/2412.19437
  it.each([
    ['qwen2.5-coder-0.5b-instruct', 0.49],
    ['qwen2.5-coder-1.5b-instruct', 1.54],
    ['qwen2.5-coder-3b-instruct', 3.09],
    ['qwen2.5-coder-7b-instruct', 7.61],
    ['qwen2.5-coder-14b-instruct', 14.7],
    ['qwen2.5-coder-32b-instruct', 32.5],
    ['deepseek-v3.1', 671],
  ])('match the entry %s', (id, billions) => {
    expect(Math.abs(entry(id).parameters / 1e9 / billions - 1)).toBeLessThan(0.01);
  });
});
