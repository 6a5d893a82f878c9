/**
 * Predicts the tensor types of a checkpoint from the name of its quantisation, before it is downloaded. GGUF: follows
 * llama.cpp `llama_tensor_get_type` (src/llama-quant.cpp) for dense and many-expert decoders.
 */
import { z } from 'zod';
import { blockLayout, byteLengthOf, elementCountOf } from '../../formats/blocks.ts';
import type { TensorType } from '../../formats/tensor.ts';
import { fp8BlockOf, optional, parseConfig, quantisationMethodOf } from '../families/config.ts';
import { isOriginal } from '../families/gptOss.ts';
import type { WeightGroup } from '../spec/describe.ts';
import type { DecoderSpec } from '../spec/spec.ts';
import { type SpecTensor, specTensors } from './specTensors.ts';

/** Publishers' names: safetensors as plain floats, MXFP4 or FP8 with block scales; GGUF file types. */
export const storages = ['F32', 'F16', 'BF16', 'MXFP4', 'FP8', 'Q4_1', 'Q8_0', 'Q4_K_M'] as const;
export type Storage = (typeof storages)[number];

export type Fp8Block = readonly [rows: number, columns: number];
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

export interface StatedStorage {
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
