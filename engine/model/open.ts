/** A checkpoint opened for use: its spec, weights and tokenizer. */
import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { HearthError, invalidInput, unsupported } from '../errors.ts';
import { openGguf } from '../formats/gguf.ts';
import { type GgufKeys, ggufKeys, metadataString, optionalMetadata } from '../formats/ggufMetadata.ts';
import { openSafetensors } from '../formats/safetensors.ts';
import { requireFile, type TensorFile } from '../formats/tensor.ts';
import { limits } from '../limits.ts';
import { tokenizerFromGguf } from '../tokenizer/ggufTokenizer.ts';
import { readOptionalJson, tokenizerFromDirectory } from '../tokenizer/huggingFaceTokenizer.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { deepseekV3 } from './families/deepseekV3.ts';
import type { FamilyBuilder, PublishedSampling } from './families/family.ts';
import { renamedTensors } from './families/family.ts';
import { gemma3 } from './families/gemma3.ts';
import { glm4Moe } from './families/glm4Moe.ts';
import { glm4MoeLite } from './families/glm4MoeLite.ts';
import { gptOss, isOriginal } from './families/gptOss.ts';
import { llama } from './families/llama.ts';
import { miniMaxM2 } from './families/miniMaxM2.ts';
import { mistral3 } from './families/mistral3.ts';
import { phi3 } from './families/phi3.ts';
import { qwen2 } from './families/qwen2.ts';
import { qwen3 } from './families/qwen3.ts';
import { qwen3Moe } from './families/qwen3Moe.ts';
import { qwen3Next, qwen35, qwen35Moe } from './families/qwen3Next.ts';
import { starcoder2 } from './families/starcoder2.ts';
import type { DecoderSpec, Family } from './spec/spec.ts';
import {
  refuseUnusableConfig,
  refuseUnusableFile,
  refuseUnusableFolder,
  refuseUnusableWeights,
  unknownArchitecture,
} from './unusable.ts';
import type { DecoderWeights } from './weights/weights.ts';

export interface Checkpoint {
  /** Directory or file the checkpoint was opened from. */
  readonly path: string;
  readonly spec: DecoderSpec;
  readonly weights: DecoderWeights;
  /** Sampling that the publisher recommends; absent: none. */
  readonly sampling?: PublishedSampling | undefined;
  /** Present for embedding models, whose spec is `headless`. */
  readonly embedding?: EmbeddingSpec;
  readonly file: TensorFile;
  /** As the file states it; absent if it doesn't. */
  readonly licence?: string;
  /** Parts of the checkpoint that are not loaded, for the model card. */
  readonly notes?: readonly string[];
  /**
   * Reads the tokenizer, which takes as long as the rest of opening. @returns undefined for test checkpoints without a
   * vocabulary.
   * @throws HearthError `invalid-input` or `unsupported`, naming the fault.
   */
  readTokenizer(): Promise<Tokenizer | undefined>;
}

/** A checkpoint with its tokenizer, if it has one. */
export interface Model extends Omit<Checkpoint, 'readTokenizer'> {
  readonly tokenizer?: Tokenizer;
}

// Recognises embedding models: decoders whose last token's hidden state, after the final norm, is the text's vector.
// Sources: sentence-transformers' `modules.json` layout (`1_Pooling/config.json`, `config_sentence_transformers.json`);
// llama.h `enum llama_pooling_type`, which GGUF stores as `<architecture>.pooling_type`.

interface EmbeddingSpec {
  /** Prepended to queries; the chunks searched get no prefix. */
  readonly queryPrefix: string;
}

/** From Qwen3-Embedding's `config_sentence_transformers.json`; its GGUF files don't contain it. */
const qwen3QueryPrefix = 'Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:';

const ggufPooling = ['none', 'mean', 'cls', 'last', 'rank'] as const;

const poolingConfig = z.looseObject({
  pooling_mode_lasttoken: z.boolean().nullish(),
});
const sentenceTransformers = z.looseObject({ prompts: z.record(z.string(), z.string()).nullish() });

/** @throws HearthError `unsupported` for other kinds of pooling. */
async function embeddingFromDirectory(path: string, family: Family): Promise<EmbeddingSpec | undefined> {
  const json = (name: string) => readOptionalJson(join(path, name), limits.model.configBytes);
  const pooling = await json('1_Pooling/config.json');
  if (pooling === undefined) return undefined;
  const parsed = poolingConfig.safeParse(pooling);
  if (!parsed.success)
    throw invalidInput("1_Pooling/config.json isn't a pooling configuration of sentence-transformers.");
  if (parsed.data.pooling_mode_lasttoken !== true) {
    throw unsupported('1_Pooling/config.json: Hearth supports only last-token pooling (pooling_mode_lasttoken).');
  }
  const prompts = sentenceTransformers.safeParse(await json('config_sentence_transformers.json'));
  return { queryPrefix: prompts.data?.prompts?.['query'] ?? defaultPrefix(family) };
}

/** @throws HearthError `unsupported` for other kinds of pooling. */
export function embeddingFromGguf(keys: GgufKeys, family: Family): EmbeddingSpec | undefined {
  const pooling = keys.optionalNumber('pooling_type') ?? 0;
  const name = ggufPooling[pooling] ?? String(pooling);
  if (name === 'none') return undefined;
  if (name !== 'last') {
    throw unsupported(
      `GGUF key ${keys.architecture}.pooling_type: Hearth supports only last-token pooling, not ${name}.`,
    );
  }
  if (keys.optionalBoolean('attention.causal') === false) {
    throw unsupported(`GGUF key ${keys.architecture}.attention.causal: non-causal attention isn't supported.`);
  }
  return { queryPrefix: defaultPrefix(family) };
}

const defaultPrefix = (family: Family): string => (family === 'qwen3' ? qwen3QueryPrefix : '');

/** Embeddings need no head, even if the checkpoint has one. */
const withoutHead = (spec: DecoderSpec): DecoderSpec => ({ ...spec, headless: true, tiedEmbeddings: true });

/**
 * Published embedding models lack the prefix `model.` in tensor names: they were saved without the class that adds it.
 */
function withModelPrefix(file: TensorFile): TensorFile {
  return file.tensors.has('embed_tokens.weight') ? renamedTensors(file, (name) => `model.${name}`) : file;
}

// Opens a checkpoint: finds its family, and its weights by role.

const families: readonly FamilyBuilder[] = [
  llama,
  qwen2,
  qwen3,
  qwen3Moe,
  gptOss,
  deepseekV3,
  gemma3,
  phi3,
  glm4Moe,
  glm4MoeLite,
  qwen3Next,
  qwen35,
  qwen35Moe,
  starcoder2,
  miniMaxM2,
  mistral3,
];

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

function familyOfGguf(architecture: string, preTokeniser?: string): FamilyBuilder {
  const fitting = families.filter(({ ggufArchitecture }) => ggufArchitecture === architecture);
  const [first] = fitting;
  if (first) return fitting.find(({ ggufPreTokeniser: own }) => own !== undefined && own === preTokeniser) ?? first;
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
    sampling: family.sampling,
    ...(embedding && { embedding }),
    ...(seesPictures.safeParse(config).success && { notes: [textOnly] }),
    file,
  }));
}

const seesPictures = z.looseObject({ vision_config: z.looseObject({}) });
const textOnly = 'This model also reads images. Only its text part is loaded.';

async function openGgufModel(path: string): Promise<Checkpoint> {
  await requireFile(path);
  await refuseUnusableFile(path);
  return withOpenFile(await openGguf(path), async (file) => {
    const keys = ggufKeys(file.metadata);
    const family = familyOfGguf(keys.architecture, optionalMetadata(file, 'tokenizer.ggml.pre', metadataString));
    const described = await family.specFromGguf(keys, file);
    const embedding = embeddingFromGguf(keys, described.family);
    const spec = embedding ? withoutHead(described) : described;
    const weights = family.weightsFromGguf(spec, file);
    const readTokenizer = async () => fitting(spec, tokenizerFromGguf(file.metadata));
    const licence = optionalMetadata(file, 'general.license', metadataString);
    const stated = { ...(embedding && { embedding }), ...(licence !== undefined && { licence }) };
    return { path, spec, weights, sampling: family.sampling, ...stated, file, readTokenizer };
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
  return [...new Set(families.flatMap((family) => family[key]))].join(', ');
}
