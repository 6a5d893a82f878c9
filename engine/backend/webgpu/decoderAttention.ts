/** Attention of one layer, grouped-query or latent, onto the residual stream. */
import type { DecoderSpec, GroupedQueryAttentionSpec, LatentAttentionSpec } from '../../model/spec.ts';
import type { LayerCache } from './decoderCache.ts';
import type { PlanRows, Recorder } from './decoderRecorder.ts';
import type { GpuGroupedQuery, GpuLatent } from './decoderWeights.ts';
import {
  type AttentionShape,
  attentionKernel,
  attentionMergeKernel,
  attentionShape,
  attentionTile,
} from './kernels/attention.ts';
import { prepareHeadsKernel } from './kernels/prepareHeads.ts';
import { prepareLatentKernel } from './kernels/prepareLatent.ts';
import { canProjectHeads, projectHeadsGroups, projectHeadsKernel } from './kernels/projectHeads.ts';

const tokensOf = (rows: PlanRows): number => (rows === 'prompt' ? Number.MAX_SAFE_INTEGER : rows);

/** Query rows of one sequence that share an attention tile: as many as every layer takes. */
export function queriesPerTile(spec: DecoderSpec, rows: PlanRows): number {
  const tiles = spec.layers.map(({ attention }) => attentionTile(attentionShape(attention), tokensOf(rows)));
  return Math.min(...tiles.map(({ queries }) => queries));
}

export function recordGroupedQuery(
  recorder: Recorder,
  spec: GroupedQueryAttentionSpec,
  weights: GpuGroupedQuery,
  norm: GPUBuffer,
  cache: LayerCache,
): void {
  const { scratch } = recorder.parts;
  if (!recordProjection(recorder, spec, weights, norm, cache)) recordHeads(recorder, spec, weights, norm, cache);
  recordSoftmax(recorder, attentionShape(spec), [scratch.query, cache.keys, valuesOf(cache)], cache, weights.sinks);
  recorder.product(weights.output, scratch.attended, scratch.hidden, { accumulate: true });
}

/** Queries, keys and values in one dispatch, where the model, the adapter and the number of rows allow it. */
function recordProjection(
  recorder: Recorder,
  spec: GroupedQueryAttentionSpec,
  weights: GpuGroupedQuery,
  norm: GPUBuffer,
  cache: LayerCache,
): boolean {
  const { inputs, scratch, gpu, spec: decoder } = recorder.parts;
  const [query, key, value] = [weights.query, weights.key, weights.value].map(({ weight: { pieces, blockScale } }) =>
    pieces.length === 1 && pieces[0] ? { ...pieces[0], ...(blockScale && { blockScale }) } : undefined,
  );
  if (recorder.rows === 'prompt' || !query || !key || !value || !canProjectHeads(spec, gpu.capabilities)) return false;
  const shape = { spec, query, key, value, tokens: recorder.rows, normEpsilon: decoder.normEpsilon };
  recorder.add(
    projectHeadsKernel({ ...shape, precision: recorder.parts.cache.precision }, gpu.capabilities),
    [
      ...[query.buffer, key.buffer, value.buffer, scratch.hidden, norm, ...(weights.biases ? [weights.biases] : [])],
      ...[inputs.rowBuffer, pagesOf(recorder, cache), inputs.anglesOf(spec), inputs.paramBuffer],
      ...[scratch.query, cache.keys, valuesOf(cache)],
    ],
    projectHeadsGroups(spec),
  );
  return true;
}

/** The same in tiles, or with heads that are normalised. */
function recordHeads(
  recorder: Recorder,
  spec: GroupedQueryAttentionSpec,
  weights: GpuGroupedQuery,
  norm: GPUBuffer,
  cache: LayerCache,
): void {
  const { inputs, scratch, spec: decoder } = recorder.parts;
  const { x, gain } = recorder.normalised(scratch.hidden, norm, decoder.hiddenSize, scratch.normed);
  recorder.product(weights.query, x, scratch.query, gain);
  recorder.product(weights.key, x, scratch.key, gain);
  recorder.product(weights.value, x, scratch.value, gain);
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

/** In absorbed form: queries are turned into the latents' space, and what they gather is turned back head by head. */
export function recordLatent(
  recorder: Recorder,
  spec: LatentAttentionSpec,
  weights: GpuLatent,
  norm: GPUBuffer,
  cache: LayerCache,
): void {
  const { inputs, scratch, spec: decoder, gpu } = recorder.parts;
  const { x, gain } = recorder.normalised(scratch.hidden, norm, decoder.hiddenSize, scratch.normed);
  recorder.product(weights.keyValueDown, x, scratch.key, gain);
  if (weights.queryDown && weights.queryNorm) {
    recorder.product(weights.queryDown, x, scratch.queryDown, gain);
    const rank = weights.queryDown.weight.rows;
    const compressed = recorder.normalised(scratch.queryDown, weights.queryNorm, rank, scratch.queryNormed);
    recorder.product(weights.queryUp, compressed.x, scratch.query, compressed.gain);
  } else {
    recorder.product(weights.queryUp, x, scratch.query, gain);
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
  const { spec, inputs, scratch, cache: memory } = recorder.parts;
  const { rows } = recorder;
  // A window has few keys: one workgroup reads them at once.
  const splits = rows === 'prompt' || shape.slidingWindow !== undefined ? 1 : recorder.parts.splits;
  const tile = { ...attentionTile(shape, tokensOf(rows)), queries: queriesPerTile(spec, rows) };
  // The kernels take the number of rows from the length of this binding.
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

function pagesOf({ parts }: Recorder, { span }: LayerCache): GPUBuffer {
  const pages = parts.inputs.pageBuffers[span];
  if (!pages) throw new Error('every span has its page numbers');
  return pages;
}

function valuesOf({ values }: LayerCache): GPUBuffer {
  if (!values) throw new Error('grouped-query attention keeps its values apart');
  return values;
}
