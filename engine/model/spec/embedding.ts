/**
 * Which checkpoints are embedding models: decoders whose last token's hidden state, after the final norm, stands for the
 * text. Sources: sentence-transformers' `modules.json` layout (`1_Pooling/config.json`, `config_sentence_transformers.json`);
 * llama.h `enum llama_pooling_type`, which GGUF stores as `<architecture>.pooling_type`.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { invalidInput, unsupported } from '../../errors.ts';
import type { TensorFile } from '../../formats/tensor.ts';
import { limits } from '../../limits.ts';
import { readOptionalJson } from '../../tokenizer/readConfig.ts';
import type { GgufKeys } from '../families/ggufKeys.ts';
import type { DecoderSpec, Family } from './spec.ts';

export interface EmbeddingSpec {
  /** Put before a question; texts that are looked for go without. */
  readonly queryPrefix: string;
}

/** Qwen3-Embedding's `config_sentence_transformers.json`; its GGUF files do not carry it. */
const qwen3QueryPrefix = 'Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:';

const ggufPooling = ['none', 'mean', 'cls', 'last', 'rank'] as const;

const poolingConfig = z.looseObject({
  pooling_mode_lasttoken: z.boolean().nullish(),
});
const sentenceTransformers = z.looseObject({ prompts: z.record(z.string(), z.string()).nullish() });

/** @throws HearthError `unsupported` for vectors made otherwise. */
export async function embeddingFromDirectory(path: string, family: Family): Promise<EmbeddingSpec | undefined> {
  const json = (name: string) => readOptionalJson(join(path, name), limits.model.configBytes);
  const pooling = await json('1_Pooling/config.json');
  if (pooling === undefined) return undefined;
  const parsed = poolingConfig.safeParse(pooling);
  if (!parsed.success) throw invalidInput('1_Pooling/config.json is not the pooling of sentence-transformers.');
  if (parsed.data.pooling_mode_lasttoken !== true) {
    throw unsupported('1_Pooling/config.json: Hearth takes the last token (pooling_mode_lasttoken), nothing else.');
  }
  const prompts = sentenceTransformers.safeParse(await json('config_sentence_transformers.json'));
  return { queryPrefix: prompts.data?.prompts?.['query'] ?? defaultPrefix(family) };
}

/** @throws HearthError `unsupported` for vectors made otherwise. */
export function embeddingFromGguf(keys: GgufKeys, family: Family): EmbeddingSpec | undefined {
  const pooling = keys.optionalNumber('pooling_type') ?? 0;
  const name = ggufPooling[pooling] ?? String(pooling);
  if (name === 'none') return undefined;
  if (name !== 'last') {
    throw unsupported(`GGUF key ${keys.architecture}.pooling_type: Hearth takes the last token, not ${name}.`);
  }
  if (keys.optionalBoolean('attention.causal') === false) {
    throw unsupported(`GGUF key ${keys.architecture}.attention.causal: tokens that see later ones are not supported.`);
  }
  return { queryPrefix: defaultPrefix(family) };
}

const defaultPrefix = (family: Family): string => (family === 'qwen3' ? qwen3QueryPrefix : '');

/** Vectors need no head, whether the checkpoint has one or not. */
export const withoutHead = (spec: DecoderSpec): DecoderSpec => ({ ...spec, headless: true, tiedEmbeddings: true });

/** Published embedding models lack the `model.` before every name: they were saved without the class that has the head. */
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
