/** Interface of a family file, and the parts that most families are made of. */
import type { GgufKeys } from '../../formats/ggufMetadata.ts';
import type { TensorFile } from '../../formats/tensor.ts';
import type { DecoderSpec, DenseSpec, GroupedQueryAttentionSpec, QueryTemperature } from '../spec/spec.ts';
import { decoderWeights, ggufNames, huggingFaceNames, tensorTable } from '../weights/decoderWeights.ts';
import type { DecoderWeights } from '../weights/weights.ts';
import { fp8BlockOf, type GgufSource } from './config.ts';

/** Keys of `SamplerSettings` (backend/sampler.ts). */
export interface PublishedSampling {
  readonly temperature: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly repetitionPenalty?: number;
}

export interface FamilyBuilder {
  /** `model_type` values in config.json. */
  readonly modelTypes: readonly string[];
  /** `general.architecture` in a GGUF. */
  readonly ggufArchitecture: string;
  /** `tokenizer.ggml.pre` of its GGUFs, if another family has the same architecture. */
  readonly ggufPreTokeniser?: string;
  /** Sampling that the publisher recommends, for files without a generation_config.json (GGUF). Absent: none. */
  readonly sampling?: PublishedSampling;
  /** @throws HearthError `invalid-input` or `unsupported`, naming the key. */
  specFromConfig(config: unknown): DecoderSpec;
  specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec>;
  /** @throws HearthError `invalid-input` or `unsupported`, naming the tensor. */
  weightsFromHuggingFace(spec: DecoderSpec, file: TensorFile, config: unknown): DecoderWeights;
  weightsFromGguf(spec: DecoderSpec, file: TensorFile): DecoderWeights;
}

/** Weights under the usual names of both formats. */
export const usualWeights: Pick<FamilyBuilder, 'weightsFromHuggingFace' | 'weightsFromGguf'> = {
  weightsFromHuggingFace: (spec, file, config) =>
    decoderWeights(spec, tensorTable(file, fp8BlockOf(config)), huggingFaceNames),
  weightsFromGguf: (spec, file) => decoderWeights(spec, tensorTable(file), ggufNames),
};

export type HeadSizes = Pick<GroupedQueryAttentionSpec, 'numAttentionHeads' | 'numKeyValueHeads' | 'headDim' | 'rope'>;

export interface OwnAttention
  extends Partial<Pick<GroupedQueryAttentionSpec, 'bias' | 'qkNorm' | 'jointNorm' | 'sinks' | 'softmaxScale'>> {
  readonly slidingWindow?: number | undefined;
  readonly queryTemperature?: QueryTemperature | undefined;
}

/** Causal attention with scores times headDim^-0.5; no biases, norms of heads or sinks unless `own` has them. */
export function groupedQueryAttention(sizes: HeadSizes, own: OwnAttention = {}): GroupedQueryAttentionSpec {
  const { numAttentionHeads, numKeyValueHeads, headDim, rope } = sizes;
  const { slidingWindow, queryTemperature } = own;
  return {
    kind: 'grouped-query',
    numAttentionHeads,
    numKeyValueHeads,
    headDim,
    bias: own.bias ?? { qkv: false, output: false },
    qkNorm: own.qkNorm ?? false,
    ...(own.jointNorm && { jointNorm: own.jointNorm }),
    sinks: own.sinks ?? false,
    ...(slidingWindow !== undefined && { slidingWindow }),
    rope,
    ...(queryTemperature && { queryTemperature }),
    softmaxScale: own.softmaxScale ?? headDim ** -0.5,
  };
}

export function swiGlu(intermediateSize: number): DenseSpec {
  return { kind: 'dense', intermediateSize, activation: { kind: 'silu-gate' } };
}

// A checkpoint's tensors under the names that families look for, whatever prefix the publisher's class gave them.

/** `rename` must map different names to different names. */
export function renamedTensors(file: TensorFile, rename: (name: string) => string): TensorFile {
  const stored = new Map([...file.tensors.keys()].map((name) => [rename(name), name] as const));
  const tensors = new Map(
    [...file.tensors.values()].map((info) => [rename(info.name), { ...info, name: rename(info.name) }] as const),
  );
  return {
    tensors,
    read: (name, ...range) => file.read(stored.get(name) ?? name, ...range),
    close: () => file.close(),
  };
}

/** Prefixes of the text part of a model that also reads images, in transformers 5 and 4, and their replacements. */
const textPrefixes = [
  ['model.language_model.', 'model.'],
  ['language_model.', ''],
] as const;

/** The text part of a model that also reads images; other files unchanged. */
export function textPart(file: TensorFile): TensorFile {
  const found = textPrefixes.find(([prefix, own]) =>
    file.tensors.has(`${prefix}${own === '' ? 'model.' : ''}embed_tokens.weight`),
  );
  if (!found) return file;
  const [prefix, own] = found;
  return renamedTensors(file, (name) => (name.startsWith(prefix) ? own + name.slice(prefix.length) : name));
}
