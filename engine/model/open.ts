/** Opens a checkpoint: finds its family, and its weights by role. */
import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { HearthError, invalidInput } from '../errors.ts';
import { openGguf } from '../formats/gguf.ts';
import { metadataString, optionalMetadata } from '../formats/ggufMetadata.ts';
import { requireFile } from '../formats/rangedFile.ts';
import { openSafetensors } from '../formats/safetensors.ts';
import type { TensorFile } from '../formats/tensor.ts';
import { limits } from '../limits.ts';
import { tokenizerFromGguf } from '../tokenizer/ggufTokenizer.ts';
import { tokenizerFromDirectory } from '../tokenizer/huggingFaceTokenizer.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { FamilyBuilder } from './families/config.ts';
import { deepseekV3 } from './families/deepseekV3.ts';
import { gemma3 } from './families/gemma3.ts';
import { ggufKeys } from './families/ggufKeys.ts';
import { glm4Moe } from './families/glm4Moe.ts';
import { gptOss, isOriginal } from './families/gptOss.ts';
import { llama } from './families/llama.ts';
import { phi3 } from './families/phi3.ts';
import { qwen2 } from './families/qwen2.ts';
import { qwen3 } from './families/qwen3.ts';
import { qwen3Moe } from './families/qwen3Moe.ts';
import {
  type Checkpoint,
  embeddingFromDirectory,
  embeddingFromGguf,
  type Model,
  withModelPrefix,
  withoutHead,
} from './model.ts';
import type { DecoderSpec } from './spec/spec.ts';
import {
  refuseUnusableConfig,
  refuseUnusableFile,
  refuseUnusableFolder,
  refuseUnusableWeights,
  unknownArchitecture,
} from './unusable.ts';

const families: readonly FamilyBuilder[] = [llama, qwen2, qwen3, qwen3Moe, gptOss, deepseekV3, gemma3, phi3, glm4Moe];

/** Opens a checkpoint and reads its tokenizer. @throws HearthError as `openCheckpoint` and `readTokenizer` do. */
export async function openModel(path: string): Promise<Model> {
  const { readTokenizer, ...checkpoint } = await openCheckpoint(path);
  try {
    const tokenizer = await readTokenizer();
    return { ...checkpoint, ...(tokenizer && { tokenizer }) };
  } catch (error) {
    await checkpoint.file.close();
    throw error;
  }
}

/**
 * Opens a GGUF file, or a directory with config.json and safetensors.
 * @throws HearthError `not-found`, `invalid-input` or `unsupported` naming the key or tensor, `unavailable`.
 */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  const found = await stat(path).catch((error: unknown) => {
    throw new HearthError('not-found', `There is no model at ${path}.`, { cause: error });
  });
  return found.isDirectory() ? openDirectory(path) : openGgufModel(path);
}

/** Reads headers only. @throws HearthError as `openCheckpoint` does. */
export async function checkOpens(path: string): Promise<void> {
  await (await openCheckpoint(path)).file.close();
}

/** The spec that a published config.json describes, without any weights. */
export function specFromConfig(config: unknown): DecoderSpec {
  return familyOfConfig(config).specFromConfig(config);
}

/** @throws HearthError `unsupported` for a GGUF's architecture that no family has. */
export function requireArchitecture(architecture: string | undefined): void {
  if (architecture !== undefined) familyOfGguf(architecture);
}

function familyOfGguf(architecture: string): FamilyBuilder {
  const family = families.find(({ ggufArchitecture }) => ggufArchitecture === architecture);
  if (family) return family;
  throw unknownArchitecture('GGUF key general.architecture', architecture, known('ggufArchitecture'));
}

async function openDirectory(path: string): Promise<Checkpoint> {
  await refuseUnusableFolder(path);
  const config = await readConfig(join(path, 'config.json'));
  refuseUnusableConfig(config, path);
  const family = familyOfConfig(config);
  const described = family.specFromConfig(config);
  await refuseUnusableWeights(path);
  const embedding = await embeddingFromDirectory(path, described.family);
  const spec = embedding ? withoutHead(described) : described;
  return withOpenFile(await openSafetensors(path), async (file) => ({
    path,
    spec,
    weights: family.weightsFromHuggingFace(spec, withModelPrefix(file), config),
    readTokenizer: async () => fitting(spec, await tokenizerFromDirectory(path)),
    ...(embedding && { embedding }),
    file,
  }));
}

async function openGgufModel(path: string): Promise<Checkpoint> {
  await requireFile(path);
  await refuseUnusableFile(path);
  return withOpenFile(await openGguf(path), async (file) => {
    const keys = ggufKeys(file.metadata);
    const family = familyOfGguf(keys.architecture);
    const described = await family.specFromGguf(keys, file);
    const embedding = embeddingFromGguf(keys, described.family);
    const spec = embedding ? withoutHead(described) : described;
    const weights = family.weightsFromGguf(spec, file);
    const readTokenizer = async () => fitting(spec, tokenizerFromGguf(file.metadata));
    const licence = optionalMetadata(file, 'general.license', metadataString);
    const stated = { ...(embedding && { embedding }), ...(licence !== undefined && { licence }) };
    return { path, spec, weights, ...stated, file, readTokenizer };
  });
}

/** A model's vocabulary may be padded beyond the tokenizer's; the tokenizer's must not be larger. */
function fitting({ vocabularySize }: DecoderSpec, tokenizer: Tokenizer | undefined): Tokenizer | undefined {
  if (!tokenizer || tokenizer.vocabularySize <= vocabularySize) return tokenizer;
  throw invalidInput(`The tokenizer has ${tokenizer.vocabularySize} tokens, the model's embedding ${vocabularySize}.`);
}

/** Closes the file if `read` fails. */
async function withOpenFile<F extends TensorFile>(
  file: F,
  read: (file: F) => Checkpoint | Promise<Checkpoint>,
): Promise<Checkpoint> {
  try {
    return await read(file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/**
 * Reads a config.json of any kind.
 * @throws HearthError `not-found`, or `invalid-input` if it isn't JSON or is too long.
 */
export async function readConfig(path: string): Promise<unknown> {
  const file = await open(path).catch((error: unknown) => {
    throw new HearthError('not-found', `${path}: not found. A model directory contains config.json and safetensors.`, {
      cause: error,
    });
  });
  try {
    const { size } = await file.stat();
    if (size > limits.model.configBytes) throw invalidInput(`${path} has ${size} bytes, too many for a configuration.`);
    return JSON.parse(await file.readFile('utf8'));
  } catch (error) {
    if (error instanceof HearthError) throw error;
    if (error instanceof SyntaxError) throw new HearthError('invalid-input', `${path} isn't JSON.`, { cause: error });
    throw new HearthError('unavailable', `${path} can't be read.`, { cause: error });
  } finally {
    await file.close();
  }
}

function familyOfConfig(config: unknown): FamilyBuilder {
  if (isOriginal(config)) return gptOss;
  const type = typeof config === 'object' && config !== null && 'model_type' in config ? config.model_type : undefined;
  if (typeof type !== 'string') throw invalidInput('config.json, key model_type is missing.');
  const family = families.find(({ modelTypes }) => modelTypes.includes(type));
  if (!family) throw unknownArchitecture('config.json, key model_type', type, known('modelTypes'));
  return family;
}

function known(key: 'modelTypes' | 'ggufArchitecture'): string {
  return families.flatMap((family) => family[key]).join(', ');
}
