/**
 * Finds tensors by their published names. Errors name a tensor that is missing, misshapen or of an unsupported type.
 */
import { invalidInput, unsupported } from '../../errors.ts';
import { dequantise } from '../../formats/dequantise.ts';
import type { TensorFile, TensorInfo, TensorType } from '../../formats/tensor.ts';
import type { Linear, Weight } from './weights.ts';
import { storedWeight } from './weightViews.ts';

export interface TensorTable {
  readonly file: TensorFile;
  has(name: string): boolean;
  /** @throws HearthError `invalid-input` if the tensor is missing or its shape differs. */
  info(name: string, shape: readonly number[]): TensorInfo;
  /** `as`: the same elements in another shape whose rows are whole blocks. */
  weight(name: string, shape: readonly number[], as?: readonly number[]): Weight;
  /** `stem.weight`, and `stem.bias` if `bias` is true. */
  linear(stem: string, shape: readonly [out: number, input: number], bias: boolean): Linear;
}

const computedTypes: ReadonlySet<TensorType> = new Set<TensorType>([
  ...(['F64', 'F32', 'F16', 'BF16', 'F8_E4M3', 'MXFP4', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0'] as const),
  ...(['Q2_K', 'Q3_K', 'Q4_K', 'Q5_K', 'Q6_K', 'IQ4_NL', 'IQ4_XS'] as const),
]);

/** Size of the blocks of F8_E4M3 weights that share a scale. */
type Fp8Block = readonly [rows: number, columns: number];

export function tensorTable(file: TensorFile, fp8Block?: Fp8Block): TensorTable {
  const info = (name: string, shape: readonly number[]): TensorInfo => {
    const found = file.tensors.get(name);
    if (!found) throw invalidInput(`The checkpoint has no tensor ${name}. Is a shard missing?`);
    if (found.shape.join() !== shape.join()) {
      throw invalidInput(
        `Tensor ${name} is [${found.shape.join(', ')}]; its configuration says [${shape.join(', ')}].`,
      );
    }
    return found;
  };
  const weight = (name: string, shape: readonly number[], as = shape): Weight => {
    const { type } = info(name, shape);
    if (!computedTypes.has(type))
      throw unsupported(`Tensor ${name} has type ${type}, which Hearth doesn't support for weights.`);
    const stored = storedWeight(file, name, type, as);
    return type === 'F8_E4M3' ? withBlockScale(file, stored, info, fp8Block) : stored;
  };
  return {
    file,
    has: (name) => file.tensors.has(name),
    info,
    weight,
    linear: (stem, shape, bias) => ({
      weight: weight(`${stem}.weight`, shape),
      ...(bias && { bias: weight(`${stem}.bias`, [shape[0]]) }),
    }),
  };
}

function withBlockScale(
  file: TensorFile,
  stored: Weight,
  find: TensorTable['info'],
  fp8Block: Fp8Block | undefined,
): Weight {
  if (!fp8Block) {
    throw invalidInput(`Tensor ${stored.name} is FP8, but quantization_config.weight_block_size is missing.`);
  }
  const [blockRows, blockColumns] = fp8Block;
  const [rows = 1, columns = 1] = stored.shape;
  // The name says "inverse", but values are multiplied by it (DeepSeek's inference/kernel.py, weight_dequant).
  const name = `${stored.name}_scale_inv`;
  const { type } = find(name, [Math.ceil(rows / blockRows), Math.ceil(columns / blockColumns)]);
  const read = async () => dequantise(type, await file.read(name));
  return { ...stored, blockScale: { blockRows, blockColumns, read } };
}

// Tensor names. Hugging Face names come from transformers' module tree, GGUF names from llama.cpp's
// `gguf-py/gguf/constants.py`. A family spreads a table and overrides the names that differ.

export interface DecoderNames {
  readonly embedding: string;
  readonly finalNorm: string;
  readonly head: string;
  layer(index: number): LayerNames;
}

/** Linear layers are stems, completed by `.weight` and `.bias`. Norms and sinks are full names. */
export interface LayerNames {
  readonly attentionNorm: string;
  readonly query: string;
  readonly key: string;
  readonly value: string;
  readonly output: string;
  readonly queryNorm: string;
  readonly keyNorm: string;
  readonly sinks: string;
  readonly feedForwardNorm: string;
  /** Of families with `postNorms`. */
  readonly attentionPostNorm?: string;
  readonly feedForwardPostNorm?: string;
  readonly gate: string;
  readonly up: string;
  readonly down: string;
  readonly router: string;
}

export const huggingFaceNames: DecoderNames = {
  embedding: 'model.embed_tokens.weight',
  finalNorm: 'model.norm.weight',
  head: 'lm_head.weight',
  layer(index) {
    const layer = `model.layers.${index}`;
    return {
      attentionNorm: `${layer}.input_layernorm.weight`,
      query: `${layer}.self_attn.q_proj`,
      key: `${layer}.self_attn.k_proj`,
      value: `${layer}.self_attn.v_proj`,
      output: `${layer}.self_attn.o_proj`,
      queryNorm: `${layer}.self_attn.q_norm.weight`,
      keyNorm: `${layer}.self_attn.k_norm.weight`,
      sinks: `${layer}.self_attn.sinks`,
      feedForwardNorm: `${layer}.post_attention_layernorm.weight`,
      gate: `${layer}.mlp.gate_proj`,
      up: `${layer}.mlp.up_proj`,
      down: `${layer}.mlp.down_proj`,
      router: `${layer}.mlp.gate`,
    };
  },
};

export const ggufNames: DecoderNames = {
  embedding: 'token_embd.weight',
  finalNorm: 'output_norm.weight',
  head: 'output.weight',
  layer(index) {
    const layer = `blk.${index}`;
    return {
      attentionNorm: `${layer}.attn_norm.weight`,
      query: `${layer}.attn_q`,
      key: `${layer}.attn_k`,
      value: `${layer}.attn_v`,
      output: `${layer}.attn_output`,
      queryNorm: `${layer}.attn_q_norm.weight`,
      keyNorm: `${layer}.attn_k_norm.weight`,
      sinks: `${layer}.attn_sinks.weight`,
      feedForwardNorm: `${layer}.ffn_norm.weight`,
      attentionPostNorm: `${layer}.post_attention_norm.weight`,
      feedForwardPostNorm: `${layer}.post_ffw_norm.weight`,
      gate: `${layer}.ffn_gate`,
      up: `${layer}.ffn_up`,
      down: `${layer}.ffn_down`,
      router: `${layer}.ffn_gate_inp`,
    };
  },
};
