/**
 * Qwen2 and Qwen2.5 (Qwen2.5-Coder): Llama's architecture with biases on q, k and v.
 * Sources: transformers `models/qwen2/modeling_qwen2.py`; llama.cpp `convert_hf_to_gguf.py` (Qwen2Model).
 */
import { z } from 'zod';
import { invalidInput } from '../../errors.ts';
import type { GgufKeys } from '../../formats/ggufMetadata.ts';
import { limits } from '../../limits.ts';
import { checkedSpec, type DecoderSpec, type LayerSpec } from '../spec/spec.ts';
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
  size,
} from './config.ts';
import { type FamilyBuilder, groupedQueryAttention, type HeadSizes, swiGlu, usualWeights } from './family.ts';

export const qwenWindowFields = {
  use_sliding_window: optional(z.boolean()),
  sliding_window: optional(size(limits.model.contextTokens)),
  max_window_layers: optional(z.number().int().min(0)),
  layer_types: optional(z.array(z.string()).max(limits.model.layers)),
};

const qwen2Config = z.looseObject({ ...decoderFields, ...qwenWindowFields });

const qwen2Layer = (sizes: HeadSizes, intermediateSize: number, slidingWindow?: number): LayerSpec => ({
  attention: groupedQueryAttention(sizes, { bias: { qkv: true, output: false }, slidingWindow }),
  feedForward: swiGlu(intermediateSize),
});

/**
 * One entry a layer; undefined: full attention. No published model enables a window; `sliding_window` alone doesn't.
 */
export function qwenSlidingWindows(config: {
  readonly num_hidden_layers: number;
  readonly use_sliding_window?: boolean | undefined;
  readonly sliding_window?: number | undefined;
  readonly max_window_layers?: number | undefined;
  readonly layer_types?: readonly string[] | undefined;
}): (number | undefined)[] {
  return Array.from({ length: config.num_hidden_layers }, (_, layer) => {
    if (config.use_sliding_window !== true) return undefined;
    if (config.sliding_window === undefined) throw invalidInput('config.json, key sliding_window is missing.');
    const type = config.layer_types?.[layer];
    if (type) requireValue(`layer_types.${layer}`, type, 'full_attention', 'sliding_attention');
    // The first `max_window_layers` layers use full attention; 28 is transformers' default.
    const slides = type ? type === 'sliding_attention' : layer >= (config.max_window_layers ?? 28);
    return slides ? config.sliding_window : undefined;
  });
}

function specFromConfig(config: unknown): DecoderSpec {
  const parsed = parseConfig(qwen2Config, config);
  requireSiluActivation(parsed);
  const sizes = configSizes(parsed);
  const rope = ropeFromConfig(parsed, { dimensions: sizes.headDim, layout: 'half-split' });
  return checkedSpec({
    family: 'qwen2',
    ...configOuterFields(parsed, rope),
    layers: qwenSlidingWindows(parsed).map((window) =>
      qwen2Layer({ ...sizes, rope }, parsed.intermediate_size, window),
    ),
  });
}

async function specFromGguf(keys: GgufKeys, gguf: GgufSource): Promise<DecoderSpec> {
  const sizes = ggufSizes(keys, gguf);
  const { headDim: dimensions, contextTokens } = sizes;
  const rope = ropeFromGguf(keys, { dimensions, layout: 'half-split', contextTokens, yarnTruncate: true });
  return checkedSpec({
    family: 'qwen2',
    ...ggufOuterFields(sizes, rope),
    layers: Array.from({ length: sizes.numLayers }, () => qwen2Layer({ ...sizes, rope }, sizes.intermediateSize)),
  });
}

export const qwen2: FamilyBuilder = {
  modelTypes: ['qwen2'],
  ggufArchitecture: 'qwen2',
  // Qwen2.5-Coder's generation_config.json.
  sampling: { temperature: 0.7, topP: 0.8, topK: 20, repetitionPenalty: 1.1 },
  specFromConfig,
  specFromGguf,
  ...usualWeights,
};
