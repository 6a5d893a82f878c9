/**
 * Locates GPT-OSS's weights in its three published layouts. MXFP4 isn't requantised: rows are selected and blocks
 * reordered, values stay the same.
 */
import { unsupported } from '../../errors.ts';
import type { TensorFile } from '../../formats/tensor.ts';
import type { DecoderSpec, ExpertsSpec } from '../spec/spec.ts';
import {
  type DecoderNames,
  decoderWeights,
  expertsOf,
  ggufExperts,
  ggufNames,
  groupedQuery,
  groupedQueryWeights,
  huggingFaceNames,
  type LayerContext,
  normsAndSinks,
  routerOf,
  selectedBias,
  type TensorTable,
  tensorTable,
} from '../weights/decoderWeights.ts';
import type { DecoderWeights, ExpertsWeights, GroupedQueryWeights, Linear, Weight } from '../weights/weights.ts';
import { columnsOf, type RowSelection, selectRows, transposedWeight } from '../weights/weightViews.ts';

/** Gate and up rows alternate. */
const gateRows: RowSelection = { period: 2, offset: 0, length: 1 };
const upRows: RowSelection = { period: 2, offset: 1, length: 1 };

const gptOssHuggingFaceNames: DecoderNames = {
  ...huggingFaceNames,
  layer: (index) => ({ ...huggingFaceNames.layer(index), router: `model.layers.${index}.mlp.router` }),
};

export function gptOssFromHuggingFace(spec: DecoderSpec, file: TensorFile): DecoderWeights {
  return decoderWeights(spec, tensorTable(file), gptOssHuggingFaceNames, {
    attention: groupedQueryWeights,
    feedForward(context) {
      const stem = `model.layers.${context.index}.mlp.experts`;
      return interleavedExperts(context, {
        gateUp: (shape) => expertMatrices(context.table, `${stem}.gate_up_proj`, shape),
        gateUpBias: `${stem}.gate_up_proj_bias`,
        down: (shape) => expertMatrices(context.table, `${stem}.down_proj`, shape),
        downBias: `${stem}.down_proj_bias`,
      });
    },
  });
}

/** MXFP4 as published, or floats as saved by transformers: `[experts, in, out]`, without a suffix. */
function expertMatrices(table: TensorTable, stem: string, shape: ExpertShape): Weight {
  if (table.has(`${stem}_blocks`)) {
    return mxfp4Matrices(table, { blocks: `${stem}_blocks`, scales: `${stem}_scales` }, shape);
  }
  const [experts, outputs, inputs] = shape;
  return transposedWeight(table.weight(stem, [experts, inputs, outputs]));
}

const originalNames: DecoderNames = {
  embedding: 'embedding.weight',
  finalNorm: 'norm.scale',
  head: 'unembedding.weight',
  layer(index) {
    const block = `block.${index}`;
    return {
      ...huggingFaceNames.layer(index),
      attentionNorm: `${block}.attn.norm.scale`,
      output: `${block}.attn.out`,
      sinks: `${block}.attn.sinks`,
      feedForwardNorm: `${block}.mlp.norm.scale`,
      router: `${block}.mlp.gate`,
    };
  },
};

export function gptOssFromOriginal(spec: DecoderSpec, file: TensorFile): DecoderWeights {
  return decoderWeights(spec, tensorTable(file), originalNames, {
    attention: originalAttention,
    feedForward(context) {
      const stem = `block.${context.index}.mlp`;
      const matrices = (name: string) => (shape: ExpertShape) =>
        mxfp4Matrices(context.table, { blocks: `${stem}.${name}.blocks`, scales: `${stem}.${name}.scales` }, shape);
      return interleavedExperts(context, {
        gateUp: matrices('mlp1_weight'),
        gateUpBias: `${stem}.mlp1_bias`,
        down: matrices('mlp2_weight'),
        downBias: `${stem}.mlp2_bias`,
      });
    },
  });
}

/** `attn.qkv` contains the rows of q, then k, then v. */
function originalAttention({ table, spec, layer, index, names }: LayerContext): GroupedQueryWeights {
  const attention = groupedQuery(layer);
  const queryWidth = attention.numAttentionHeads * attention.headDim;
  const keyWidth = attention.numKeyValueHeads * attention.headDim;
  const period = queryWidth + 2 * keyWidth;
  const stem = `block.${index}.attn.qkv`;
  const weight = table.weight(`${stem}.weight`, [period, spec.hiddenSize]);
  const part = (offset: number, length: number): Linear => {
    const rows = { period, offset, length };
    return {
      weight: selectRows(weight, rows, [length, spec.hiddenSize]),
      bias: selectedBias(table, `${stem}.bias`, { stored: [period], selection: rows, shape: [length] }),
    };
  };
  return {
    kind: 'grouped-query',
    query: part(0, queryWidth),
    key: part(queryWidth, keyWidth),
    value: part(queryWidth + keyWidth, keyWidth),
    output: table.linear(names.output, [spec.hiddenSize, queryWidth], true),
    ...normsAndSinks(table, names, attention),
  };
}

const gptOssGgufNames: DecoderNames = {
  ...ggufNames,
  // Not ffn_norm, although it precedes the experts: llama.cpp kept transformers' name.
  layer: (index) => ({ ...ggufNames.layer(index), feedForwardNorm: `blk.${index}.post_attention_norm.weight` }),
};

export function gptOssFromGguf(spec: DecoderSpec, file: TensorFile): DecoderWeights {
  return decoderWeights(spec, tensorTable(file), gptOssGgufNames, {
    attention: groupedQueryWeights,
    feedForward(context) {
      const experts = expertsOf(context);
      return { kind: 'experts', router: routerOf(context, experts), ...ggufExperts(context, experts) };
    },
  });
}

type ExpertShape = readonly [experts: number, outputs: number, inputs: number];

interface InterleavedTensors {
  readonly gateUp: (shape: ExpertShape) => Weight;
  readonly gateUpBias: string;
  readonly down: (shape: ExpertShape) => Weight;
  readonly downBias: string;
}

function interleavedExperts(context: LayerContext, tensors: InterleavedTensors): ExpertsWeights {
  const { table, spec } = context;
  const experts: ExpertsSpec = expertsOf(context);
  const { numExperts, intermediateSize } = experts;
  const { hiddenSize } = spec;
  const gateUp = tensors.gateUp([numExperts, 2 * intermediateSize, hiddenSize]);
  const half = (selection: RowSelection): Linear => ({
    weight: selectRows(gateUp, selection, [numExperts, intermediateSize, hiddenSize]),
    bias: selectedBias(table, tensors.gateUpBias, {
      stored: [numExperts, 2 * intermediateSize],
      selection,
      shape: [numExperts, intermediateSize],
    }),
  });
  return {
    kind: 'experts',
    router: routerOf(context, experts),
    gate: half(gateRows),
    up: half(upRows),
    down: {
      weight: tensors.down([numExperts, hiddenSize, intermediateSize]),
      bias: table.weight(tensors.downBias, [numExperts, hiddenSize]),
    },
  };
}

function mxfp4Matrices(
  table: TensorTable,
  names: { readonly blocks: string; readonly scales: string },
  [experts, outputs, inputs]: ExpertShape,
): Weight {
  const { type } = table.info(names.blocks, [experts, outputs, inputs / 32, 16]);
  const scales = table.info(names.scales, [experts, outputs, inputs / 32]);
  for (const [name, each] of [
    [names.blocks, type],
    [names.scales, scales.type],
  ]) {
    if (each !== 'U8') throw unsupported(`Tensor ${name} has type ${each}, but MXFP4 is published as U8.`);
  }
  return publishedMxfp4(table.file, names, [experts, outputs, inputs]);
}

// Converts published MXFP4 (separate blocks and scales) to ggml's 17-byte blocks: the same bits in another order.

const blockElements = 32;
const publishedBlockBytes = 16;
const ggmlBlockBytes = 17;

/**
 * `blocks` U8 `[experts, rows, columns / 32, 16]` and `scales` U8 `[experts, rows, columns / 32]` as a weight of
 * `shape`.
 */
function publishedMxfp4(
  file: TensorFile,
  names: { readonly blocks: string; readonly scales: string },
  shape: readonly number[],
): Weight {
  const rowBlocks = columnsOf(shape) / blockElements;
  return {
    name: names.blocks,
    type: 'MXFP4',
    shape,
    async readRows(start, count) {
      const first = start * rowBlocks;
      const blockCount = count * rowBlocks;
      const [blocks, scales] = await Promise.all([
        file.read(names.blocks, first * publishedBlockBytes, blockCount * publishedBlockBytes),
        file.read(names.scales, first, blockCount),
      ]);
      return toGgmlBlocks(blocks, scales);
    },
  };
}

/**
 * Published byte j holds elements 2j (low nibble) and 2j + 1 (high nibble). A ggml block is the scale byte, then bytes
 * with elements j and j + 16 (openai/gpt-oss gpt_oss/torch/weights.py; ggml-common.h block_mxfp4).
 */
export function toGgmlBlocks(blocks: Uint8Array, scales: Uint8Array): Uint8Array {
  const out = new Uint8Array(scales.length * ggmlBlockBytes);
  for (let block = 0; block < scales.length; block++) {
    const from = block * publishedBlockBytes;
    let to = block * ggmlBlockBytes;
    out[to++] = scales[block] ?? 0;
    for (let j = 0; j < 8; j++) {
      const front = blocks[from + j] ?? 0;
      const back = blocks[from + j + 8] ?? 0;
      out[to++] = (front & 0x0f) | ((back & 0x0f) << 4);
      out[to++] = (front >> 4) | (back & 0xf0);
    }
  }
  return out;
}
