/**
 * Llama and models of the same architecture (SmolLM2, stories260K): grouped-query attention, RoPE, SwiGLU.
 * Sources: transformers `models/llama/modeling_llama.py`; llama.cpp `convert_hf_to_gguf.py` (LlamaModel).
 */
import { z } from 'zod';
import type { GgufKeys } from '../../formats/ggufMetadata.ts';
import { limits } from '../../limits.ts';
import { checkedSpec, type DecoderSpec } from '../spec/spec.ts';
import { rotaryFactors } from '../weights/decoderWeights.ts';
import {
  configOuterFields,
  configSizes,
  decoderFields,
  type GgufSource,
  ggufOuterFields,
  ggufSizes,
  optional,
  parseConfig,
  requireSiluActivation,
  requireValue,
  ropeFromConfig,
  ropeFromGguf,
} from './config.ts';
import {
  type FamilyBuilder,
  groupedQueryAttention,
  type HeadSizes,
  type OwnAttention,
  swiGlu,
  usualWeights,
} from './family.ts';

const llamaConfig = z.looseObject({
  ...decoderFields,
  attention_bias: optional(z.boolean()),
  mlp_bias: optional(z.boolean()),
});

/** `sizes` of either format, and the rotary settings. */
export function llamaLayers(
  sizes: HeadSizes & { readonly numLayers: number },
  intermediateSize: number,
  own: OwnAttention,
): DecoderSpec['layers'] {
  const attention = groupedQueryAttention(sizes, own);
  return Array.from({ length: sizes.numLayers }, () => ({ attention, feedForward: swiGlu(intermediateSize) }));
}

function specFromConfig(config: unknown): DecoderSpec {
  const parsed = parseConfig(llamaConfig, config);
  requireSiluActivation(parsed);
  requireValue('mlp_bias', parsed.mlp_bias ?? false, false);
  const sizes = configSizes(parsed);
  const bias = parsed.attention_bias ?? false;
  const rope = ropeFromConfig(parsed, { dimensions: sizes.headDim, layout: 'half-split' });
  return checkedSpec({
    family: 'llama',
    ...configOuterFields(parsed, rope),
    layers: llamaLayers({ ...sizes, rope }, parsed.intermediate_size, { bias: { qkv: bias, output: bias } }),
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
  const bias = { qkv: gguf.tensors.has('blk.0.attn_q.bias'), output: gguf.tensors.has('blk.0.attn_output.bias') };
  return checkedSpec({
    family: 'llama',
    ...ggufOuterFields(sizes, rope),
    layers: llamaLayers({ ...sizes, rope }, sizes.intermediateSize, { bias }),
  });
}

export const llama: FamilyBuilder = {
  modelTypes: ['llama'],
  ggufArchitecture: 'llama',
  // SmolLM2-Instruct's card.
  sampling: { temperature: 0.2, topP: 0.9 },
  specFromConfig,
  specFromGguf,
  ...usualWeights,
};
