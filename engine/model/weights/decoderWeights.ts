/**
 * Finds tensors by their published names. Errors name a tensor that is missing, or has a wrong shape or an unsupported
 * type.
 */
import { invalidInput, unsupported } from '../../errors.ts';
import { dequantise } from '../../formats/dequantise.ts';
import type { TensorFile, TensorInfo, TensorType } from '../../formats/tensor.ts';
import {
  type DecoderSpec,
  type DenseSpec,
  type ExpertsSpec,
  type GroupedQueryAttentionSpec,
  type LayerSpec,
  qkNormWidths,
} from '../spec/spec.ts';
import type {
  AttentionWeights,
  DecoderWeights,
  DenseWeights,
  ExpertsWeights,
  FeedForwardWeights,
  GroupedQueryWeights,
  LayerNorms,
  Linear,
  Weight,
} from './weights.ts';
import { mapNorms } from './weights.ts';
import { joinRows, type RowSelection, selectRows, stackedWeight, storedWeight } from './weightViews.ts';

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

/** Divisors of the rotary frequencies, if the file has the tensor. `[pairs]` */
export async function rotaryFactors(file: TensorFile, name: string, pairs: number): Promise<number[] | undefined> {
  if (!file.tensors.has(name)) return undefined;
  const { type } = tensorTable(file).info(name, [pairs]);
  return Array.from(dequantise(type, await file.read(name)));
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
interface LayerNames extends LayerNorms<string> {
  readonly query: string;
  readonly key: string;
  readonly value: string;
  readonly output: string;
  readonly queryNorm: string;
  readonly keyNorm: string;
  readonly sinks: string;
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
      gate: `${layer}.ffn_gate`,
      up: `${layer}.ffn_up`,
      down: `${layer}.ffn_down`,
      router: `${layer}.ffn_gate_inp`,
    };
  },
};

// The parts of a name table that families share: roles, tensor names and shapes.

export interface LayerContext {
  readonly table: TensorTable;
  readonly spec: DecoderSpec;
  readonly layer: LayerSpec;
  readonly index: number;
  readonly names: LayerNames;
}

/** Families with experts or latent attention supply their own. */
export interface LayerTables {
  attention(context: LayerContext): AttentionWeights;
  feedForward(context: LayerContext): FeedForwardWeights;
}

export const denseTables: LayerTables = { attention: groupedQueryWeights, feedForward: denseFeedForwardWeights };

export function decoderWeights(
  spec: DecoderSpec,
  table: TensorTable,
  names: DecoderNames,
  tables: LayerTables = denseTables,
): DecoderWeights {
  const { vocabularySize, hiddenSize } = spec;
  const embedding = table.weight(names.embedding, [vocabularySize, hiddenSize]);
  const norm = (name: string): Weight => {
    const gain = table.weight(name, [hiddenSize]);
    return spec.norm === 'layer'
      ? stackedWeight([gain, table.weight(name.replace(/weight$/, 'bias'), [hiddenSize])])
      : gain;
  };
  return {
    embedding,
    layers: spec.layers.map((layer, index) => {
      const context: LayerContext = { table, spec, layer, index, names: names.layer(index) };
      return {
        ...mapNorms(context.names, norm),
        attention: tables.attention(context),
        feedForward: tables.feedForward(context),
      };
    }),
    finalNorm: norm(names.finalNorm),
    head: spec.tiedEmbeddings ? embedding : table.weight(names.head, [vocabularySize, hiddenSize]),
  };
}

export function groupedQueryWeights({ table, spec, layer, names }: LayerContext): GroupedQueryWeights {
  const attention = groupedQuery(layer);
  const { bias, headDim } = attention;
  const queryWidth = attention.numAttentionHeads * headDim;
  const keyWidth = attention.numKeyValueHeads * headDim;
  return {
    kind: 'grouped-query',
    ...(attention.outputGate
      ? queryAndGate(table, names.query, [queryWidth, spec.hiddenSize], headDim)
      : { query: table.linear(names.query, [queryWidth, spec.hiddenSize], bias.qkv) }),
    key: table.linear(names.key, [keyWidth, spec.hiddenSize], bias.qkv),
    value: table.linear(names.value, [keyWidth, spec.hiddenSize], bias.qkv),
    output: table.linear(names.output, [spec.hiddenSize, queryWidth], bias.output),
    ...normsAndSinks(table, names, attention),
  };
}

/** One matrix holds for each head the rows of its query, then those of its gate (Qwen3-Next). */
function queryAndGate(
  table: TensorTable,
  stem: string,
  shape: readonly [rows: number, columns: number],
  headDim: number,
): { readonly query: Linear; readonly gate: Linear } {
  const both = table.weight(`${stem}.weight`, [2 * shape[0], shape[1]]);
  const half = (offset: number): Linear => ({
    weight: selectRows(both, { period: 2 * headDim, offset, length: headDim }, shape),
  });
  return { query: half(0), gate: half(headDim) };
}

export function normsAndSinks(
  table: TensorTable,
  names: Pick<LayerNames, 'queryNorm' | 'keyNorm' | 'sinks'>,
  attention: GroupedQueryAttentionSpec,
): Pick<GroupedQueryWeights, 'queryNorm' | 'keyNorm' | 'sinks'> {
  const [query, key] = qkNormWidths(attention);
  return {
    ...(attention.qkNorm && {
      queryNorm: table.weight(names.queryNorm, [query]),
      keyNorm: table.weight(names.keyNorm, [key]),
    }),
    ...(attention.sinks && { sinks: table.weight(names.sinks, [attention.numAttentionHeads]) }),
  };
}

function denseFeedForwardWeights({ table, spec, layer, names }: LayerContext): DenseWeights {
  if (layer.feedForward.kind !== 'dense')
    throw new Error('A family with experts must supply its own feed-forward table.');
  return denseWeights(table, spec.hiddenSize, layer.feedForward, names);
}

export function denseWeights(
  table: TensorTable,
  hiddenSize: number,
  { intermediateSize }: Pick<DenseSpec, 'intermediateSize'>,
  names: Pick<LayerNames, 'gate' | 'up' | 'down'>,
): DenseWeights {
  return {
    kind: 'dense',
    gate: table.weight(`${names.gate}.weight`, [intermediateSize, hiddenSize]),
    up: table.weight(`${names.up}.weight`, [intermediateSize, hiddenSize]),
    down: table.weight(`${names.down}.weight`, [hiddenSize, intermediateSize]),
  };
}

export function groupedQuery({ attention }: LayerSpec): GroupedQueryAttentionSpec {
  if (attention.kind !== 'grouped-query') throw new Error('A family with other attention must supply its own table.');
  return attention;
}

// Locates the weights of experts: one tensor an expert (Hugging Face), or all experts in one tensor (GGUF).

type ExpertLinears = Pick<ExpertsWeights, 'gate' | 'up' | 'down'>;

export function expertsOf({ layer }: LayerContext): ExpertsSpec {
  if (layer.feedForward.kind !== 'experts') throw new Error('A dense layer has no experts.');
  return layer.feedForward;
}

export function routerOf({ table, spec, names }: LayerContext, { numExperts, bias }: ExpertsSpec): Linear {
  return table.linear(names.router, [numExperts, spec.hiddenSize], bias);
}

/** `experts.E.gate_proj.weight`, one `[intermediate, hidden]` an expert. */
export function expertsApart(
  { table, spec }: LayerContext,
  experts: ExpertsSpec,
  prefix: string,
  names: Pick<LayerNames, 'gate' | 'up' | 'down'> = { gate: 'gate_proj', up: 'up_proj', down: 'down_proj' },
): ExpertLinears {
  const { numExperts, intermediateSize } = experts;
  const parts = Array.from({ length: numExperts }, (_, expert) =>
    denseWeights(
      table,
      spec.hiddenSize,
      { intermediateSize },
      {
        gate: `${prefix}.${expert}.${names.gate}`,
        up: `${prefix}.${expert}.${names.up}`,
        down: `${prefix}.${expert}.${names.down}`,
      },
    ),
  );
  return {
    gate: { weight: stackedWeight(parts.map(({ gate }) => gate)) },
    up: { weight: stackedWeight(parts.map(({ up }) => up)) },
    down: { weight: stackedWeight(parts.map(({ down }) => down)) },
  };
}

/** `blk.N.ffn_gate_exps` etc.: `[experts, intermediate, hidden]`; newer files may fuse gate and up. */
export function ggufExperts({ table, spec, index }: LayerContext, experts: ExpertsSpec): ExpertLinears {
  const { numExperts, intermediateSize, bias } = experts;
  const layer = `blk.${index}`;
  const stacked = (stem: string, rows: number, columns: number): Linear => ({
    weight: table.weight(`${stem}.weight`, [numExperts, rows, columns]),
    ...(bias && { bias: table.weight(`${stem}.bias`, [numExperts, rows]) }),
  });
  const down = stacked(`${layer}.ffn_down_exps`, spec.hiddenSize, intermediateSize);
  const fused = `${layer}.ffn_gate_up_exps`;
  if (table.has(`${fused}.weight`)) {
    // All gate rows of an expert, then all up rows (llama.cpp llama-graph.cpp, build_moe_ffn).
    const half = { period: 2 * intermediateSize, length: intermediateSize };
    const gate = expertRows(table, fused, experts, spec.hiddenSize, { ...half, offset: 0 });
    const up = expertRows(table, fused, experts, spec.hiddenSize, { ...half, offset: intermediateSize });
    return { gate, up, down };
  }
  return {
    gate: stacked(`${layer}.ffn_gate_exps`, intermediateSize, spec.hiddenSize),
    up: stacked(`${layer}.ffn_up_exps`, intermediateSize, spec.hiddenSize),
    down,
  };
}

function expertRows(
  table: TensorTable,
  stem: string,
  { numExperts, intermediateSize, bias }: ExpertsSpec,
  hiddenSize: number,
  selection: RowSelection,
): Linear {
  const both = table.weight(`${stem}.weight`, [numExperts, 2 * intermediateSize, hiddenSize]);
  return {
    weight: selectRows(both, selection, [numExperts, intermediateSize, hiddenSize]),
    ...(bias && {
      bias: selectedBias(table, `${stem}.bias`, {
        stored: [numExperts, 2 * intermediateSize],
        selection,
        shape: [numExperts, intermediateSize],
      }),
    }),
  };
}

/** The elements of a stored bias that belong to the selected rows, with the given shape. */
export function selectedBias(
  table: TensorTable,
  name: string,
  {
    stored,
    selection,
    shape,
  }: {
    readonly stored: readonly number[];
    readonly selection: RowSelection;
    readonly shape: readonly number[];
  },
): Weight {
  const count = (dimensions: readonly number[]) => dimensions.reduce((product, dimension) => product * dimension, 1);
  const elements = table.weight(name, stored, [count(stored), 1]);
  return joinRows(selectRows(elements, selection, [count(shape), 1]), shape);
}
