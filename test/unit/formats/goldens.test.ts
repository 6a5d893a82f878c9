import { expect, it } from 'vitest';
import { dequantise } from '../../../engine/formats/dequantise.ts';
import { openGguf } from '../../../engine/formats/gguf.ts';
import {
  metadataNumber,
  metadataString,
  metadataStringArray,
  metadataStrings,
} from '../../../engine/formats/ggufMetadata.ts';
import { openSafetensors } from '../../../engine/formats/safetensors.ts';
import type { TensorFile } from '../../../engine/formats/tensor.ts';
import { describeShared, sharedFile } from '../shared.ts';

/** Golden checkpoint, and the GGUF that holds the same weights. */
const families = [
  ['llama', 'llama-bf16'],
  ['qwen2', 'qwen2-bf16'],
  ['qwen3', 'qwen3-bf16'],
  ['qwen3-yarn', 'qwen3-yarn-bf16'],
  ['qwen3-moe', 'qwen3-moe-bf16'],
  ['gpt-oss', 'gpt-oss-bf16'],
  ['deepseek-v3', 'deepseek-v3-bf16'],
  ['deepseek-v3-fp8', 'deepseek-v3-fp8-f32'],
] as const;

/** GGUF name and published name of tensors that conversion leaves as they are, in any family that has them. */
const sameTensors = [
  ['token_embd.weight', 'model.embed_tokens.weight'],
  ['output.weight', 'lm_head.weight'],
  ['output_norm.weight', 'model.norm.weight'],
  ['blk.0.attn_norm.weight', 'model.layers.0.input_layernorm.weight'],
  ['blk.0.attn_output.weight', 'model.layers.0.self_attn.o_proj.weight'],
  ['blk.0.ffn_down.weight', 'model.layers.0.mlp.down_proj.weight'],
  ['blk.0.attn_sinks.weight', 'model.layers.0.self_attn.sinks'],
] as const;

async function values(file: TensorFile, name: string): Promise<Float32Array> {
  return dequantise(file.tensors.get(name)?.type ?? 'F32', await file.read(name));
}

const bytesOf = (floats: Float32Array): Uint8Array => new Uint8Array(floats.buffer);

describeShared('the golden checkpoints', ['goldens/README.md'], () => {
  it.each(families)('%s: every tensor of both files is read and dequantised whole', async (family, gguf) => {
    const files = [
      await openSafetensors(sharedFile(`goldens/${family}`)),
      await openSafetensors(sharedFile(`goldens/${family}/golden.safetensors`)),
      await openGguf(sharedFile(`goldens/gguf/${gguf}.gguf`)),
    ];
    for (const file of files) {
      for (const { name, shape } of file.tensors.values()) {
        const elements = shape.reduce((product, dimension) => product * dimension, 1);
        expect((await values(file, name)).length, name).toBe(elements);
      }
      await file.close();
    }
  });

  it.each(families)('%s: safetensors and GGUF hold the same values', async (family, gguf) => {
    const published = await openSafetensors(sharedFile(`goldens/${family}`));
    const converted = await openGguf(sharedFile(`goldens/gguf/${gguf}.gguf`));
    let compared = 0;
    for (const [ggufName, name] of sameTensors) {
      const original = published.tensors.get(name);
      const copy = converted.tensors.get(ggufName);
      // FP8 weights mean nothing without their block scales, which are the model's business.
      if (original === undefined || copy === undefined || original.type === 'F8_E4M3') continue;
      expect(copy.shape, name).toEqual(original.shape);
      const [fromGguf, fromPublished] = [await values(converted, ggufName), await values(published, name)];
      expect(Buffer.compare(bytesOf(fromGguf), bytesOf(fromPublished)), name).toBe(0);
      compared++;
    }
    expect(compared).toBeGreaterThanOrEqual(4);
    await published.close();
    await converted.close();
  });
});

const stories = 'models/stories260K/stories260K-f32.gguf';
describeShared('stories260K', [stories], () => {
  it('gives its vocabulary, sizes and tensors', async () => {
    const file = await openGguf(sharedFile(stories));
    // Sizes as in the training command in llama2.c's doc/stories260K.md.
    expect(metadataString(file, 'general.architecture')).toBe('llama');
    expect(metadataNumber(file, 'llama.embedding_length')).toBe(64);
    const tokens = metadataStringArray(file, 'tokenizer.ggml.tokens');
    expect([tokens.length, tokens[0], tokens[1], tokens[2]]).toEqual([512, '<unk>', '<s>', '</s>']);
    expect(metadataStrings(file, 'tokenizer.ggml.tokens').at(511)).toBe(tokens[511]);
    expect(file.tensors.get('token_embd.weight')).toMatchObject({ type: 'F32', shape: [512, 64] });
    await file.close();
  });
});
