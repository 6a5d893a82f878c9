/**
 * StarCoder2: grouped-query attention in a sliding window, LayerNorms, a network without a gate, biases throughout.
 * Sources: transformers `models/starcoder2/modeling_starcoder2.py`; llama.cpp `convert_hf_to_gguf.py` (StarCoder2Model) and
 * `llama-model.cpp` (LLM_ARCH_STARCODER2).
 */
import { z } from 'zod';
import { limits } from '../../limits.ts';
import { checkedSpec, type DecoderSpec, type RopeSpec } from '../spec/spec.ts';
import {
  type DecoderNames,
  decoderWeights,
  denseTables,
  ggufNames,
  huggingFaceNames,
  type LayerTables,
  tensorTable,
} from '../weights/decoderWeights.ts';
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
  requireValue,
  ropeFromConfig,
  ropeFromGguf,
  size,
} from './config.ts';

const { rms_norm_eps: epsilon, ...fields } = decoderFields;
const starcoder2Config = z.looseObject({
  ...fields,
  norm_epsilon: epsilon,
  norm_type: optional(z.string()),
  mlp_type: optional(z.string()),
  use_bias: optional(z.boolean()),
  sliding_window: optional(size(limits.model.contextTokens)),
});

/** Of the 3B, 7B and 15B models. llama.cpp's converter writes none, and llama.cpp computes none: up to this length it is the same. */
const publishedSlidingWindow = 4096;

interface Starcoder2Sizes {
  readonly numLayers: number;
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly intermediateSize: number;
  readonly slidingWindow: number | undefined;
  readonly rope: RopeSpec;
}

function starcoder2Layers(sizes: Starcoder2Sizes): DecoderSpec['layers'] {
  const { numAttentionHeads, numKeyValueHeads, headDim, slidingWindow, rope } = sizes;
  return Array.from({ length: sizes.numLayers }, () => ({
    attention: {
      kind: 'grouped-query',
      numAttentionHeads,
      numKeyValueHeads,
      headDim,
      bias: { qkv: true, output: true },
      qkNorm: false,
      sinks: false,
      ...(slidingWindow !== undefined && { slidingWindow }),
      rope,
      softmaxScale: headDim ** -0.5,
    },
    feedForward: { kind: 'plain', intermediateSize: sizes.intermediateSize, activation: { kind: 'gelu' } },
  }));
}

function specFromConfig(config: unknown): DecoderSpec {
  const parsed = parseConfig(starcoder2Config, config);
  requireValue('hidden_act', parsed.hidden_act, 'gelu_pytorch_tanh');
  requireValue('norm_type', parsed.norm_type ?? 'layer_norm', 'layer_norm');
  requireValue('mlp_type', parsed.mlp_type ?? 'default', 'default');
  requireValue('use_bias', parsed.use_bias ?? true, true);
  const sizes = configSizes(parsed);
  const rope = ropeFromConfig(parsed, { dimensions: sizes.headDim, layout: 'half-split' });
  return checkedSpec({
    family: 'starcoder2',
    vocabularySize: parsed.vocab_size,
    hiddenSize: parsed.hidden_size,
    norm: 'layer',
    normEpsilon: parsed.norm_epsilon,
    contextTokens: contextTokensOf(parsed.max_position_embeddings, rope),
    tiedEmbeddings: parsed.tie_word_embeddings ?? true,
    layers: starcoder2Layers({
      ...sizes,
      slidingWindow: parsed.sliding_window,
      rope,
    }),
  });
}

async function specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec> {
  const sizes = ggufSizes(keys, gguf);
  const { headDim, contextTokens, vocabularySize, hiddenSize, normEpsilon, tiedEmbeddings } = sizes;
  const dimensions = keys.optionalSize('rope.dimension_count', limits.model.width) ?? headDim;
  const rope = ropeFromGguf(keys, { dimensions, layout: 'half-split', contextTokens, yarnTruncate: true });
  const window = keys.optionalSize('attention.sliding_window', limits.model.contextTokens);
  return checkedSpec({
    family: 'starcoder2',
    vocabularySize,
    hiddenSize,
    norm: 'layer',
    normEpsilon,
    contextTokens: contextTokensOf(contextTokens, rope),
    tiedEmbeddings,
    layers: starcoder2Layers({ ...sizes, rope, slidingWindow: window ?? publishedSlidingWindow }),
  });
}

const starcoder2Names: DecoderNames = {
  ...huggingFaceNames,
  layer: (index) => ({
    ...huggingFaceNames.layer(index),
    up: `model.layers.${index}.mlp.c_fc`,
    down: `model.layers.${index}.mlp.c_proj`,
  }),
};

const tables: LayerTables = {
  ...denseTables,
  feedForward({ table, spec: { hiddenSize }, layer: { feedForward }, names }) {
    const { intermediateSize } = feedForward;
    return {
      kind: 'plain',
      up: table.linear(names.up, [intermediateSize, hiddenSize], true),
      down: table.linear(names.down, [hiddenSize, intermediateSize], true),
    };
  },
};

/** No generation_config.json of the base models recommends sampling. */
export const starcoder2: FamilyBuilder = {
  modelTypes: ['starcoder2'],
  ggufArchitecture: 'starcoder2',
  specFromConfig,
  specFromGguf,
  weightsFromHuggingFace: (spec, file, config) =>
    decoderWeights(spec, tensorTable(file, fp8BlockOf(config)), starcoder2Names, tables),
  weightsFromGguf: (spec, file) => decoderWeights(spec, tensorTable(file), ggufNames, tables),
};
