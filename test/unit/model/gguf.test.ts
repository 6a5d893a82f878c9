import { describe, expect, it } from 'vitest';
import { type GgufFile, openGguf } from '../../../engine/formats/gguf.ts';
import type { GgufValue } from '../../../engine/formats/ggufMetadata.ts';
import { ggufKeys } from '../../../engine/formats/ggufMetadata.ts';
import { deepseekV3 } from '../../../engine/model/families/deepseekV3.ts';
import type { FamilyBuilder } from '../../../engine/model/families/family.ts';
import { glm4MoeLite } from '../../../engine/model/families/glm4MoeLite.ts';
import { gptOss } from '../../../engine/model/families/gptOss.ts';
import { llama } from '../../../engine/model/families/llama.ts';
import { qwen3 } from '../../../engine/model/families/qwen3.ts';
import { openModel } from '../../../engine/model/open.ts';
import type { DecoderSpec } from '../../../engine/model/spec/spec.ts';
import { listWeights } from '../../../engine/model/weights/specTensors.ts';
import { readValues, rowsOf } from '../../../engine/model/weights/weightViews.ts';
import { fixtureFile, withRope } from '../shared.ts';
import { contentsOf, floats, MemoryFile, type MemoryTensor, sameBytes } from './memoryFile.ts';

const goldenGguf = (name: string) => openGguf(fixtureFile(`goldens/gguf/${name}-bf16.gguf`));

/** The GGUF with some metadata changed; undefined removes a key. */
function withMetadata(file: GgufFile, changes: Record<string, GgufValue | undefined>): GgufFile {
  const metadata = new Map(file.metadata);
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) metadata.delete(key);
    else metadata.set(key, value);
  }
  return { version: 3, metadata, tensors: file.tensors, read: file.read.bind(file), close: () => file.close() };
}

async function withTensors(file: GgufFile, change: (tensors: Map<string, MemoryTensor>) => void): Promise<GgufFile> {
  const tensors = await contentsOf(file);
  change(tensors);
  return Object.assign(new MemoryFile(tensors), { version: 3 as const, metadata: file.metadata });
}

const specOf = (family: FamilyBuilder, file: GgufFile) => family.specFromGguf(ggufKeys(file.metadata), file);

/** GGUF keeps floats in 32 bits. */
function rounded(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value), (_, each) =>
    typeof each === 'number' ? Number(each.toPrecision(6)) : each,
  );
}

describe('a GGUF says the same as the configuration it was made from', () => {
  it.each([
    'qwen2',
    'qwen3',
    'qwen3-yarn',
    'qwen3-moe',
    'gpt-oss',
    'deepseek-v3',
    'phi3-longrope',
    'starcoder2',
    'glm4-moe-lite',
    'minimax-m2',
  ])('%s', async (name) => {
    const fromGguf = await openModel(fixtureFile(`goldens/gguf/${name}-bf16.gguf`));
    const fromConfig = await openModel(fixtureFile(`goldens/${name}`));
    expect(rounded(fromGguf.spec)).toEqual(rounded(fromConfig.spec));
    await Promise.all([fromGguf.file.close(), fromConfig.file.close()]);
  });

  it.each(['llama', 'mistral3'])('%s, whose rows are permuted for interleaved pairs', async (name) => {
    const fromGguf = await openModel(fixtureFile(`goldens/gguf/${name}-bf16.gguf`));
    const fromConfig = await openModel(fixtureFile(`goldens/${name}`));
    const interleaved: DecoderSpec = {
      ...fromConfig.spec,
      layers: fromConfig.spec.layers.map((layer) => ({
        ...layer,
        attention: withRope(layer.attention, { layout: 'interleaved' }),
      })),
    };
    expect(rounded(fromGguf.spec)).toEqual(rounded(interleaved));
    await Promise.all([fromGguf.file.close(), fromConfig.file.close()]);
  });
});

describe('keys', () => {
  it('that are missing or of another type are named', async () => {
    const file = await goldenGguf('qwen3');
    const refuses = (changes: Record<string, GgufValue | undefined>, key: string) =>
      expect(specOf(qwen3, withMetadata(file, changes))).rejects.toMatchObject({
        code: 'invalid-input',
        message: expect.stringContaining(key),
      });
    await refuses({ 'qwen3.block_count': undefined }, 'qwen3.block_count');
    await refuses({ 'qwen3.block_count': 'four' }, 'qwen3.block_count');
    await refuses({ 'qwen3.block_count': 1e9 }, 'qwen3.block_count');
    await refuses({ 'qwen3.attention.head_count_kv': new Uint32Array([2, 2]) }, 'qwen3.attention.head_count_kv');
    await refuses({ 'qwen3.attention.layer_norm_rms_epsilon': Number.NaN }, 'layer_norm_rms_epsilon');
    expect(() => ggufKeys(new Map())).toThrow(/general.architecture/);
    await file.close();
  });

  it.each([
    ['qwen3.rope.freq_base', 0],
    ['qwen3.rope.freq_base', -10_000],
    ['qwen3.rope.scaling.factor', 0],
    ['qwen3.rope.scaling.original_context_length', -1],
    ['qwen3.rope.scaling.yarn_beta_fast', -32],
    ['qwen3.attention.layer_norm_rms_epsilon', 0],
    ['qwen3.attention.layer_norm_rms_epsilon', -1e-6],
  ])('that would yield NaN are named: %s = %d', async (key, value) => {
    const file = await goldenGguf('qwen3-yarn');
    await expect(specOf(qwen3, withMetadata(file, { [key]: value }))).rejects.toMatchObject({
      code: 'invalid-input',
      message: expect.stringMatching(new RegExp(`^GGUF key ${key} must be one (positive|whole) number[^\n]*$`)),
    });
    await file.close();
  });

  it.each([
    ['a factor beyond the range of numbers', { 'qwen3.rope.scaling.factor': 1e-320 }],
    ['an epsilon above every mean square', { 'qwen3.attention.layer_norm_rms_epsilon': 2 }],
  ])('that are positive but yield NaN are refused in one line: %s', async (_, changes) => {
    const file = await goldenGguf('qwen3-yarn');
    await expect(specOf(qwen3, withMetadata(file, changes))).rejects.toMatchObject({
      code: 'invalid-input',
      message: expect.stringMatching(/^The configuration is inconsistent: [^\n]*$/),
    });
    await file.close();
  });

  it('that ask for what Hearth does not compute are named', async () => {
    const file = await goldenGguf('qwen3-yarn');
    const refuses = (changes: Record<string, GgufValue | undefined>, key: string) =>
      expect(specOf(qwen3, withMetadata(file, changes))).rejects.toMatchObject({
        code: 'unsupported',
        message: expect.stringContaining(key),
      });
    await refuses({ 'qwen3.rope.scaling.type': 'longrope' }, 'qwen3.rope.scaling.type');
    await refuses({ 'qwen3.rope.scaling.attn_factor': 1.5 }, 'qwen3.rope.scaling.attn_factor');
    await refuses({ 'qwen3.attention.value_length': 64 }, 'qwen3.attention.value_length');
    await file.close();
  });

  it('of linear scaling are read also in files that do not name it', async () => {
    const file = await goldenGguf('qwen3');
    const spec = await specOf(qwen3, withMetadata(file, { 'qwen3.rope.scaling.factor': 4 }));
    expect(spec.layers[0]?.attention.rope).toMatchObject({ linearFactor: 4 });
    await file.close();
  });
});

it('rope_freqs.weight divides the frequencies (Llama 3.1)', async () => {
  const file = await goldenGguf('llama');
  const scaled = await withTensors(file, (tensors) =>
    tensors.set('rope_freqs.weight', floats([8], [1, 1, 1, 1, 2, 4, 8, 8])),
  );
  const spec = await specOf(llama, scaled);
  expect(spec.layers[0]?.attention.rope?.frequencyFactors).toEqual([1, 1, 1, 1, 2, 4, 8, 8]);
  const wrong = await withTensors(file, (tensors) => tensors.set('rope_freqs.weight', floats([2], [1, 1])));
  await expect(specOf(llama, wrong)).rejects.toThrow(/rope_freqs.weight is \[2\]/);
  await file.close();
});

it('a GPT-OSS file older than yarn_truncate does not round the correction range', async () => {
  const file = await goldenGguf('gpt-oss');
  const spec = await specOf(gptOss, withMetadata(file, { 'gpt-oss.rope.scaling.yarn_truncate': undefined }));
  expect(spec.layers[0]?.attention.rope?.yarn?.truncate).toBe(false);
  await file.close();
});

describe('DeepSeek', () => {
  it('reads 0.1 · mscale_all_dim from yarn_log_multiplier, and leaves cos and sin alone', async () => {
    const file = await goldenGguf('deepseek-v3');
    const { attention } = (await specOf(deepseekV3, file)).layers[0] ?? {};
    const headDim = 32 + 16;
    expect(attention?.softmaxScale).toBeCloseTo(headDim ** -0.5 * (0.1 * Math.log(40) + 1) ** 2, 7);
    expect(attention?.rope?.yarn?.attentionFactor).toBe(1);
    await file.close();
  });

  it('takes 4 of 8 groups in files of 256 experts that are older than the group keys', async () => {
    const file = await goldenGguf('deepseek-v3');
    const router = async (experts: number) => {
      const spec = await specOf(
        deepseekV3,
        withMetadata(file, {
          'deepseek2.expert_group_count': undefined,
          'deepseek2.expert_group_used_count': undefined,
          'deepseek2.expert_count': experts,
        }),
      );
      const feedForward = spec.layers.at(-1)?.feedForward;
      return feedForward?.kind === 'experts' ? feedForward.router : undefined;
    };
    expect(await router(256)).toMatchObject({ groups: 8, groupsUsed: 4 });
    expect(await router(16)).toMatchObject({ groups: 1, groupsUsed: 1 });
    await file.close();
  });

  it('refuses the softmax router of DeepSeek-V2', async () => {
    const file = await goldenGguf('deepseek-v3');
    const older = withMetadata(file, { 'deepseek2.expert_gating_func': undefined });
    await expect(specOf(deepseekV3, older)).rejects.toMatchObject({ code: 'unsupported' });
    await file.close();
  });

  it('is GLM-4.7-Flash where the tokenizer is GLM-4’s, with sigmoid scores if the file names none', async () => {
    const file = await goldenGguf('glm4-moe-lite');
    const older = withMetadata(file, { 'deepseek2.expert_gating_func': undefined });
    expect(await specOf(glm4MoeLite, older)).toEqual(await specOf(glm4MoeLite, file));
    await file.close();
    const glm = await openModel(fixtureFile('goldens/gguf/glm4-moe-lite-bf16.gguf'));
    expect(glm.sampling).toEqual({ temperature: 1, topP: 0.95 });
    const deepseek = await openModel(fixtureFile('goldens/gguf/deepseek-v3-bf16.gguf'));
    expect([glm.spec.family, deepseek.spec.family]).toEqual(['glm4-moe-lite', 'deepseek-v3']);
    await Promise.all([glm.file.close(), deepseek.file.close()]);
  });

  it('does not count multi-token prediction layers', async () => {
    const file = await goldenGguf('deepseek-v3');
    const withPrediction = withMetadata(file, { 'deepseek2.nextn_predict_layers': 1 });
    expect((await specOf(deepseekV3, withPrediction)).layers).toHaveLength(2);
    await file.close();
  });

  it('finds keys and values in the older joint attn_kv_b', async () => {
    const published = await openModel(fixtureFile('goldens/deepseek-v3'));
    const joint = await contentsOf(published.file);
    const file = await goldenGguf('deepseek-v3');
    const older = await withTensors(file, (tensors) => {
      for (const layer of [0, 1, 2]) {
        tensors.delete(`blk.${layer}.attn_k_b.weight`);
        tensors.delete(`blk.${layer}.attn_v_b.weight`);
        const kvB = joint.get(`model.layers.${layer}.self_attn.kv_b_proj.weight`);
        if (kvB) tensors.set(`blk.${layer}.attn_kv_b.weight`, kvB);
      }
    });
    const oldWidths = withMetadata(Object.assign(older, { metadata: file.metadata }), {
      'deepseek2.attention.key_length': 48,
      'deepseek2.attention.value_length': 32,
      'deepseek2.attention.key_length_mla': undefined,
      'deepseek2.attention.value_length_mla': undefined,
    });
    const spec = await specOf(deepseekV3, oldWidths);
    expect(spec).toEqual(await specOf(deepseekV3, file));
    const weights = deepseekV3.weightsFromGguf(spec, oldWidths);
    for (const [layer, { attention }] of weights.layers.entries()) {
      const expected = published.weights.layers[layer]?.attention;
      if (attention.kind !== 'latent' || expected?.kind !== 'latent') throw new Error('not latent');
      expect(attention.keyUp.transposed).toBe(false);
      const rows = 4 * 32;
      const keyUp = await attention.keyUp.weight.readRows(0, rows);
      expect(sameBytes(keyUp, await expected.keyUp.weight.readRows(0, rows))).toBe(true);
      expect(sameBytes(await attention.valueUp.readRows(0, rows), await expected.valueUp.readRows(0, rows))).toBe(true);
    }
    await Promise.all([published.file.close(), file.close()]);
  });
});

it('experts with gate and up in one tensor are the same experts', async () => {
  const file = await goldenGguf('gpt-oss');
  const spec = await specOf(gptOss, file);
  const { layers } = spec;
  const fused = await withTensors(file, (tensors) => {
    for (const layer of layers.keys()) {
      for (const suffix of ['weight', 'bias']) {
        const gate = tensors.get(`blk.${layer}.ffn_gate_exps.${suffix}`);
        const up = tensors.get(`blk.${layer}.ffn_up_exps.${suffix}`);
        if (!gate || !up) throw new Error('no experts');
        tensors.delete(`blk.${layer}.ffn_gate_exps.${suffix}`);
        tensors.delete(`blk.${layer}.ffn_up_exps.${suffix}`);
        tensors.set(`blk.${layer}.ffn_gate_up_exps.${suffix}`, gateThenUp(gate, up));
      }
    }
  });
  const expected = listWeights(gptOss.weightsFromGguf(spec, file));
  const actual = listWeights(gptOss.weightsFromGguf(spec, fused));
  expect(actual).toHaveLength(expected.length);
  for (const [i, { role, weight }] of actual.entries()) {
    if (role !== 'routed-experts') continue;
    const rows = rowsOf(weight.shape);
    const other = expected[i]?.weight ?? weight;
    expect(other).not.toBe(weight);
    expect(sameBytes(await weight.readRows(0, rows), await other.readRows(0, rows)), weight.name).toBe(true);
    expect(sameBytes(await readValues(weight, 1, rows - 2), await readValues(other, 1, rows - 2))).toBe(true);
  }
  await file.close();
});

/** Expert by expert the rows of gate, then those of up. */
function gateThenUp(gate: MemoryTensor, up: MemoryTensor): MemoryTensor {
  const [experts = 1, rows = 1, ...rest] = gate.shape;
  const size = gate.bytes.length / experts;
  const bytes = new Uint8Array(2 * gate.bytes.length);
  for (let expert = 0; expert < experts; expert++) {
    bytes.set(gate.bytes.subarray(expert * size, (expert + 1) * size), 2 * expert * size);
    bytes.set(up.bytes.subarray(expert * size, (expert + 1) * size), (2 * expert + 1) * size);
  }
  return { type: gate.type, shape: [experts, 2 * rows, ...rest], bytes };
}
