/** Matmuls with weights, embedding lookup and norms. */
import type { DecoderSpec } from '../../model/spec/spec.ts';
import type { Linear, Weight } from '../../model/weights/weights.ts';
import type { GraphBuilder, StoredTensor, Value } from './graphBuilder.ts';
import {
  allRows,
  gridOf,
  type StoredIntegers,
  type StoredMatrix,
  type WeightRows,
  type WeightsLayout,
} from './weightsFile.ts';

/** Shared by the functions that build parts of the graph. */
export interface GraphContext {
  readonly graph: GraphBuilder;
  readonly layout: WeightsLayout;
  /** MatMulNBits' accuracy_level: 4 quantises activations to int8 per block, as llama.cpp does; 0 keeps f32. */
  readonly accuracyLevel: 0 | 4;
  readonly normEpsilon: number;
  /** Kind of norm over the residual stream (`DecoderSpec.norm`). */
  readonly norm?: DecoderSpec['norm'];
  /** Block means of activations, shared by the matmuls that take the same input. */
  readonly blockMeans: Map<string, Value>;
}

/** Rows of a weight, with or without a bias. */
export interface LinearRows {
  readonly weight: WeightRows;
  readonly bias?: WeightRows;
}

export const linearRows = ({ weight, bias }: Linear): LinearRows => ({
  weight: allRows(weight),
  ...(bias && { bias: allRows(bias) }),
});

/** `input · weightᵀ + bias` for each part. `input`: `[1, tokens, in]`; results: `[1, tokens, out]` each */
export function linears(context: GraphContext, input: Value, parts: readonly LinearRows[]): Value[] {
  return matmuls(context, input, parts).flatMap(({ output, rows }) =>
    rows.length === 1 ? [output] : context.graph.split(output, rows),
  );
}

/** Like `linears`, for parts that consist of heads of `headDim` rows. `[1, heads, tokens, headDim]` each */
export function headLinears(
  context: GraphContext,
  input: Value,
  parts: readonly LinearRows[],
  headDim: number,
): Value[] {
  const { graph } = context;
  return matmuls(context, input, parts).flatMap(({ output, rows }) => {
    const heads = rows.map((count) => count / headDim);
    const all = heads.reduce((sum, count) => sum + count, 0);
    const byHead = graph.transpose(graph.reshape(output, [1, 0, all, headDim]), [0, 2, 1, 3]);
    return heads.length === 1 ? [byHead] : graph.split(byHead, heads, 1);
  });
}

/** One matmul for adjacent parts on the same grid, with the number of output columns of each part. */
function matmuls(context: GraphContext, input: Value, parts: readonly LinearRows[]) {
  return groupsOf(parts).map((group) => {
    const matrix = context.layout.matrix(group.map(({ weight }) => weight));
    return {
      output: matmul(context, input, matrix, biasOf(context, group)),
      rows: group.map(({ weight }) => weight.rows),
    };
  });
}

/** `input`: `[1, tokens, in]`; result: `[1, tokens, out]` */
export function linear(context: GraphContext, input: Value, part: Linear): Value {
  return linears(context, input, [linearRows(part)])[0] as Value;
}

/** Groups adjacent parts on the same grid that all have or all lack a bias. */
function groupsOf(parts: readonly LinearRows[]): LinearRows[][] {
  const groups: LinearRows[][] = [];
  for (const part of parts) {
    const last = groups.at(-1);
    const neighbour = last?.[0];
    const alike =
      neighbour &&
      neighbour.weight.weight.type === part.weight.weight.type &&
      gridOf(neighbour.weight.weight) === gridOf(part.weight.weight) &&
      (neighbour.bias === undefined) === (part.bias === undefined);
    if (alike) last.push(part);
    else groups.push([part]);
  }
  return groups;
}

function biasOf({ layout }: GraphContext, group: readonly LinearRows[]): StoredTensor | undefined {
  const biases = group.flatMap(({ bias }) => (bias ? [bias] : []));
  return biases.length === 0 ? undefined : layout.floats(biases);
}

function matmul(context: GraphContext, input: Value, matrix: StoredMatrix, bias: StoredTensor | undefined): Value {
  const { graph } = context;
  if (matrix.kind === 'integers') return quantisedMatmul(context, input, matrix, bias && graph.stored(bias));
  const output = graph.contrib('FusedMatMul', [input, graph.stored(matrix.values)], { transB: 1 });
  return bias ? graph.op('Add', [output, graph.stored(bias)]) : output;
}

/** Σ (scale · code + minimum) · x = Σ scale · code · x + Σ minimum · (sum of x over the block) */
function quantisedMatmul(context: GraphContext, input: Value, matrix: StoredIntegers, bias: Value | undefined): Value {
  const { graph, accuracyLevel } = context;
  const { rows, columns, bits, elementsPerScale, codes, scales, minimums } = matrix;
  const blocks = columns / elementsPerScale;
  const output = graph.contrib(
    'MatMulNBits',
    [
      input,
      graph.stored(codes, [rows, blocks, (elementsPerScale * bits) / 8]),
      graph.stored(scales, [rows * blocks]),
      ...(bias === undefined ? [] : ['', '', bias]),
    ],
    { K: columns, N: rows, bits, block_size: elementsPerScale, accuracy_level: accuracyLevel },
  );
  if (!minimums) return output;
  const means = blockMeans(context, input, elementsPerScale);
  return graph.op('Add', [output, graph.contrib('FusedMatMul', [means, graph.stored(minimums)], { transB: 1 })]);
}

/** Means over each `block` adjacent elements of the last dimension. `[1, tokens, width / block]` */
function blockMeans({ graph, blockMeans }: GraphContext, input: Value, block: number): Value {
  const key = `${input}/${block}`;
  const known = blockMeans.get(key);
  if (known !== undefined) return known;
  // AveragePool treats the tokens as channels.
  const means = graph.op('AveragePool', [input], { kernel_shape: [block], strides: [block] });
  blockMeans.set(key, means);
  return means;
}

/** Embedding lookup. `rows`: `[1, tokens]` int64; result: `[1, tokens, columns]` f32 */
export function lookUp({ graph, layout }: GraphContext, weight: Weight, rows: Value): Value {
  const matrix = layout.matrix([allRows(weight)]);
  if (matrix.kind === 'floats') return graph.op('Gather', [graph.stored(matrix.values), rows]);
  const { bits, elementsPerScale, columns, codes, scales, minimums } = matrix;
  const values = graph.contrib('GatherBlockQuantized', [graph.stored(codes), rows, graph.stored(scales)], {
    bits,
    block_size: elementsPerScale,
    gather_axis: 0,
    quantize_axis: 1,
  });
  if (!minimums) return values;
  const blocks = graph.reshape(values, [0, 0, columns / elementsPerScale, elementsPerScale]);
  const stored = graph.op('Gather', [graph.stored(minimums), rows]);
  const addends = graph.op('Mul', [stored, graph.float32(1 / elementsPerScale)]);
  const sums = graph.op('Add', [blocks, graph.op('Unsqueeze', [addends, graph.int64([-1])])]);
  return graph.reshape(sums, [0, 0, columns]);
}

// RMSNorm and LayerNorm.

/** Normalises the last dimension and multiplies by `weight`. */
export function rmsNorm(
  { graph, layout, normEpsilon }: Pick<GraphContext, 'graph' | 'layout' | 'normEpsilon'>,
  input: Value,
  weight: Weight,
): Value {
  const scale = graph.stored(layout.floats([allRows(weight)]));
  return graph.op('SimplifiedLayerNormalization', [input, scale], {
    axis: -1,
    epsilon: { float: normEpsilon },
    stash_type: 1,
  });
}

/** Normalises the residual stream. */
export function streamNorm(context: GraphContext, input: Value, weight: Weight): Value {
  if (context.norm !== 'layer') return rmsNorm(context, input, weight);
  const epsilon = { float: context.normEpsilon };
  return context.graph.op('LayerNormalization', [input, ...normWeights(context, weight)], { axis: -1, epsilon });
}

/** The gain, and the bias of a LayerNorm. */
const normWeights = ({ graph, layout, norm }: GraphContext, weight: Weight): Value[] =>
  (norm === 'layer' ? [0, 1].map((firstRow) => ({ weight, firstRow, rows: 1 })) : [allRows(weight)]).map((rows) =>
    graph.stored(layout.floats([rows])),
  );

/** The residual stream. The last block's output is added together with the norm that follows it, in one operator. */
export interface Residual {
  readonly stream: Value;
  readonly addition?: Value;
}

/** Adds the pending output and normalises the sum. */
export function addAndNorm(context: GraphContext, { stream, addition }: Residual, weight: Weight) {
  if (addition === undefined) return { stream, normed: streamNorm(context, stream, weight) };
  const { graph, norm, normEpsilon } = context;
  const [normed, sum] = graph.contribOutputs(
    norm === 'layer' ? 'SkipLayerNormalization' : 'SkipSimplifiedLayerNormalization',
    [stream, addition, ...normWeights(context, weight)],
    { epsilon: { float: normEpsilon } },
    [true, false, false, true],
  );
  return { stream: sum as Value, normed: normed as Value };
}
