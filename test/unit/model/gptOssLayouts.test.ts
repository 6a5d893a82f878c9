/** The three layouts that GPT-OSS is published in hold the same bits, so the golden checkpoint is rewritten to each. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dequantise } from '../../../engine/formats/dequantise.ts';
import { gptOss } from '../../../engine/model/families/gptOss.ts';
import type { Model } from '../../../engine/model/open.ts';
import { openModel } from '../../../engine/model/open.ts';
import { type ListedWeight, listWeights } from '../../../engine/model/weights/specTensors.ts';
import type { DecoderWeights } from '../../../engine/model/weights/weights.ts';
import { readValues, rowsOf } from '../../../engine/model/weights/weightViews.ts';
import { fixtureFile } from '../shared.ts';
import { contentsOf, floats, MemoryFile, type MemoryTensor, sameBytes } from './memoryFile.ts';

let published: Model;
let tensors: Map<string, MemoryTensor>;

beforeAll(async () => {
  published = await openModel(fixtureFile('goldens/gpt-oss'));
  tensors = await contentsOf(published.file);
});
afterAll(() => published.file.close());

async function expectSameWeights(
  actual: DecoderWeights,
  same: (a: ListedWeight['weight'], b: ListedWeight['weight']) => Promise<void>,
): Promise<void> {
  const expected = listWeights(published.weights);
  const listed = listWeights(actual);
  expect(listed.map(({ weight }) => weight.shape)).toEqual(expected.map(({ weight }) => weight.shape));
  for (const [i, { weight }] of listed.entries()) {
    const other = expected[i]?.weight;
    if (other) await same(weight, other);
  }
}

const expectSameBytes = async (a: ListedWeight['weight'], b: ListedWeight['weight']) => {
  const rows = rowsOf(a.shape);
  expect(a.type).toBe(b.type);
  expect(sameBytes(await a.readRows(0, rows), await b.readRows(0, rows)), a.name).toBe(true);
};

const expectSameValues = async (a: ListedWeight['weight'], b: ListedWeight['weight']) => {
  const rows = rowsOf(a.shape);
  expect(sameBytes(await readValues(a, 0, rows), await readValues(b, 0, rows)), a.name).toBe(true);
};

describe('GPT-OSS weights', () => {
  it('in a GGUF are those of the safetensors, MXFP4 bit for bit', async () => {
    const gguf = await openModel(fixtureFile('goldens/gguf/gpt-oss-bf16.gguf'));
    await expectSameWeights(gguf.weights, async (a, b) =>
      a.type === b.type ? expectSameBytes(a, b) : expectSameValues(a, b),
    );
    const types = listWeights(gguf.weights).filter(({ role }) => role === 'routed-experts');
    expect(types.filter(({ weight }) => weight.type === 'MXFP4')).toHaveLength(3 * published.spec.layers.length);
    await gguf.file.close();
  });

  it("in OpenAI's own layout are those of the safetensors", async () => {
    const original = new MemoryFile(toOriginal(tensors));
    const config = { rope_ntk_alpha: 1 };
    await expectSameWeights(gptOss.weightsFromHuggingFace(published.spec, original, config), expectSameBytes);
  });

  it('as transformers saves them dequantised, [experts, in, out], are the same values', async () => {
    const plain = new MemoryFile(toDequantised(tensors));
    await expectSameWeights(gptOss.weightsFromHuggingFace(published.spec, plain, {}), expectSameValues);
  });

  it('without a tensor are refused by its name', () => {
    const incomplete = new Map(tensors);
    incomplete.delete('model.layers.2.self_attn.sinks');
    const build = () => gptOss.weightsFromHuggingFace(published.spec, new MemoryFile(incomplete), {});
    expect(build).toThrow(/model\.layers\.2\.self_attn\.sinks/);
  });
});

/** Names as in the table of openai/gpt-oss gpt_oss/torch/weights.py and model.py. */
function toOriginal(huggingFace: ReadonlyMap<string, MemoryTensor>): Map<string, MemoryTensor> {
  const names: readonly (readonly [RegExp, string])[] = [
    [/^model\.embed_tokens\.weight$/, 'embedding.weight'],
    [/^model\.norm\.weight$/, 'norm.scale'],
    [/^lm_head\.weight$/, 'unembedding.weight'],
    [/^model\.layers\.(\d+)\.input_layernorm\.weight$/, 'block.$1.attn.norm.scale'],
    [/^model\.layers\.(\d+)\.self_attn\.o_proj\.(\w+)$/, 'block.$1.attn.out.$2'],
    [/^model\.layers\.(\d+)\.self_attn\.sinks$/, 'block.$1.attn.sinks'],
    [/^model\.layers\.(\d+)\.post_attention_layernorm\.weight$/, 'block.$1.mlp.norm.scale'],
    [/^model\.layers\.(\d+)\.mlp\.router\.(\w+)$/, 'block.$1.mlp.gate.$2'],
    [/^model\.layers\.(\d+)\.mlp\.experts\.gate_up_proj_(blocks|scales)$/, 'block.$1.mlp.mlp1_weight.$2'],
    [/^model\.layers\.(\d+)\.mlp\.experts\.gate_up_proj_bias$/, 'block.$1.mlp.mlp1_bias'],
    [/^model\.layers\.(\d+)\.mlp\.experts\.down_proj_(blocks|scales)$/, 'block.$1.mlp.mlp2_weight.$2'],
    [/^model\.layers\.(\d+)\.mlp\.experts\.down_proj_bias$/, 'block.$1.mlp.mlp2_bias'],
  ];
  const original = new Map<string, MemoryTensor>();
  for (const [name, tensor] of huggingFace) {
    const rule = names.find(([pattern]) => pattern.test(name));
    if (rule) original.set(name.replace(...rule), tensor);
    const query = /^model\.layers\.(\d+)\.self_attn\.q_proj\.(\w+)$/.exec(name);
    if (!query) continue;
    const parts = ['q', 'k', 'v'].map((letter) => huggingFace.get(name.replace('q_proj', `${letter}_proj`)) ?? tensor);
    const rows = parts.reduce((sum, { shape }) => sum + (shape[0] ?? 0), 0);
    original.set(`block.${query[1]}.attn.qkv.${query[2]}`, {
      type: tensor.type,
      shape: [rows, ...tensor.shape.slice(1)],
      bytes: Buffer.concat(parts.map(({ bytes }) => bytes)),
    });
  }
  return original;
}

/** MXFP4 matrices `[experts, out, in]` as floats `[experts, in, out]`, without the suffix. */
function toDequantised(huggingFace: ReadonlyMap<string, MemoryTensor>): Map<string, MemoryTensor> {
  const plain = new Map<string, MemoryTensor>();
  for (const [name, tensor] of huggingFace) {
    if (name.endsWith('_scales')) continue;
    if (!name.endsWith('_blocks')) {
      plain.set(name, tensor);
      continue;
    }
    const stem = name.slice(0, -'_blocks'.length);
    const [experts = 1, outputs = 1, blocks = 1] = tensor.shape;
    const inputs = 32 * blocks;
    const values = valuesOf(tensor.bytes, huggingFace.get(`${stem}_scales`)?.bytes ?? new Uint8Array());
    const transposed = new Float32Array(values.length);
    for (let e = 0; e < experts; e++) {
      for (let o = 0; o < outputs; o++) {
        for (let i = 0; i < inputs; i++) {
          transposed[(e * inputs + i) * outputs + o] = values[(e * outputs + o) * inputs + i] ?? 0;
        }
      }
    }
    plain.set(stem, floats([experts, inputs, outputs], transposed));
  }
  return plain;
}

/** Byte j of a block is elements 2j (low nibble) and 2j + 1; value = e2m1 · 2^(scale − 127) (openai/gpt-oss weights.py). */
function valuesOf(blocks: Uint8Array, scales: Uint8Array): Float32Array {
  const e2m1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6];
  const exponents = dequantise('F8_E8M0', scales);
  return Float32Array.from({ length: 2 * blocks.length }, (_, i) => {
    const byte = blocks[i >> 1] ?? 0;
    return (e2m1[i % 2 ? byte >> 4 : byte & 15] ?? 0) * (exponents[i >> 5] ?? 0);
  });
}
