/** Attention of one layer, grouped-query or latent, added to the residual stream. */
import type { DecoderSpec, GroupedQueryAttentionSpec, LatentAttentionSpec } from '../../../model/spec/spec.ts';
import {
  type AttentionShape,
  attentionKernel,
  attentionShape,
  attentionSplits,
  attentionTile,
} from '../kernels/attention.ts';
import { attentionMergeKernel } from '../kernels/attentionMerge.ts';
import { canJoin, jointVectorGroups, jointVectorKernel, type Projection } from '../kernels/jointVector.ts';
import { prepareHeadsKernel } from '../kernels/prepareHeads.ts';
import { prepareLatentKernel } from '../kernels/prepareLatent.ts';
import { canProjectHeads, projectHeadsGroups, projectHeadsKernel } from '../kernels/projectHeads.ts';
import type { LayerCache } from './cache.ts';
import type { GpuGroupedQuery, GpuLatent, GpuLinear } from './gpuWeights.ts';
import type { PlanRows, Recorder } from './recorder.ts';

const tokensOf = (rows: PlanRows): number => (rows === 'prompt' ? Number.MAX_SAFE_INTEGER : rows);

/** Query rows of one sequence in an attention tile: the most that every layer supports. */
export function queriesPerTile(spec: DecoderSpec, rows: PlanRows): number {
  const tiles = spec.layers.map(({ attention }) => attentionTile(attentionShape(attention), tokensOf(rows)));
  return Math.min(...tiles.map(({ queries }) => queries));
}

export function recordGroupedQuery(
  recorder: Recorder,
  spec: GroupedQueryAttentionSpec,
  weights: GpuGroupedQuery,
  { before: norm, after }: { readonly before: GPUBuffer; readonly after: GPUBuffer | undefined },
  cache: LayerCache,
): void {
  const { scratch } = recorder.parts;
  if (!recordProjection(recorder, spec, weights, norm, cache)) recordHeads(recorder, spec, weights, norm, cache);
  recordSoftmax(recorder, attentionShape(spec), [scratch.query, cache.keys, valuesOf(cache)], cache, weights.sinks);
  recorder.addOutput(weights.output, scratch.attended, after);
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
  const shape = { spec, query, key, value, tokens: recorder.rows, normEpsilon: decoder.normEpsilon };
  recorder.add(
    projectHeadsKernel({ ...shape, precision }, gpu.capabilities),
    [
      ...[query.buffer, key.buffer, value.buffer, scratch.hidden, norm, ...(weights.biases ? [weights.biases] : [])],
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
  if (recorder.rows !== 'prompt' && whole && canJoin(matrices, bias, gpu.capabilities)) {
    const shape = { matrices, bias, tokens: recorder.rows, normEpsilon: decoder.normEpsilon };
    const weights = matrices.map(({ buffer }) => buffer);
    const outputs = products.map(({ y }) => y);
    recorder.add(
      jointVectorKernel(shape, gpu.capabilities),
      [...weights, scratch.hidden, norm, ...(biases ? [biases] : []), ...outputs],
      jointVectorGroups(shape),
    );
    return;
  }
  const { x, gain } = recorder.normalised(scratch.hidden, norm, decoder.hiddenSize, scratch.normed);
  for (const { linear, y } of products) recorder.product(linear, x, y, gain);
}

/** The same in tiles, or with normalised heads. */
function recordHeads(
  recorder: Recorder,
  spec: GroupedQueryAttentionSpec,
  weights: GpuGroupedQuery,
  norm: GPUBuffer,
  cache: LayerCache,
): void {
  const { inputs, scratch, spec: decoder } = recorder.parts;
  const products = [
    { linear: weights.query, y: scratch.query },
    { linear: weights.key, y: scratch.key },
    { linear: weights.value, y: scratch.value },
  ];
  recordProducts(recorder, norm, products, weights.biases);
  const heads = [
    ...[inputs.rowBuffer, pagesOf(recorder, cache), inputs.anglesOf(spec), scratch.key, scratch.value],
    ...(weights.norms ? [weights.norms] : []),
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
): void {
  const { inputs, scratch, spec: decoder, gpu } = recorder.parts;
  const latent = { linear: weights.keyValueDown, y: scratch.key };
  if (weights.queryDown && weights.queryNorm) {
    recordProducts(recorder, norm, [latent, { linear: weights.queryDown, y: scratch.queryDown }]);
    const rank = weights.queryDown.weight.rows;
    const compressed = recorder.normalised(scratch.queryDown, weights.queryNorm, rank, scratch.queryNormed);
    recorder.product(weights.queryUp, compressed.x, scratch.query, compressed.gain);
  } else {
    recordProducts(recorder, norm, [latent, { linear: weights.queryUp, y: scratch.query }]);
  }
  recorder.add(
    prepareLatentKernel(spec, decoder.normEpsilon, recorder.parts.cache.precision, gpu.capabilities),
    [
      ...[inputs.rowBuffer, pagesOf(recorder, cache), inputs.anglesOf(spec), scratch.query, scratch.key],
      ...[weights.keyValueNorm, scratch.nopeQuery, scratch.ropeQuery, cache.keys],
    ],
    () => [spec.numAttentionHeads + 1, inputs.tokens],
  );
  recorder.product(weights.keyUp, scratch.nopeQuery, scratch.latentQuery, { rowsPerHead: spec.keyValueRank });
  recordSoftmax(recorder, attentionShape(spec), [scratch.latentQuery, scratch.ropeQuery, cache.keys], cache);
  recorder.product(weights.valueUp, scratch.attended, scratch.headValues, { rowsPerHead: spec.valueHeadDim });
  recorder.product(weights.output, scratch.headValues, scratch.hidden, { accumulate: true });
}

/** From queries, keys and values to `attended`. */
function recordSoftmax(
  recorder: Recorder,
  shape: AttentionShape,
  operands: readonly GPUBuffer[],
  cache: LayerCache,
  sinks?: GPUBuffer,
): void {
  const { gpu, spec, inputs, scratch, cache: memory } = recorder.parts;
  const { rows } = recorder;
  const splits = rows === 'prompt' ? 1 : attentionSplits(shape, rows, gpu.capabilities.tuning.attentionGroups);
  const tile = { ...attentionTile(shape, tokensOf(rows)), queries: queriesPerTile(spec, rows) };
  // The kernels derive the number of rows from the length of this binding.
  const partBytes = 4 * splits * (rows === 'prompt' ? 1 : rows) * shape.heads * (shape.valueDim + 4);
  const parts = { buffer: scratch.parts, offset: 0, size: partBytes };
  recorder.add(
    attentionKernel(shape, tile, splits, memory.precision),
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
