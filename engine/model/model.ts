/** A checkpoint opened for use: its spec, weights and tokenizer. */

import { join } from 'node:path';
import { z } from 'zod';
import { invalidInput, unsupported } from '../errors.ts';
import type { TensorFile } from '../formats/tensor.ts';
import { limits } from '../limits.ts';
import { readOptionalJson } from '../tokenizer/huggingFaceTokenizer.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { GgufKeys } from './families/ggufKeys.ts';
import type { DecoderSpec, Family } from './spec/spec.ts';
import type { DecoderWeights } from './weights/weights.ts';

export interface Checkpoint {
  /** Directory or file the checkpoint was opened from. */
  readonly path: string;
  readonly spec: DecoderSpec;
  readonly weights: DecoderWeights;
  /** Present for embedding models, whose spec is `headless`. */
  readonly embedding?: EmbeddingSpec;
  readonly file: TensorFile;
  /** As the file states it; absent if it doesn't. */
  readonly licence?: string;
  /**
   * Takes as long as everything else that opening does. @returns undefined for test checkpoints without a vocabulary.
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
export async function embeddingFromDirectory(path: string, family: Family): Promise<EmbeddingSpec | undefined> {
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
export const withoutHead = (spec: DecoderSpec): DecoderSpec => ({ ...spec, headless: true, tiedEmbeddings: true });

/**
 * Published embedding models lack the prefix `model.` in tensor names: they were saved without the class that adds it.
 */
export function withModelPrefix(file: TensorFile): TensorFile {
  if (!file.tensors.has('embed_tokens.weight')) return file;
  const prefix = 'model.';
  const tensors = new Map([...file.tensors].map(([name, info]) => [prefix + name, { ...info, name: prefix + name }]));
  return {
    tensors,
    read: (name, ...range) => file.read(name.slice(prefix.length), ...range),
    close: () => file.close(),
  };
}
