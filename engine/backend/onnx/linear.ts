/** Products with weights, and the values of embedding rows. */
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

/** What the parts of a decoder's graph are built with. */
export interface GraphContext {
  readonly graph: GraphBuilder;
  readonly layout: WeightsLayout;
  /** MatMulNBits' accuracy_level: 4 rounds the other factor to 8-bit integers by blocks, as llama.cpp does; 0 keeps it. */
  readonly accuracyLevel: 0 | 4;
  readonly normEpsilon: number;
  /** Means over blocks of values that several weights multiply. */
  readonly blockMeans: Map<string, Value>;
}

/** Rows of several weights with one bias each or none. */
export interface LinearRows {
  readonly weight: WeightRows;
  readonly bias?: WeightRows;
}

export const linearRows = ({ weight, bias }: Linear): LinearRows => ({
  weight: allRows(weight),
  ...(bias && { bias: allRows(bias) }),
});

/** `input · weightᵀ + bias` for each of `parts`. `[1, tokens, out]` each */
export function linears(context: GraphContext, input: Value, parts: readonly LinearRows[]): Value[] {
  return products(context, input, parts).flatMap(({ product, rows }) =>
    rows.length === 1 ? [product] : context.graph.split(product, rows),
  );
}

/** As `linears` for parts that are heads of `headDim` rows. `[1, heads, tokens, headDim]` each */
export function headLinears(
  context: GraphContext,
  input: Value,
  parts: readonly LinearRows[],
  headDim: number,
): Value[] {
  const { graph } = context;
  return products(context, input, parts).flatMap(({ product, rows }) => {
    const heads = rows.map((count) => count / headDim);
    const all = heads.reduce((sum, count) => sum + count, 0);
    const byHead = graph.transpose(graph.reshape(product, [1, 0, all, headDim]), [0, 2, 1, 3]);
    return heads.length === 1 ? [byHead] : graph.split(byHead, heads, 1);
  });
}

/** One product for neighbours that are stored alike, and how many of its columns belong to each. */
function products(context: GraphContext, input: Value, parts: readonly LinearRows[]) {
  return runsOf(parts).map((run) => {
    const matrix = context.layout.matrix(run.map(({ weight }) => weight));
    return {
      product: multiply(context, input, matrix, biasOf(context, run)),
      rows: run.map(({ weight }) => weight.rows),
    };
  });
}

/** `[1, tokens, out]` */
export function linear(context: GraphContext, input: Value, part: Linear): Value {
  return linears(context, input, [linearRows(part)])[0] as Value;
}

/** Neighbours on the same grid, with or without biases. */
function runsOf(parts: readonly LinearRows[]): LinearRows[][] {
  const runs: LinearRows[][] = [];
  for (const part of parts) {
    const last = runs.at(-1);
    const neighbour = last?.[0];
    const alike =
      neighbour &&
      neighbour.weight.weight.type === part.weight.weight.type &&
      gridOf(neighbour.weight.weight) === gridOf(part.weight.weight) &&
      (neighbour.bias === undefined) === (part.bias === undefined);
    if (alike) last.push(part);
    else runs.push([part]);
  }
  return runs;
}

function biasOf({ layout }: GraphContext, run: readonly LinearRows[]): StoredTensor | undefined {
  const biases = run.flatMap(({ bias }) => (bias ? [bias] : []));
  return biases.length === 0 ? undefined : layout.floats(biases);
}

function multiply(context: GraphContext, input: Value, matrix: StoredMatrix, bias: StoredTensor | undefined): Value {
  const { graph } = context;
  if (matrix.kind === 'integers') return multiplyIntegers(context, input, matrix, bias && graph.stored(bias));
  const product = graph.contrib('FusedMatMul', [input, graph.stored(matrix.values)], { transB: 1 });
  return bias ? graph.op('Add', [product, graph.stored(bias)]) : product;
}

/** Σ (scale · code + minimum) · x = Σ scale · code · x + Σ minimum · (sum of x over the block) */
function multiplyIntegers(context: GraphContext, input: Value, matrix: StoredIntegers, bias: Value | undefined): Value {
  const { graph, accuracyLevel } = context;
  const { rows, columns, bits, elementsPerScale, codes, scales, minimums } = matrix;
  const blocks = columns / elementsPerScale;
  const product = graph.contrib(
    'MatMulNBits',
    [
      input,
      graph.stored(codes, [rows, blocks, (elementsPerScale * bits) / 8]),
      graph.stored(scales, [rows * blocks]),
      ...(bias === undefined ? [] : ['', '', bias]),
    ],
    { K: columns, N: rows, bits, block_size: elementsPerScale, accuracy_level: accuracyLevel },
  );
  if (!minimums) return product;
  const means = blockMeans(context, input, elementsPerScale);
  return graph.op('Add', [product, graph.contrib('FusedMatMul', [means, graph.stored(minimums)], { transB: 1 })]);
}

/** Means over each `block` neighbours of the last dimension. `[1, tokens, width / block]` */
function blockMeans({ graph, blockMeans }: GraphContext, input: Value, block: number): Value {
  const key = `${input}/${block}`;
  const known = blockMeans.get(key);
  if (known !== undefined) return known;
  // The tokens are the pool's channels.
  const means = graph.op('AveragePool', [input], { kernel_shape: [block], strides: [block] });
  blockMeans.set(key, means);
  return means;
}

/** Rows of a weight by number. `rows` is `[1, tokens]` int64; `[1, tokens, columns]` */
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

// Root-mean-square normalisation.

/** Over the last dimension, times `weight`. */
export function rmsNorm({ graph, layout, normEpsilon }: GraphContext, input: Value, weight: Weight): Value {
  const scale = graph.stored(layout.floats([allRows(weight)]));
  return graph.op('SimplifiedLayerNormalization', [input, scale], {
    axis: -1,
    epsilon: { float: normEpsilon },
    stash_type: 1,
  });
}

/** The stream of hidden states, to which every block adds; the last addition waits for the norm that follows it. */
export interface Residual {
  readonly stream: Value;
  readonly addition?: Value;
}

/** Adds what waits, and normalises the sum. */
export function addAndNorm(context: GraphContext, { stream, addition }: Residual, weight: Weight) {
  if (addition === undefined) return { stream, normed: rmsNorm(context, stream, weight) };
  const { graph, layout, normEpsilon } = context;
  const [normed, sum] = graph.contribOutputs(
    'SkipSimplifiedLayerNormalization',
    [stream, addition, graph.stored(layout.floats([allRows(weight)]))],
    { epsilon: { float: normEpsilon } },
    [true, false, false, true],
  );
  return { stream: sum as Value, normed: normed as Value };
}
