/** Lists every weight that a spec requires, by role and shape, without a file: to count parameters and plan memory. */

import { z } from 'zod';
import type { TensorType } from '../../formats/tensor.ts';
import { blockLayout, byteLengthOf, elementCountOf } from '../../formats/tensor.ts';
import { fp8BlockOf, optional, parseConfig, quantisationMethodOf } from '../families/config.ts';
import { isOriginal } from '../families/gptOss.ts';
import type { WeightGroup } from '../spec/describe.ts';
import type {
  AttentionSpec,
  DecoderSpec,
  ExpertsSpec,
  FeedForwardSpec,
  GatedDeltaSpec,
  GroupedQueryAttentionSpec,
  LatentAttentionSpec,
} from '../spec/spec.ts';
import { convolutionChannels, normsOf, qkNormWidths } from '../spec/spec.ts';
import type {
  AttentionWeights,
  DecoderWeights,
  DenseWeights,
  FeedForwardWeights,
  LayerNorms,
  Linear,
  Weight,
} from './weights.ts';
import { mapNorms } from './weights.ts';

// The weights of an opened decoder by role, layer by layer: for load progress and model cards.

export type WeightRole = 'embedding' | 'attention' | 'feed-forward' | 'routed-experts' | 'norm' | 'head';

export interface ListedWeight {
  readonly role: WeightRole;
  readonly weight: Weight;
}

/** A tied matrix is listed once, as the head. */
export function listWeights(weights: DecoderWeights): ListedWeight[] {
  const tied = weights.head === weights.embedding;
  return [
    ...(tied ? [] : [{ role: 'embedding', weight: weights.embedding } as const]),
    ...weights.layers.flatMap((layer) => [
      ...normWeights(layer),
      ...attentionWeights(layer.attention),
      ...feedForwardWeights(layer.feedForward),
    ]),
    { role: 'norm', weight: weights.finalNorm },
    { role: 'head', weight: weights.head },
  ];
}

function normWeights(norms: LayerNorms<Weight>): ListedWeight[] {
  const found: Weight[] = [];
  mapNorms(norms, (norm) => found.push(norm));
  return as('norm', ...found);
}

function attentionWeights(attention: AttentionWeights): ListedWeight[] {
  if (attention.kind === 'latent') {
    const { queryDown, queryNorm, queryUp, keyValueDown, keyValueNorm, keyUp, valueUp, output } = attention;
    return [
      ...as('attention', queryDown, queryUp, keyValueDown, keyUp.weight, valueUp, output),
      ...as('norm', queryNorm, keyValueNorm),
    ];
  }
  if (attention.kind === 'gated-delta') {
    const { query, key, value, gate, beta, decay, convolution, output, norm, decayBias, decayRate } = attention;
    return [
      ...as('attention', query, key, value, gate, beta, decay, convolution, output, decayBias, decayRate),
      ...as('norm', norm),
    ];
  }
  const { query, key, value, gate, output, queryNorm, keyNorm, sinks } = attention;
  return [
    ...[query, key, value, ...(gate ? [gate] : []), output].flatMap((linear) => linearAs('attention', linear)),
    ...as('attention', sinks),
    ...as('norm', queryNorm, keyNorm),
  ];
}

function feedForwardWeights(feedForward: FeedForwardWeights): ListedWeight[] {
  if (feedForward.kind === 'dense') return denseWeights(feedForward);
  if (feedForward.kind === 'plain') {
    return [feedForward.up, feedForward.down].flatMap((linear) => linearAs('feed-forward', linear));
  }
  const { router, selectionBias, gate, up, down, shared, sharedGate } = feedForward;
  return [
    ...linearAs('feed-forward', router),
    ...as('feed-forward', selectionBias),
    ...[gate, up, down].flatMap((linear) => linearAs('routed-experts', linear)),
    ...(shared ? denseWeights(shared) : []),
    ...as('feed-forward', sharedGate),
  ];
}

function denseWeights({ gate, up, down }: DenseWeights): ListedWeight[] {
  return as('feed-forward', gate, up, down);
}

function linearAs(role: WeightRole, { weight, bias }: Linear): ListedWeight[] {
  return as(role, weight, bias);
}

function as(role: WeightRole, ...weights: readonly (Weight | undefined)[]): ListedWeight[] {
  return weights.flatMap((weight) => (weight ? [{ role, weight }] : []));
}

export interface SpecTensor {
  readonly role: WeightRole;
  /** Parts that quantisers treat differently. `vector`: a norm, bias or sinks; for experts one row each. */
  readonly part: 'matrix' | 'value' | 'down' | 'router' | 'selection-bias' | 'vector';
  readonly shape: readonly number[];
  /** Absent for tensors outside the layers. */
  readonly layer?: number;
}

type LayerTensor = Omit<SpecTensor, 'layer'>;

/** A tied matrix is listed once, as the head, like in `listWeights`. */
export function specTensors({
  vocabularySize,
  hiddenSize,
  tiedEmbeddings,
  norm: kind,
  layers,
}: DecoderSpec): SpecTensor[] {
  const matrix = { part: 'matrix', shape: [vocabularySize, hiddenSize] } as const;
  const norm = vector('norm', ...(kind === 'layer' ? [2] : []), hiddenSize);
  return [
    ...(tiedEmbeddings ? [] : [{ role: 'embedding', ...matrix } as const]),
    ...layers.flatMap((spec, layer) => {
      const norms = Array.from({ length: normsOf(spec) }, () => norm);
      const { attention, feedForward } = spec;
      const blocks = [...attentionTensors(attention, hiddenSize), ...feedForwardTensors(feedForward, hiddenSize)];
      return [...norms, ...blocks].map((tensor) => ({ ...tensor, layer }));
    }),
    norm,
    { role: 'head', ...matrix },
  ];
}

const vector = (role: WeightRole, ...shape: readonly number[]): LayerTensor => ({ role, part: 'vector', shape });

function attentionTensors(attention: AttentionSpec, hidden: number): LayerTensor[] {
  if (attention.kind === 'gated-delta') return gatedDeltaTensors(attention, hidden);
  return attention.kind === 'latent' ? latentTensors(attention, hidden) : groupedQueryTensors(attention, hidden);
}

function gatedDeltaTensors(attention: GatedDeltaSpec, hidden: number): LayerTensor[] {
  const { numKeyHeads, numValueHeads: heads, keyHeadDim, valueHeadDim, convolutionTokens } = attention;
  const role = 'attention';
  const [keyWidth, valueWidth] = [numKeyHeads * keyHeadDim, heads * valueHeadDim];
  return [
    ...[keyWidth, keyWidth, valueWidth, valueWidth, heads, heads].map(
      (rows): LayerTensor => ({ role, part: 'matrix', shape: [rows, hidden] }),
    ),
    vector(role, convolutionChannels(attention), convolutionTokens),
    { role, part: 'matrix', shape: [hidden, valueWidth] },
    ...[vector(role, heads), vector(role, heads), vector('norm', valueHeadDim)],
  ];
}

function groupedQueryTensors(attention: GroupedQueryAttentionSpec, hidden: number): LayerTensor[] {
  const { numAttentionHeads, numKeyValueHeads, headDim, bias, qkNorm, sinks, outputGate } = attention;
  const normWidths = qkNormWidths(attention);
  const role = 'attention';
  const [queryWidth, keyWidth] = [numAttentionHeads * headDim, numKeyValueHeads * headDim];
  return [
    { role, part: 'matrix', shape: [queryWidth, hidden] },
    ...(outputGate ? [{ role, part: 'matrix', shape: [queryWidth, hidden] } as const] : []),
    { role, part: 'matrix', shape: [keyWidth, hidden] },
    { role, part: 'value', shape: [keyWidth, hidden] },
    { role, part: 'matrix', shape: [hidden, queryWidth] },
    ...(bias.qkv ? [queryWidth, keyWidth, keyWidth].map((width) => vector(role, width)) : []),
    ...(bias.output ? [vector(role, hidden)] : []),
    ...(qkNorm ? normWidths.map((width) => vector('norm', width)) : []),
    ...(sinks ? [vector(role, numAttentionHeads)] : []),
  ];
}

function latentTensors(attention: LatentAttentionSpec, hidden: number): LayerTensor[] {
  const { numAttentionHeads: heads, queryRank, keyValueRank, nopeHeadDim, ropeHeadDim, valueHeadDim } = attention;
  const queryWidth = heads * (nopeHeadDim + ropeHeadDim);
  const matrix = (...shape: readonly number[]): LayerTensor => ({ role: 'attention', part: 'matrix', shape });
  return [
    ...(queryRank === undefined ? [] : [matrix(queryRank, hidden), vector('norm', queryRank)]),
    matrix(queryWidth, queryRank ?? hidden),
    matrix(keyValueRank + ropeHeadDim, hidden),
    vector('norm', keyValueRank),
    // One matrix holds the key and value up-projections of all heads (kv_b_proj).
    matrix(heads * (nopeHeadDim + valueHeadDim), keyValueRank),
    matrix(hidden, heads * valueHeadDim),
  ];
}

function feedForwardTensors(feedForward: FeedForwardSpec, hidden: number): LayerTensor[] {
  if (feedForward.kind === 'experts') return expertTensors(feedForward, hidden);
  const { kind, intermediateSize } = feedForward;
  const role = 'feed-forward';
  if (kind === 'dense') return gatedTensors(role, [], intermediateSize, hidden);
  return [
    { role, part: 'matrix', shape: [intermediateSize, hidden] },
    { role, part: 'down', shape: [hidden, intermediateSize] },
    vector(role, intermediateSize),
    vector(role, hidden),
  ];
}

function expertTensors(spec: ExpertsSpec, hidden: number): LayerTensor[] {
  const { numExperts, intermediateSize, router, bias, sharedIntermediateSize } = spec;
  const biases = [intermediateSize, intermediateSize, hidden];
  return [
    { role: 'feed-forward', part: 'router', shape: [numExperts, hidden] },
    ...(bias ? [vector('feed-forward', numExperts)] : []),
    ...(router.kind === 'sigmoid-grouped' ? [selectionBias(numExperts)] : []),
    ...gatedTensors('routed-experts', [numExperts], intermediateSize, hidden),
    ...(bias ? biases.map((width) => vector('routed-experts', numExperts, width)) : []),
    ...(sharedIntermediateSize === undefined ? [] : gatedTensors('feed-forward', [], sharedIntermediateSize, hidden)),
    ...(spec.sharedGate ? [vector('feed-forward', 1, hidden)] : []),
  ];
}

const selectionBias = (experts: number): LayerTensor => ({
  role: 'feed-forward',
  part: 'selection-bias',
  shape: [experts],
});

function gatedTensors(role: WeightRole, stack: readonly number[], intermediate: number, hidden: number): LayerTensor[] {
  return [
    { role, part: 'matrix', shape: [...stack, intermediate, hidden] },
    { role, part: 'matrix', shape: [...stack, intermediate, hidden] },
    { role, part: 'down', shape: [...stack, hidden, intermediate] },
  ];
}

// Predicts the tensor types of a checkpoint from the name of its quantisation, before it is downloaded. GGUF: follows
// llama.cpp `llama_tensor_get_type` (src/llama-quant.cpp) for dense and many-expert decoders.

/** Publishers' names: safetensors as plain floats, MXFP4 or FP8 with block scales; GGUF file types. */
export const storages = ['F32', 'F16', 'BF16', 'MXFP4', 'FP8', 'Q4_1', 'Q8_0', 'Q4_K_M'] as const;
export type Storage = (typeof storages)[number];

type Fp8Block = readonly [rows: number, columns: number];
/** Used by DeepSeek's and Qwen's checkpoints. */
const publishedFp8Block: Fp8Block = [128, 128];

const floatFields = z.looseObject({ dtype: optional(z.string()), torch_dtype: optional(z.string()) });

/** The weight groups that `describeModel` will find in the file: types and bytes by role. */
export function plannedGroups(
  spec: DecoderSpec,
  storage: Storage,
  fp8Block: Fp8Block = publishedFp8Block,
): WeightGroup[] {
  const groups = new Map<string, WeightGroup>();
  for (const tensor of specTensors(spec)) {
    const type = storedType(storage, spec, tensor);
    const key = `${tensor.role} ${type}`;
    const { parameters = 0, bytes = 0 } = groups.get(key) ?? {};
    const scaleBytes = type === 'F8_E4M3' ? blockScaleBytes(tensor.shape, fp8Block) : 0;
    groups.set(key, {
      role: tensor.role,
      type,
      parameters: parameters + elementCountOf(tensor.shape),
      bytes: bytes + byteLengthOf(type, tensor.shape) + scaleBytes,
    });
  }
  return [...groups.values()];
}

function storedType(storage: Storage, spec: DecoderSpec, tensor: SpecTensor): TensorType {
  const { role, part } = tensor;
  // DeepSeek-V3 publishes e_score_correction_bias in F32 among BF16 and FP8.
  if (part === 'selection-bias') return 'F32';
  switch (storage) {
    case 'F32':
    case 'F16':
    case 'BF16':
      return storage;
    // `modules_to_not_convert` of GPT-OSS lists attention, router, embedding and head.
    case 'MXFP4':
      return role === 'routed-experts' && part !== 'vector' ? 'MXFP4' : 'BF16';
    case 'FP8':
      return eightBitFloatType(tensor);
    case 'Q4_1':
    case 'Q8_0':
    case 'Q4_K_M':
      return ggufType(storage, spec, tensor);
  }
}

/** As in DeepSeek-V3's README_WEIGHTS.md; Qwen's FP8 checkpoints exclude the same tensors. */
function eightBitFloatType({ role, part }: SpecTensor): TensorType {
  const isMatrix = part !== 'vector' && part !== 'router';
  return isMatrix && role !== 'embedding' && role !== 'head' ? 'F8_E4M3' : 'BF16';
}

function ggufType(storage: 'Q4_1' | 'Q8_0' | 'Q4_K_M', spec: DecoderSpec, tensor: SpecTensor): TensorType {
  if (tensor.part === 'vector' || tensor.part === 'router') return 'F32';
  if (storage === 'Q8_0') return 'Q8_0';
  const wholeBlocks = (tensor.shape.at(-1) ?? 0) % blockLayout('Q6_K').elements === 0;
  // The head is never quantised to 4 bits.
  if (tensor.role === 'head') return wholeBlocks ? 'Q6_K' : 'Q8_0';
  if (storage === 'Q4_1') return 'Q4_1';
  const takesMore = (tensor.part === 'value' || tensor.part === 'down') && usesMoreBits(spec, tensor.layer ?? 0);
  if (takesMore) return wholeBlocks ? 'Q6_K' : 'Q8_0';
  return wholeBlocks ? 'Q4_K' : 'Q5_0';
}

/** `use_more_bits`: the first and last eighth of the layers, and every third in between. */
function usesMoreBits({ layers: { length } }: DecoderSpec, layer: number): boolean {
  const eighth = Math.floor(length / 8);
  return layer < eighth || layer >= Math.floor((7 * length) / 8) || (layer - eighth) % 3 === 2;
}

/** One f32 a block (`weight_block_size`). */
function blockScaleBytes(shape: readonly number[], [blockRows, blockColumns]: Fp8Block): number {
  const [rows = 1, columns = 1] = shape.slice(-2);
  const matrices = elementCountOf(shape.slice(0, -2));
  return 4 * matrices * Math.ceil(rows / blockRows) * Math.ceil(columns / blockColumns);
}

const floatTypes: Readonly<Record<string, Storage>> = { float32: 'F32', float16: 'F16', bfloat16: 'BF16' };

interface StatedStorage {
  readonly storage: Storage;
  readonly fp8Block?: Fp8Block;
  /** True if the configuration doesn't say, and the usual one is assumed. */
  readonly assumed: boolean;
}

/**
 * The quantisation of the checkpoint that a config.json describes.
 * @throws HearthError `unsupported` for quantisation methods without kernels.
 */
export function storageOfConfig(config: unknown): StatedStorage {
  if (isOriginal(config) || quantisationMethodOf(config) === 'mxfp4') return { storage: 'MXFP4', assumed: false };
  const fp8Block = fp8BlockOf(config);
  if (fp8Block) return { storage: 'FP8', fp8Block, assumed: false };
  // transformers 5 writes `dtype`, 4 wrote `torch_dtype`.
  const { dtype, torch_dtype } = parseConfig(floatFields, config);
  const storage = floatTypes[dtype ?? torch_dtype ?? ''];
  return { storage: storage ?? 'BF16', assumed: storage === undefined };
}
