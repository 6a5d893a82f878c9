/** Reads the `<architecture>.*` keys of GGUF metadata. Errors name the key. */
import { invalidInput, unsupported } from '../../errors.ts';
import type { GgufMetadata } from '../../formats/ggufMetadata.ts';
import type { TensorFile } from '../../formats/tensor.ts';
import { limits } from '../../limits.ts';
import { yarnMscale } from '../spec/rope.ts';
import type { RopeSpec, YarnSpec } from '../spec/spec.ts';

export type GgufSource = TensorFile & GgufMetadata;

export interface GgufKeys {
  readonly architecture: string;
  /** An integer from 1 to `max`. */
  size(key: string, max: number): number;
  optionalSize(key: string, max: number): number | undefined;
  optionalNumber(key: string): number | undefined;
  positive(key: string): number;
  optionalPositive(key: string): number | undefined;
  optionalBoolean(key: string): boolean | undefined;
  optionalString(key: string): string | undefined;
}

/** Keys omit the architecture prefix: `attention.head_count`. */
export function ggufKeys(metadata: GgufMetadata['metadata']): GgufKeys {
  const architecture = metadata.get('general.architecture');
  if (typeof architecture !== 'string') throw invalidInput('GGUF key general.architecture is missing.');
  const typed = <T>(key: string, type: string, convert: (value: unknown) => T | undefined): T | undefined => {
    const value = metadata.get(`${architecture}.${key}`);
    if (value === undefined) return undefined;
    const converted = convert(value);
    if (converted === undefined) throw invalidInput(`GGUF key ${architecture}.${key} must be ${type}.`);
    return converted;
  };
  const needed = <T>(key: string, value: T | undefined): T => {
    if (value === undefined) throw invalidInput(`GGUF key ${architecture}.${key} is missing.`);
    return value;
  };
  const optionalNumber = (key: string) => typed(key, 'one finite number', finiteNumber);
  const optionalPositive = (key: string) =>
    typed(key, 'one positive number', (value) => {
      const number = finiteNumber(value);
      return number !== undefined && number > 0 ? number : undefined;
    });
  const optionalSize = (key: string, max: number) =>
    typed(key, `one whole number from 1 to ${max}`, (value) => {
      const number = finiteNumber(value);
      return number !== undefined && Number.isInteger(number) && number >= 1 && number <= max ? number : undefined;
    });
  return {
    architecture,
    optionalNumber,
    optionalPositive,
    positive: (key) => needed(key, optionalPositive(key)),
    optionalSize,
    size: (key, max) => needed(key, optionalSize(key, max)),
    optionalBoolean: (key) => typed(key, 'true or false', (value) => (typeof value === 'boolean' ? value : undefined)),
    optionalString: (key) => typed(key, 'a text', (value) => (typeof value === 'string' ? value : undefined)),
  };
}

function finiteNumber(value: unknown): number | undefined {
  const number = typeof value === 'bigint' ? Number(value) : value;
  return typeof number === 'number' && Number.isFinite(number) ? number : undefined;
}

export interface GgufSizes {
  readonly numLayers: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly normEpsilon: number;
  readonly contextTokens: number;
  readonly vocabularySize: number;
  readonly tiedEmbeddings: boolean;
}

/** Sizes that all architectures with standard attention store under the same keys. */
export function ggufSizes(keys: GgufKeys, gguf: GgufSource): GgufSizes {
  const { heads, width } = limits.model;
  const hiddenSize = keys.size('embedding_length', width);
  const numAttentionHeads = keys.size('attention.head_count', heads);
  const headDim = keys.optionalSize('attention.key_length', width) ?? hiddenSize / numAttentionHeads;
  const valueDim = keys.optionalSize('attention.value_length', width) ?? headDim;
  if (valueDim !== headDim) {
    throw unsupported(
      `GGUF key ${keys.architecture}.attention.value_length: ${valueDim} differs from the key's ${headDim}.`,
    );
  }
  return {
    numLayers: keys.size('block_count', limits.model.layers),
    hiddenSize,
    intermediateSize: keys.size('feed_forward_length', width),
    numAttentionHeads,
    numKeyValueHeads: keys.optionalSize('attention.head_count_kv', heads) ?? numAttentionHeads,
    headDim,
    normEpsilon: keys.positive('attention.layer_norm_rms_epsilon'),
    contextTokens: keys.size('context_length', limits.model.contextTokens),
    ...ggufVocabulary(gguf),
  };
}

/** `vocab_size` is optional, so the embedding's rows count. A missing head means tied embeddings. */
export function ggufVocabulary(gguf: TensorFile): Pick<GgufSizes, 'vocabularySize' | 'tiedEmbeddings'> {
  const vocabularySize = gguf.tensors.get('token_embd.weight')?.shape[0];
  if (vocabularySize === undefined) throw invalidInput('The GGUF has no tensor token_embd.weight.');
  if (vocabularySize < 1 || vocabularySize > limits.model.vocabulary) {
    throw invalidInput(`Tensor token_embd.weight has ${vocabularySize} rows.`);
  }
  return { vocabularySize, tiedEmbeddings: !gguf.tensors.has('output.weight') };
}

export interface GgufRopeOptions {
  readonly dimensions: number;
  readonly layout: RopeSpec['layout'];
  readonly contextTokens: number;
  /** Default of YaRN's `truncate` for files that predate the key. */
  readonly yarnTruncate: boolean;
  /** Factor on cos and sin for a given scaling factor; default `yarnMscale`. */
  readonly yarnAttentionFactor?: (factor: number) => number;
}

export function ropeFromGguf(keys: GgufKeys, options: GgufRopeOptions): RopeSpec {
  const { dimensions, layout } = options;
  // 10000 is the default of llama.cpp and of the paper; stories260K omits the key.
  const rope = { theta: keys.optionalPositive('rope.freq_base') ?? 10_000, dimensions, layout };
  const factor = keys.optionalPositive('rope.scaling.factor') ?? keys.optionalPositive('rope.scale_linear') ?? 1;
  // Files that predate the key use linear scaling.
  const type = keys.optionalString('rope.scaling.type') ?? 'linear';
  switch (type) {
    case 'none':
      return rope;
    case 'linear':
      return factor === 1 ? rope : { ...rope, linearFactor: factor };
    case 'yarn':
      return { ...rope, yarn: yarnFromGguf(keys, factor, options) };
    default:
      throw unsupported(
        `GGUF key ${keys.architecture}.rope.scaling.type: Hearth supports none, linear and yarn, not ${type}.`,
      );
  }
}

function yarnFromGguf(keys: GgufKeys, factor: number, options: GgufRopeOptions): YarnSpec {
  // llama.cpp changed over time how it combines these with its own factor. No file of the supported families sets them.
  for (const key of ['rope.scaling.attn_factor', 'rope.scaling.yarn_attn_factor', 'rope.scaling.yarn_ext_factor']) {
    const value = keys.optionalNumber(key) ?? 1;
    if (value !== 1) throw unsupported(`GGUF key ${keys.architecture}.${key}: Hearth supports 1, not ${value}.`);
  }
  return {
    factor,
    originalContextTokens:
      keys.optionalSize('rope.scaling.original_context_length', limits.model.contextTokens) ?? options.contextTokens,
    betaFast: keys.optionalPositive('rope.scaling.yarn_beta_fast') ?? 32,
    betaSlow: keys.optionalPositive('rope.scaling.yarn_beta_slow') ?? 1,
    truncate: keys.optionalBoolean('rope.scaling.yarn_truncate') ?? options.yarnTruncate,
    attentionFactor: (options.yarnAttentionFactor ?? yarnMscale)(factor),
  };
}
