/** Files and folders that people try and Hearth can't run, written as their makers write them. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ascii, concat, stringKey, text, u32, u64 } from '../formats/builders.ts';

export interface UnusableModel {
  readonly kind: string;
  /** Writes it into an empty folder. @returns the path that a user names. */
  readonly write: (folder: string) => Promise<string>;
  /** Words of the message: what the file is, and what to do. */
  readonly cause: RegExp;
  readonly wayOut: RegExp;
}

const file =
  (name: string, content: string | Uint8Array) =>
  async (folder: string): Promise<string> => {
    await writeFile(join(folder, name), content);
    return join(folder, name);
  };

const folderOf =
  (name: string, files: Readonly<Record<string, string | Uint8Array>>) =>
  async (folder: string): Promise<string> => {
    await mkdir(join(folder, name));
    for (const [fileName, content] of Object.entries(files)) await writeFile(join(folder, name, fileName), content);
    return join(folder, name);
  };

/** https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md#the-pointer */
const lfsPointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'4d'.repeat(32)}\nsize 4683073536\n`;
const webPage = '<!doctype html>\n<html><head><title>Hugging Face</title></head><body>Sign in</body></html>\n';

const config = (more: object) =>
  JSON.stringify({
    model_type: 'qwen2',
    hidden_size: 64,
    intermediate_size: 128,
    num_hidden_layers: 1,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    rms_norm_eps: 1e-6,
    vocab_size: 512,
    max_position_embeddings: 1024,
    hidden_act: 'silu',
    ...more,
  });

/** An empty safetensors file: the configuration is refused first. */
const noWeights = concat(u64(2), ascii('{}'));
const quantised = (name: string, more: object) =>
  folderOf(name, { 'config.json': config(more), 'model.safetensors': noWeights });

const golden = (name: string): Promise<Buffer> => readFile(join(import.meta.dirname, '../../fixtures/goldens', name));
const gguf = (keys: readonly Uint8Array[]) => concat(ascii('GGUF'), u32(3), u64(0), u64(keys.length), ...keys);

const takesGguf = /GGUF of the same model.*hearth models pull OWNER\/REPOSITORY/;
const downloadsAgain = /[Dd]ownload (or copy )?it again/;

export const unusableModels: readonly UnusableModel[] = [
  {
    kind: 'Git LFS pointer in place of a GGUF',
    write: file('model.gguf', lfsPointer),
    cause: /Git LFS pointer/,
    wayOut: /git lfs pull/,
  },
  {
    kind: 'Folder cloned without Git LFS',
    write: folderOf('Qwen2.5-0.5B', { 'config.json': config({}), 'model.safetensors': lfsPointer }),
    cause: /model\.safetensors is a Git LFS pointer/,
    wayOut: /git lfs pull/,
  },
  {
    kind: 'Web page in place of a GGUF',
    write: file('model.gguf', webPage),
    cause: /web page/,
    wayOut: downloadsAgain,
  },
  {
    kind: 'Web page in place of config.json',
    write: folderOf('Qwen2.5-0.5B', { 'config.json': webPage }),
    cause: /config\.json is a web page/,
    wayOut: downloadsAgain,
  },
  { kind: 'Empty file', write: file('model.gguf', ''), cause: /is empty/, wayOut: downloadsAgain },
  {
    kind: 'Truncated GGUF: the end is missing',
    write: async (folder) => file('model.gguf', (await golden('gguf/qwen2-bf16.gguf')).subarray(0, -5000))(folder),
    cause: / is incomplete/,
    wayOut: downloadsAgain,
  },
  {
    kind: 'Truncated GGUF: the header is cut',
    write: async (folder) => file('model.gguf', (await golden('gguf/qwen2-bf16.gguf')).subarray(0, 900))(folder),
    cause: / is incomplete/,
    wayOut: downloadsAgain,
  },
  {
    kind: 'Split GGUF with a part missing',
    write: async (folder) => file('tiny-00001-of-00003.gguf', await golden('gguf/qwen2-bf16.gguf'))(folder),
    cause: /2 of 3 files of the model are missing, the first is tiny-00002-of-00003\.gguf/,
    wayOut: downloadsAgain,
  },
  {
    kind: 'Truncated safetensors',
    write: async (folder) =>
      folderOf('qwen2', {
        'config.json': await golden('qwen2/config.json'),
        'model.safetensors': (await golden('qwen2/model.safetensors')).subarray(0, -5000),
      })(folder),
    cause: / is incomplete/,
    wayOut: downloadsAgain,
  },
  {
    kind: 'Shard missing',
    write: folderOf('Qwen2.5-7B', {
      'config.json': config({}),
      'model-00001-of-00002.safetensors': noWeights,
      'model.safetensors.index.json': JSON.stringify({
        weight_map: { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' },
      }),
    }),
    cause: /1 of 2 files of the model are missing, the first is model-00002-of-00002\.safetensors/,
    wayOut: downloadsAgain,
  },
  {
    kind: 'MLX',
    write: quantised('Qwen2.5-Coder-7B-Instruct-4bit', { quantization: { group_size: 64, bits: 4 } }),
    cause: /are MLX/,
    wayOut: /"Qwen2\.5-Coder-7B-Instruct GGUF".*hearth models pull/,
  },
  {
    kind: 'AWQ',
    write: quantised('Qwen2.5-Coder-7B-Instruct-AWQ', {
      quantization_config: { quant_method: 'awq', bits: 4, group_size: 128, version: 'gemm', zero_point: true },
    }),
    cause: /are AWQ/,
    wayOut: /"Qwen2\.5-Coder-7B-Instruct GGUF".*hearth models pull/,
  },
  {
    kind: 'GPTQ',
    write: quantised('Qwen2.5-Coder-7B-Instruct-GPTQ-Int4', {
      quantization_config: { quant_method: 'gptq', bits: 4, group_size: 128, sym: true },
    }),
    cause: /are GPTQ/,
    wayOut: /"Qwen2\.5-Coder-7B-Instruct GGUF".*hearth models pull/,
  },
  {
    kind: 'FP8, one scale a tensor',
    write: quantised('Llama-3.1-8B-Instruct-FP8', {
      quantization_config: { quant_method: 'fp8', activation_scheme: 'static' },
    }),
    cause: /FP8 with one scale a tensor/,
    wayOut: /"Llama-3\.1-8B-Instruct GGUF".*hearth models pull/,
  },
  {
    kind: 'bitsandbytes',
    write: quantised('Qwen2.5-7B-bnb-4bit', {
      quantization_config: { quant_method: 'bitsandbytes', load_in_4bit: true },
    }),
    cause: /are bitsandbytes/,
    wayOut: takesGguf,
  },
  {
    kind: 'compressed-tensors',
    write: quantised('Llama-3.1-8B-FP8-dynamic', {
      quantization_config: { quant_method: 'compressed-tensors', format: 'float-quantized' },
    }),
    cause: /are compressed-tensors/,
    wayOut: takesGguf,
  },
  {
    kind: 'Folder of another architecture',
    write: folderOf('mamba-2.8b', { 'config.json': '{ "model_type": "mamba" }' }),
    cause: /architecture.*mamba is not one of/,
    wayOut: /hearth models list/,
  },
  {
    kind: 'GGUF of another architecture',
    write: file('mamba.gguf', gguf([stringKey('general.architecture', 'mamba')])),
    cause: /architecture.*mamba is not one of/,
    wayOut: /hearth models list/,
  },
  {
    kind: 'Image part of a model (mmproj)',
    write: file('mmproj-F16.gguf', gguf([stringKey('general.architecture', 'clip')])),
    cause: /image part/,
    wayOut: /Choose the GGUF beside it/,
  },
  {
    kind: 'GGUF with a quantisation that Hearth lacks',
    // One tensor of ggml's type 16, IQ2_XXS.
    write: file(
      'model-IQ2_XXS.gguf',
      concat(ascii('GGUF'), u32(3), u64(1), u64(0), text('output.weight'), u32(1), u64(256), u32(16), u64(0)),
    ),
    cause: /doesn't compute with IQ2_XXS/,
    wayOut: /such as Q4_K_M/,
  },
  {
    kind: 'File from before GGUF',
    write: file('model.bin', ascii('tjgg\x01\x00\x00\x00')),
    cause: /older than GGUF/,
    wayOut: /Take a GGUF/,
  },
  {
    kind: 'PyTorch file',
    write: async (folder) =>
      join(await folderOf('phi-1', { 'pytorch_model.bin': 'PK\x03\x04' })(folder), 'pytorch_model.bin'),
    cause: /PyTorch/,
    wayOut: takesGguf,
  },
  {
    kind: 'Folder of PyTorch files',
    write: folderOf('phi-1', { 'config.json': config({}), 'pytorch_model.bin': 'PK\x03\x04' }),
    cause: /PyTorch/,
    wayOut: takesGguf,
  },
  {
    kind: 'safetensors file without its folder',
    write: file('model.safetensors', noWeights),
    cause: /only weights/,
    wayOut: /Name its folder/,
  },
  { kind: 'Empty folder', write: folderOf('empty', {}), cause: /empty folder/, wayOut: /hearth models pull/ },
  {
    kind: 'Folder without config.json',
    write: folderOf('notes', { 'notes.txt': 'x' }),
    cause: /no config\.json/,
    wayOut: /hearth models pull/,
  },
  {
    kind: 'Folder without weights',
    write: folderOf('Qwen2.5-7B', { 'config.json': config({}) }),
    cause: /no weights/,
    wayOut: downloadsAgain,
  },
  {
    kind: 'Folder of GGUF files',
    write: folderOf('Qwen2.5-7B-GGUF', { 'qwen2.5-7b-q4_k_m.gguf': 'GGUF' }),
    cause: /folder of GGUF files/,
    wayOut: /Name the file: .*qwen2\.5-7b-q4_k_m\.gguf/,
  },
  {
    kind: 'LoRA adapter',
    write: folderOf('my-lora', { 'adapter_config.json': '{}', 'adapter_model.safetensors': noWeights }),
    cause: /LoRA adapter/,
    wayOut: /Merge it/,
  },
  {
    kind: 'Any other file',
    write: file('model.gguf', 'not a model'),
    cause: /not a GGUF file/,
    wayOut: /Hearth opens/,
  },
];
