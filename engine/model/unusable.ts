/**
 * Recognises files and folders without a model that Hearth can run, before a format reader fails at one of their
 * fields. Each error names the cause and what to do.
 */
import { open, readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { HearthError, invalidInput, notFound, places, unsupported } from '../errors.ts';
import { parseIndex } from '../formats/safetensors.ts';
import { withSource } from '../formats/tensor.ts';
import { limits } from '../limits.ts';

const indexName = 'model.safetensors.index.json';
const again = (): string => `Download it again: ${places().pullRepository} checks every file.`;

/** `Qwen2.5-Coder-7B-Instruct-AWQ` → `Qwen2.5-Coder-7B-Instruct`. */
const bareName = (path: string): string =>
  basename(path).replace(/[-_.](awq|gptq|mlx|fp8|bnb|exl[23]|int[48]|w\dafp?\d+|[2-8]bits?|nvfp4)\b.*$/i, '');

const takeGguf = (path: string): string =>
  `Take a GGUF of the same model: look for "${bareName(path)} GGUF" on https://huggingface.co/models and take it with ` +
  `${places().pullRepository}.`;

/** @throws HearthError if the first bytes of a file show that it is not a GGUF. */
export async function refuseUnusableFile(path: string): Promise<void> {
  const name = basename(path);
  const start = await beginningOf(path);
  const text = start.toString('latin1');
  if (start.length === 0) throw invalidInput(`${name} is empty. ${again()}`);
  refuseWrongDownload(name, text);
  if (text.startsWith('GGUF')) return requireParts(path);
  if (/^(ggml|lmgg|tjgg|fmgg|algg)/.test(text)) {
    throw unsupported(`${name} is in a format older than GGUF (2023). Take a GGUF of the model.`);
  }
  if (name.endsWith('.safetensors')) {
    throw invalidInput(`${name} has only weights. Name its folder, which has config.json too: ${dirname(path)}`);
  }
  // PyTorch's files are zip archives, and pickles before version 1.6.
  if (/\.(bin|pt|pth|ckpt)$/.test(name) || text.startsWith('\x80\x02')) throw unsupported(pickled(name, dirname(path)));
  if (name.endsWith('.onnx'))
    throw unsupported(`${name} is an ONNX graph, which Hearth doesn't run. ${takeGguf(dirname(path))}`);
  throw invalidInput(
    `${name} is not a GGUF file. Hearth opens GGUF files, and folders with config.json and safetensors.`,
  );
}

const pickled = (name: string, path: string): string =>
  `${name} is a PyTorch file, which can run code when it is opened, so Hearth doesn't. ${takeGguf(path)}`;

/** A file that git or a browser saved in place of the weights. */
function refuseWrongDownload(name: string, text: string): void {
  if (text.startsWith('version https://git-lfs.github.com/spec/')) {
    throw invalidInput(
      `${name} is a Git LFS pointer: the repository was cloned without its large files. ` +
        `Run \`git lfs pull\` in it, or download the model with ${places().pullRepository}.`,
    );
  }
  if (/^(\xef\xbb\xbf)?\s*<(!doctype html|html|\?xml)/i.test(text)) {
    throw invalidInput(
      `${name} is a web page, not a model: the page of the file, a sign-in or a proxy's answer was saved under its name. ${again()}`,
    );
  }
}

/** @throws HearthError if a part of a split GGUF is missing. */
async function requireParts(path: string): Promise<void> {
  const [, stem, count] = /^(.*)-\d{5}-of-(\d{5})\.gguf$/.exec(basename(path)) ?? [];
  if (stem === undefined || count === undefined) return;
  // No model has more parts; a longer list would only delay the message.
  const parts = Array.from({ length: Math.min(Number(count), limits.formats.shards) }, (_, index) => String(index + 1));
  requireAll(
    parts.map((part) => `${stem}-${part.padStart(5, '0')}-of-${count}.gguf`),
    new Set(await readdir(dirname(path))),
  );
}

function requireAll(wanted: readonly string[], present: ReadonlySet<string>): void {
  const missing = wanted.filter((name) => !present.has(name));
  const [first] = missing;
  if (first === undefined) return;
  throw notFound(
    `${missing.length} of ${wanted.length} files of the model are missing, the first is ${first}. ${again()}`,
  );
}

/** @throws HearthError if a folder has no usable config.json. */
export async function refuseUnusableFolder(path: string): Promise<void> {
  const names = await readdir(path);
  if (names.length === 0) {
    throw notFound(
      `${path} is an empty folder. A model folder has config.json, tokenizer.json and safetensors. ${again()}`,
    );
  }
  if (!names.includes('config.json')) throw withoutConfig(path, names);
  await refuseWrongFiles(path, ['config.json']);
}

/** @throws HearthError if the weights or the tokenizer of a folder are missing, or the files are something else. */
export async function refuseUnusableWeights(path: string): Promise<void> {
  const names = await readdir(path);
  const weights = names.filter((name) => name.endsWith('.safetensors'));
  await refuseWrongFiles(path, [
    ...names.filter((name) => name === 'tokenizer.json' || name === indexName),
    ...weights,
  ]);
  if (names.includes(indexName)) {
    const shards = new Set((await withSource(join(path, indexName), parseIndex)).values());
    requireAll([...shards], new Set(names));
  }
  if (weights.length > 0) return;
  const pickle = names.find((name) => /\.(bin|pt|pth)$/.test(name));
  if (pickle !== undefined) throw unsupported(pickled(pickle, path));
  throw notFound(`${path} has no weights: config.json is there, but no .safetensors file. ${again()}`);
}

async function refuseWrongFiles(path: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const start = await beginningOf(join(path, name));
    if (start.length === 0) throw invalidInput(`${name} is empty. ${again()}`);
    refuseWrongDownload(name, start.toString('latin1'));
  }
}

function withoutConfig(path: string, names: readonly string[]): HearthError {
  const gguf = names.find((name) => name.endsWith('.gguf'));
  if (gguf !== undefined) return invalidInput(`${path} is a folder of GGUF files. Name the file: ${join(path, gguf)}`);
  if (names.includes('adapter_config.json')) {
    return unsupported(
      `${path} is a LoRA adapter, not a whole model, and Hearth doesn't apply adapters. Merge it into its model, or take a merged GGUF.`,
    );
  }
  const other = names.find((name) => /\.(bin|pt|pth)$/.test(name));
  if (other !== undefined) return unsupported(pickled(other, path));
  const expected = 'A model folder has config.json, tokenizer.json and safetensors.';
  return notFound(`${path} has no config.json, so it is not a model folder. ${expected} ${again()}`);
}

async function beginningOf(path: string): Promise<Buffer> {
  const file = await open(path).catch((error: unknown) => {
    throw new HearthError('not-found', `${path} cannot be opened.`, { cause: error });
  });
  try {
    if ((await file.stat()).isDirectory()) throw invalidInput(`${path} is a folder where a file belongs. ${again()}`);
    const { bytesRead, buffer } = await file.read(Buffer.alloc(512), 0, 512, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

const quantised = z.looseObject({
  quantization_config: z.looseObject({}).nullish(),
  quantization: z.looseObject({}).nullish(),
});
const methods: ReadonlyMap<string, string> = new Map([
  ['awq', 'AWQ'],
  ['gptq', 'GPTQ'],
  ['bitsandbytes', 'bitsandbytes'],
  ['compressed-tensors', 'compressed-tensors (vLLM)'],
  ['modelopt', 'ModelOpt (NVIDIA)'],
  ['fbgemm_fp8', 'per-row FP8 (fbgemm_fp8)'],
  ['exl2', 'EXL2'],
  ['exl3', 'EXL3'],
]);

/**
 * `path`: the folder of config.json.
 * @throws HearthError `unsupported` if config.json names a quantisation that Hearth doesn't compute with.
 */
export function refuseUnusableConfig(config: unknown, path: string): void {
  const { quantization_config: settings, quantization: mlx } = quantised.safeParse(config).data ?? {};
  const method = settings?.['quant_method'];
  if (mlx || (settings && method === undefined && 'group_size' in settings)) throw quantisationError('MLX', path);
  if (method === 'fp8' && settings?.['weight_block_size'] == null) {
    throw quantisationError('FP8 with one scale a tensor (quantization_config.weight_block_size is missing)', path);
  }
  if (typeof method !== 'string' || method === 'fp8' || method === 'mxfp4') return;
  throw quantisationError(`${methods.get(method) ?? method} (quantization_config.quant_method is ${method})`, path);
}

const quantisationError = (kind: string, path: string): HearthError =>
  unsupported(
    `This model's weights are ${kind}. Hearth supports GGUF's quantisations, MXFP4, FP8 with block scales and plain floats. ${takeGguf(path)}`,
  );

/** `key` and `value`: where the file names its architecture. */
export function unknownArchitecture(key: string, value: string, known: string): HearthError {
  if (value === 'clip' || value === 'mmproj') {
    return unsupported(
      `This file is the image part of a model (${key} is ${value}). Choose the GGUF beside it that has the language model.`,
    );
  }
  return unsupported(
    `Hearth doesn't run this architecture: ${key}: ${value} is not one of ${known}. ` +
      `${places().list} shows models that it runs; llama-server and vLLM run more, and Hearth can use them as a server.`,
  );
}
