/**
 * Llama and models of the same architecture (SmolLM2, stories260K): grouped-query attention, RoPE, SwiGLU.
 * Sources: transformers `models/llama/modeling_llama.py`; llama.cpp `convert_hf_to_gguf.py` (LlamaModel).
 */
import { z } from 'zod';
import { limits } from '../../limits.ts';
import {
  checkedSpec,
  type DecoderSpec,
  type GroupedQueryAttentionSpec,
  type QueryTemperature,
  type RopeSpec,
} from '../spec/spec.ts';
import { decoderWeights, ggufNames, huggingFaceNames, rotaryFactors, tensorTable } from '../weights/decoderWeights.ts';
import {
  configSizes,
  contextTokensOf,
  decoderFields,
  type FamilyBuilder,
  fp8BlockOf,
  type GgufKeys,
  type GgufSource,
  ggufSizes,
  optional,
  parseConfig,
  requireSiluActivation,
  requireValue,
  ropeFromConfig,
  ropeFromGguf,
} from './config.ts';

const llamaConfig = z.looseObject({
  ...decoderFields,
  attention_bias: optional(z.boolean()),
  mlp_bias: optional(z.boolean()),
});

export interface LlamaSizes {
  readonly numLayers: number;
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly intermediateSize: number;
  readonly bias: GroupedQueryAttentionSpec['bias'];
  readonly rope: RopeSpec;
  readonly slidingWindow?: number | undefined;
  readonly queryTemperature?: QueryTemperature | undefined;
}

export function llamaLayers(sizes: LlamaSizes): DecoderSpec['layers'] {
  const { numAttentionHeads, numKeyValueHeads, headDim, bias, rope, slidingWindow, queryTemperature } = sizes;
  return Array.from({ length: sizes.numLayers }, () => ({
    attention: {
      kind: 'grouped-query',
      numAttentionHeads,
      numKeyValueHeads,
      headDim,
      bias,
      qkNorm: false,
      sinks: false,
      ...(slidingWindow !== undefined && { slidingWindow }),
      rope,
      ...(queryTemperature && { queryTemperature }),
      softmaxScale: headDim ** -0.5,
    },
    feedForward: { kind: 'dense', intermediateSize: sizes.intermediateSize, activation: { kind: 'silu-gate' } },
  }));
}

function specFromConfig(config: unknown): DecoderSpec {
  const parsed = parseConfig(llamaConfig, config);
  requireSiluActivation(parsed);
  requireValue('mlp_bias', parsed.mlp_bias ?? false, false);
  const sizes = configSizes(parsed);
  const attentionBias = parsed.attention_bias ?? false;
  const rope = ropeFromConfig(parsed, { dimensions: sizes.headDim, layout: 'half-split' });
  return checkedSpec({
    family: 'llama',
    vocabularySize: parsed.vocab_size,
    hiddenSize: parsed.hidden_size,
    normEpsilon: parsed.rms_norm_eps,
    contextTokens: contextTokensOf(parsed.max_position_embeddings, rope),
    tiedEmbeddings: parsed.tie_word_embeddings ?? false,
    layers: llamaLayers({
      ...sizes,
      bias: { qkv: attentionBias, output: attentionBias },
      rope,
    }),
  });
}

async function specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec> {
  const sizes = ggufSizes(keys, gguf);
  const dimensions = keys.optionalSize('rope.dimension_count', limits.model.width) ?? sizes.headDim;
  // The converter permutes the rows of q and k so that the elements of a pair are adjacent (LlamaModel.permute).
  const layout = 'interleaved';
  const scaled = ropeFromGguf(keys, { dimensions, layout, contextTokens: sizes.contextTokens, yarnTruncate: true });
  // Llama 3.1's scaling, which the converter stores as divisors of the frequencies.
  const frequencyFactors = await rotaryFactors(gguf, 'rope_freqs.weight', dimensions / 2);
  const rope = frequencyFactors ? { ...scaled, frequencyFactors } : scaled;
  const { vocabularySize, hiddenSize, normEpsilon, tiedEmbeddings } = sizes;
  const bias = { qkv: gguf.tensors.has('blk.0.attn_q.bias'), output: gguf.tensors.has('blk.0.attn_output.bias') };
  return checkedSpec({
    family: 'llama',
    vocabularySize,
    hiddenSize,
    normEpsilon,
    contextTokens: contextTokensOf(sizes.contextTokens, rope),
    tiedEmbeddings,
    layers: llamaLayers({ ...sizes, bias, rope }),
  });
}

export const llama: FamilyBuilder = {
  modelTypes: ['llama'],
  ggufArchitecture: 'llama',
  // SmolLM2-Instruct's card.
  sampling: { temperature: 0.2, topP: 0.9 },
  specFromConfig,
  specFromGguf,
  weightsFromHuggingFace: (spec, file, config) =>
    decoderWeights(spec, tensorTable(file, fp8BlockOf(config)), huggingFaceNames),
  weightsFromGguf: (spec, file) => decoderWeights(spec, tensorTable(file), ggufNames),
};
