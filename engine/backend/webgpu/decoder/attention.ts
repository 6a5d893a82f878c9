/** Attention of one layer up to its output projection, which the plan adds to the residual stream. */
import {
  cachedAttentions,
  type GatedDeltaSpec,
  type GroupedQueryAttentionSpec,
  type LatentAttentionSpec,
} from '../../../model/spec/spec.ts';
import {
  type AttentionShape,
  type AttentionTile,
  attentionKernel,
  attentionMergeKernel,
  attentionShape,
  attentionSplits,
  attentionTile,
} from '../kernels/attention.ts';
import { matrixAttentionKernel, matrixAttentionTile } from '../kernels/attentionTiles.ts';
import {
  convolutionGroups,
  convolutionKernel,
  deltaGroups,
  deltaKernel,
  deltaStepsKernel,
  gatedNormKernel,
  sigmoidGateGroups,
  sigmoidGateKernel,
} from '../kernels/gatedDelta.ts';
import { jointNormKernel, prepareHeadsKernel, prepareLatentKernel } from '../kernels/prepareHeads.ts';
import {
  canJoin,
  canProjectHeads,
  jointVectorGroups,
  jointVectorKernel,
  type Projection,
  projectHeadsGroups,
  projectHeadsKernel,
} from '../kernels/projections.ts';
import type { LayerCache } from './cache.ts';
import type { GpuGatedDelta, GpuGroupedQuery, GpuLatent, GpuLinear } from './gpuWeights.ts';
import type { BlockOutput, DecoderParts, PlanRows, Recorder } from './recorder.ts';

/** Used if no layer has attention. */
const limitOfRows = 16;

const tokensOf = (rows: PlanRows): number => (rows === 'prompt' ? Number.MAX_SAFE_INTEGER : rows);

interface SharedTiles {
  /** Whether all layers attend by subgroup matrices. */
  readonly withMatrices: boolean;
  /** Query rows of one sequence in a tile: the most that every layer supports. */
  readonly queries: number;
}

/** How a run's rows are cut into attention tiles, which all layers share. */
export function sharedTiles(
  {
    spec,
    gpu,
    cache,
  }: Pick<DecoderParts, 'spec' | 'cache'> & { readonly gpu: Pick<DecoderParts['gpu'], 'capabilities'> },
  rows: PlanRows,
): SharedTiles {
  const shapes = cachedAttentions(spec).map(attentionShape);
  const fewest = (tiles: readonly AttentionTile[]) => Math.min(...tiles.map(({ queries }) => queries));
  const matrices = shapes.flatMap((shape) => matrixAttentionTile(shape, cache.precision, gpu.capabilities) ?? []);
  const withMatrices = rows === 'prompt' && shapes.length > 0 && matrices.length === shapes.length;
  if (withMatrices) return { withMatrices, queries: fewest(matrices) };
  const tiles = shapes.map((shape) => attentionTile(shape, tokensOf(rows)));
  return { withMatrices, queries: Math.min(fewest(tiles), limitOfRows) };
}

export function recordGroupedQuery(
  recorder: Recorder,
  spec: GroupedQueryAttentionSpec,
  weights: GpuGroupedQuery,
  norm: GPUBuffer,
  cache: LayerCache,
): BlockOutput {
  const { scratch } = recorder.parts;
  if (!recordProjection(recorder, spec, weights, norm, cache)) recordHeads(recorder, spec, weights, norm, cache);
  recordSoftmax(recorder, attentionShape(spec), [scratch.query, cache.keys, valuesOf(cache)], cache, weights.sinks);
  if (weights.gate) recordGate(recorder, weights.gate, norm);
  return { linear: weights.output, x: scratch.attended };
}

/** Multiplies attention's output by the sigmoid of a projection of the same input. */
function recordGate(recorder: Recorder, gate: GpuLinear, norm: GPUBuffer): void {
  const { inputs, scratch, spec } = recorder.parts;
  const { x, gain } = recorder.normalised(scratch.hidden, norm, spec.hiddenSize, scratch.normed);
  recorder.product(gate, x, scratch.gates, gain);
  const width = gate.weight.rows;
  recorder.add(sigmoidGateKernel(width, 'one a value'), [scratch.gates, scratch.attended], () =>
    sigmoidGateGroups(width, inputs.tokens),
  );
}

/** A gated delta net. */
export function recordGatedDelta(
  recorder: Recorder,
  spec: GatedDeltaSpec,
  weights: GpuGatedDelta,
  norm: GPUBuffer,
  cache: LayerCache,
): BlockOutput {
  const { inputs, scratch, spec: decoder } = recorder.parts;
  const { query, key, value } = scratch;
  recordProducts(recorder, norm, [
    { linear: weights.query, y: query },
    { linear: weights.key, y: key },
    { linear: weights.value, y: value },
    { linear: weights.gate, y: scratch.gates },
    { linear: weights.beta, y: scratch.betas },
    { linear: weights.decay, y: scratch.decays },
  ]);
  const rows = [inputs.rowBuffer, pagesOf(recorder, cache), inputs.paramBuffer];
  let first = 0;
  for (const [buffer, { weight }] of [
    [query, weights.query],
    [key, weights.key],
    [value, weights.value],
  ] as const) {
    const channels = { first, count: weight.rows };
    recorder.add(convolutionKernel(spec, channels), [...rows, weights.convolution, buffer, cache.keys], () =>
      convolutionGroups(channels, inputs.tokens),
    );
    first += weight.rows;
  }
  const { numValueHeads, valueHeadDim } = spec;
  recorder.add(deltaStepsKernel(spec), [weights.factors, scratch.betas, scratch.decays], () => [
    Math.ceil(numValueHeads / 64),
    inputs.tokens,
  ]);
  const operands = [query, key, scratch.betas, scratch.decays, value, cache.keys];
  recorder.add(deltaKernel(spec), [...rows, ...operands], () => deltaGroups(spec, inputs.tokens));
  recorder.add(
    gatedNormKernel(numValueHeads, valueHeadDim, decoder.normEpsilon),
    [scratch.gates, weights.norm, value],
    () => [numValueHeads, inputs.tokens],
  );
  return { linear: weights.output, x: value };
}

/** A matrix in one piece with its buffer; absent for a matrix in several pieces. */
function wholeMatrix({ weight: { pieces, blockScale } }: GpuLinear): (Projection & { buffer: GPUBuffer }) | undefined {
  const [piece] = pieces;
  return pieces.length === 1 && piece ? { ...piece, ...(blockScale && { blockScale }) } : undefined;
}

/** Queries, keys and values in one dispatch, if the model, the adapter and the number of rows allow it. */
function recordProjection(
  recorder: Recorder,
  spec: GroupedQueryAttentionSpec,
  weights: GpuGroupedQuery,
  norm: GPUBuffer,
  cache: LayerCache,
): boolean {
  const { inputs, scratch, gpu, spec: decoder } = recorder.parts;
  const { precision } = recorder.parts.cache;
  const [query, key, value] = [weights.query, weights.key, weights.value].map(wholeMatrix);
  if (recorder.rows === 'prompt' || precision === 'q8' || !query || !key || !value) return false;
  if (!canProjectHeads(spec, gpu.capabilities)) return false;
  const { x, gain } = recorder.normalised(scratch.hidden, norm, decoder.hiddenSize, scratch.normed);
  const normalised = gain.gain && { normEpsilon: decoder.normEpsilon };
  const shape = { spec, query, key, value, tokens: recorder.rows, ...normalised };
  recorder.add(
    projectHeadsKernel({ ...shape, precision }, gpu.capabilities),
    [
      ...[query.buffer, key.buffer, value.buffer, x, ...(gain.gain ? [gain.gain] : [])],
      ...(weights.biases ? [weights.biases] : []),
      ...[inputs.rowBuffer, pagesOf(recorder, cache), inputs.anglesOf(spec), inputs.paramBuffer],
      ...[scratch.query, cache.keys, valuesOf(cache)],
    ],
    projectHeadsGroups(spec),
  );
  return true;
}

interface JointProduct {
  readonly linear: GpuLinear;
  readonly y: GPUBuffer;
}

/** Several matmuls of the normalised residual stream: for few rows in one dispatch if the adapter allows it. */
function recordProducts(
  recorder: Recorder,
  norm: GPUBuffer,
  products: readonly JointProduct[],
  biases?: GPUBuffer,
): void {
  const { scratch, gpu, spec: decoder } = recorder.parts;
  const matrices = products.flatMap(({ linear }) => wholeMatrix(linear) ?? []);
  const bias = biases !== undefined;
  const whole =
    matrices.length === products.length && products.every(({ linear }) => bias === (linear.bias !== undefined));
  const { x, gain } = recorder.normalised(scratch.hidden, norm, decoder.hiddenSize, scratch.normed);
  if (recorder.rows !== 'prompt' && whole && canJoin(matrices, bias, gpu.capabilities)) {
    const normalised = gain.gain && { normEpsilon: decoder.normEpsilon };
    const shape = { matrices, bias, tokens: recorder.rows, ...normalised };
    const weights = matrices.map(({ buffer }) => buffer);
    const outputs = products.map(({ y }) => y);
    recorder.add(
      jointVectorKernel(shape, gpu.capabilities),
      [...weights, x, ...(gain.gain ? [gain.gain] : []), ...(biases ? [biases] : []), ...outputs],
      jointVectorGroups(shape),
    );
    return;
  }
  for (const { linear, y } of products) recorder.product(linear, x, y, gain);
}

/** The same for tiles, or for models that normalise heads. */
function recordHeads(
  recorder: Recorder,
  spec: GroupedQueryAttentionSpec,
  weights: GpuGroupedQuery,
  norm: GPUBuffer,
  cache: LayerCache,
): void {
  const { inputs, scratch, spec: decoder, gpu } = recorder.parts;
  const products = [
    { linear: weights.query, y: scratch.query },
    { linear: weights.key, y: scratch.key },
    { linear: weights.value, y: scratch.value },
  ];
  recordProducts(recorder, norm, products, weights.biases);
  if (spec.jointNorm && weights.norms) {
    const kernel = jointNormKernel(spec, decoder.normEpsilon, gpu.capabilities);
    recorder.add(kernel, [weights.norms, scratch.query, scratch.key], () => [2, inputs.tokens]);
  }
  const heads = [
    ...[inputs.rowBuffer, pagesOf(recorder, cache), inputs.anglesOf(spec), scratch.key, scratch.value],
    ...(weights.norms && !spec.jointNorm ? [weights.norms] : []),
    ...[scratch.query, cache.keys, valuesOf(cache)],
  ];
  recorder.add(prepareHeadsKernel(spec, decoder.normEpsilon, recorder.parts.cache.precision), heads, () => [
    spec.numAttentionHeads + 2 * spec.numKeyValueHeads,
    inputs.tokens,
  ]);
}

/** Absorbed form: queries are projected into the latent space, and the result is projected back head by head. */
export function recordLatent(
  recorder: Recorder,
  spec: LatentAttentionSpec,
  weights: GpuLatent,
  norm: GPUBuffer,
  cache: LayerCache,
): BlockOutput {
  const { inputs, scratch, gpu } = recorder.parts;
  const { normEpsilon: epsilon } = spec;
  const latent = { linear: weights.keyValueDown, y: scratch.key };
  if (weights.queryDown && weights.queryNorm) {
    recordProducts(recorder, norm, [latent, { linear: weights.queryDown, y: scratch.queryDown }]);
    const rank = weights.queryDown.weight.rows;
    const compressed = recorder.normalised(scratch.queryDown, weights.queryNorm, rank, scratch.queryNormed, {
      epsilon,
    });
    recorder.product(weights.queryUp, compressed.x, scratch.query, compressed.gain);
  } else {
    recordProducts(recorder, norm, [latent, { linear: weights.queryUp, y: scratch.query }]);
  }
  recorder.add(
    prepareLatentKernel(spec, recorder.parts.cache.precision, gpu.capabilities),
    [
      ...[inputs.rowBuffer, pagesOf(recorder, cache), inputs.anglesOf(spec), scratch.query, scratch.key],
      ...[weights.keyValueNorm, scratch.nopeQuery, scratch.ropeQuery, cache.keys],
    ],
    () => [spec.numAttentionHeads + 1, inputs.tokens],
  );
  recorder.product(weights.keyUp, scratch.nopeQuery, scratch.latentQuery, { rowsPerHead: spec.keyValueRank });
  recordSoftmax(recorder, attentionShape(spec), [scratch.latentQuery, scratch.ropeQuery, cache.keys], cache);
  recorder.product(weights.valueUp, scratch.attended, scratch.headValues, { rowsPerHead: spec.valueHeadDim });
  return { linear: weights.output, x: scratch.headValues };
}

/** From queries, keys and values to `attended`. */
function recordSoftmax(
  recorder: Recorder,
  shape: AttentionShape,
  operands: readonly GPUBuffer[],
  cache: LayerCache,
  sinks?: GPUBuffer,
): void {
  const { gpu, inputs, scratch, cache: memory } = recorder.parts;
  const { rows } = recorder;
  const { withMatrices, queries } = sharedTiles(recorder.parts, rows);
  const matrixTile = withMatrices ? matrixAttentionTile(shape, memory.precision, gpu.capabilities) : undefined;
  const splits = rows === 'prompt' ? 1 : attentionSplits(shape, rows, gpu.capabilities.tuning.attentionGroups);
  const tile = { ...(matrixTile ?? attentionTile(shape, tokensOf(rows))), queries };
  // The kernels derive the number of rows from the length of this binding.
  const partBytes = 4 * splits * (rows === 'prompt' ? 1 : rows) * shape.heads * (shape.valueDim + 4);
  const parts = { buffer: scratch.parts, offset: 0, size: partBytes };
  recorder.add(
    matrixTile
      ? matrixAttentionKernel(shape, tile, gpu.capabilities)
      : attentionKernel(shape, tile, splits, memory.precision),
    [
      ...[inputs.rowBuffer, pagesOf(recorder, cache), inputs.tileBuffer, ...operands],
      ...(sinks && splits === 1 ? [sinks] : []),
      splits === 1 ? scratch.attended : parts,
    ],
    () => [shape.heads / tile.headsPerTile, inputs.tiles, splits],
  );
  if (splits === 1) return;
  const buffers = [parts, ...(sinks ? [sinks] : []), scratch.attended];
  recorder.add(attentionMergeKernel(shape, splits), buffers, () => [shape.heads, inputs.tokens]);
}

function pagesOf({ parts }: Recorder, { group }: LayerCache): GPUBuffer {
  const pages = parts.inputs.pageBuffers[group];
  if (!pages) throw new Error('Every window group has its page numbers.');
  return pages;
}

function valuesOf({ values }: LayerCache): GPUBuffer {
  if (!values) throw new Error('grouped-query attention keeps its values apart');
  return values;
}
