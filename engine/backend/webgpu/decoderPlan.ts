/**
 * The order of a decoder's dispatches: read this file first. A run of up to 16 rows multiplies rows by matrices and splits
 * long contexts over workgroups; a longer one, a prompt, is computed in tiles. Same mathematics as backend/reference/forward.ts.
 */
import type { DecoderSpec, DenseSpec, GroupedQueryAttentionSpec, LayerSpec } from '../../model/spec.ts';
import type { DecoderCache, LayerCache } from './decoderCache.ts';
import type { RunInputs } from './decoderInputs.ts';
import type { Scratch } from './decoderScratch.ts';
import type { GpuDense, GpuGroupedQuery, GpuLayer, GpuLinear, GpuWeights } from './decoderWeights.ts';
import type { Gpu } from './gpu.ts';
import { activationGroups, activationKernel } from './kernels/activation.ts';
import {
  type AttentionShape,
  attentionKernel,
  attentionMergeKernel,
  attentionShape,
  attentionTile,
} from './kernels/attention.ts';
import { embedKernel } from './kernels/embed.ts';
import { matrixMatrixGroups, matrixMatrixKernel } from './kernels/matrixMatrix.ts';
import { matrixVectorGroups, matrixVectorKernel, type ProductShape } from './kernels/matrixVector.ts';
import { prepareHeadsKernel } from './kernels/prepareHeads.ts';
import { rmsNormKernel } from './kernels/rmsNorm.ts';
import { type Plan, PlanBuilder } from './plan.ts';
import type { GpuMatrix } from './upload.ts';

/** Everything that a plan binds. */
export interface DecoderParts {
  readonly gpu: Gpu;
  readonly spec: DecoderSpec;
  readonly weights: GpuWeights;
  readonly cache: DecoderCache;
  readonly inputs: RunInputs;
  readonly scratch: Scratch;
  /** Workgroups that share the keys of one head when few rows are computed. */
  readonly splits: number;
}

/** `rows`: 1 to 16, or `prompt`. */
export type PlanRows = number | 'prompt';

/** Query rows of one sequence that share an attention tile: as many as every layer of the plan takes. */
export function queriesPerTile(spec: DecoderSpec, rows: PlanRows): number {
  const tokens = rows === 'prompt' ? Number.MAX_SAFE_INTEGER : rows;
  return Math.min(...spec.layers.map(({ attention }) => attentionTile(attentionShape(attention), tokens).queries));
}

/** From token ids to the residual stream that leaves the last layer. */
export function layersPlan(parts: DecoderParts, rows: PlanRows): Promise<Plan> {
  const recorder = new Recorder(parts, rows);
  recorder.embed();
  for (const [index, layer] of parts.spec.layers.entries()) recorder.layer(index, layer);
  return recorder.finish();
}

/** Final norm and head of `rows` rows of `input`, `[rows, hidden]` to `[rows, vocabulary]`. */
export function headPlan(parts: DecoderParts, rows: number, input: GPUBuffer): Promise<Plan> {
  const recorder = new Recorder(parts, rows);
  recorder.head(input);
  return recorder.finish();
}

class Recorder {
  readonly #parts: DecoderParts;
  readonly #rows: PlanRows;
  readonly #builder: PlanBuilder;

  constructor(parts: DecoderParts, rows: PlanRows) {
    this.#parts = parts;
    this.#rows = rows;
    this.#builder = new PlanBuilder(parts.gpu);
  }

  finish(): Promise<Plan> {
    return this.#builder.finish();
  }

  embed(): void {
    const { weights, inputs, scratch } = this.#parts;
    const { pieces, blockScale } = weights.embedding;
    for (const { layout, firstRow, buffer } of pieces) {
      const kernel = embedKernel(layout, firstRow, blockScale);
      this.#builder.add(kernel, [buffer, inputs.rowBuffer, scratch.hidden], () => [inputs.tokens]);
    }
  }

  layer(index: number, { attention, feedForward }: LayerSpec): void {
    const layer = this.#parts.weights.layers[index];
    const cache = this.#parts.cache.layers[index];
    if (!layer || !cache) throw new Error(`layer ${index} has no weights or no cache`);
    if (attention.kind === 'grouped-query' && layer.attention.kind === 'grouped-query') {
      this.#groupedQuery(attention, layer, layer.attention, cache);
    }
    if (feedForward.kind === 'dense' && layer.feedForward.kind === 'dense') {
      this.#dense(feedForward, layer.feedForwardNorm, layer.feedForward);
    }
  }

  head(input: GPUBuffer): void {
    const { weights, scratch } = this.#parts;
    this.#product({ weight: weights.head }, input, scratch.logits, { gain: weights.finalNorm });
  }

  #groupedQuery(spec: GroupedQueryAttentionSpec, layer: GpuLayer, weights: GpuGroupedQuery, cache: LayerCache): void {
    const { inputs, scratch } = this.#parts;
    const { x, gain } = this.#normalised(layer.attentionNorm);
    this.#product(weights.query, x, scratch.query, gain);
    this.#product(weights.key, x, scratch.key, gain);
    this.#product(weights.value, x, scratch.value, gain);
    const { epsilon, precision, pages, values } = this.#cacheOf(cache);
    this.#builder.add(
      prepareHeadsKernel(spec, epsilon, precision),
      [
        inputs.rowBuffer,
        pages,
        inputs.anglesOf(spec),
        scratch.key,
        scratch.value,
        ...(weights.norms ? [weights.norms] : []),
        scratch.query,
        cache.keys,
        values,
      ],
      () => [spec.numAttentionHeads + 2 * spec.numKeyValueHeads, inputs.tokens],
    );
    this.#attend(attentionShape(spec), cache, weights.sinks);
    this.#product(weights.output, scratch.attended, scratch.hidden, { accumulate: true });
  }

  #cacheOf({ span, keys, values }: LayerCache) {
    const { spec, cache, inputs } = this.#parts;
    const pages = inputs.pageBuffers[span];
    if (!pages) throw new Error('every span has its page numbers');
    return { epsilon: spec.normEpsilon, precision: cache.precision, pages, values: values ?? keys };
  }

  /** From `query` to `attended`. */
  #attend(shape: AttentionShape, cache: LayerCache, sinks: GPUBuffer | undefined): void {
    const { spec, inputs, scratch } = this.#parts;
    const { precision, pages, values } = this.#cacheOf(cache);
    // A window has few keys: one workgroup reads them at once.
    const splits = this.#rows === 'prompt' || shape.slidingWindow !== undefined ? 1 : this.#parts.splits;
    const tokens = this.#rows === 'prompt' ? Number.MAX_SAFE_INTEGER : this.#rows;
    const tile = { ...attentionTile(shape, tokens), queries: queriesPerTile(spec, this.#rows) };
    const parts = this.#partsOf(shape, splits);
    this.#builder.add(
      attentionKernel(shape, tile, splits, precision),
      [
        inputs.rowBuffer,
        pages,
        inputs.tileBuffer,
        scratch.query,
        cache.keys,
        values,
        ...(sinks && splits === 1 ? [sinks] : []),
        splits === 1 ? scratch.attended : parts,
      ],
      () => [shape.heads / tile.headsPerTile, inputs.tiles, splits],
    );
    if (splits === 1) return;
    this.#builder.add(attentionMergeKernel(shape, splits), [parts, ...(sinks ? [sinks] : []), scratch.attended], () => [
      shape.heads,
      inputs.tokens,
    ]);
  }

  /** The kernels take the number of rows from the length of this binding. */
  #partsOf({ heads, valueDim }: AttentionShape, splits: number): GPUBufferBinding {
    const rows = this.#rows === 'prompt' ? 1 : this.#rows;
    return { buffer: this.#parts.scratch.parts, offset: 0, size: 4 * splits * rows * heads * (valueDim + 4) };
  }

  #dense(spec: DenseSpec, norm: GPUBuffer, { gate, up, down }: GpuDense): void {
    const { inputs, scratch } = this.#parts;
    const { x, gain } = this.#normalised(norm);
    this.#product(gate, x, scratch.gate, gain);
    this.#product(up, x, scratch.up, gain);
    const kernel = activationKernel(spec.activation, spec.intermediateSize);
    this.#builder.add(kernel, [scratch.gate, scratch.up], () => activationGroups(spec.intermediateSize, inputs.tokens));
    this.#product(down, scratch.up, scratch.hidden, { accumulate: true });
  }

  /** The normalised residual stream: for few rows by the products themselves, which are handed the gain. */
  #normalised(gain: GPUBuffer): { readonly x: GPUBuffer; readonly gain: { readonly gain?: GPUBuffer } } {
    const { gpu, spec, inputs, scratch } = this.#parts;
    if (this.#rows !== 'prompt') return { x: scratch.hidden, gain: { gain } };
    const kernel = rmsNormKernel(spec.hiddenSize, spec.normEpsilon, gpu.capabilities);
    this.#builder.add(kernel, [scratch.hidden, gain, scratch.normed], () => [inputs.tokens]);
    return { x: scratch.normed, gain: {} };
  }

  /** y (+)= x · Wᵀ + bias; with `gain`, x is normalised first. */
  #product(
    { weight, bias }: GpuLinear,
    x: GPUBuffer,
    y: GPUBuffer,
    { gain, accumulate = false }: { readonly gain?: GPUBuffer; readonly accumulate?: boolean },
  ): void {
    const { gpu, spec, inputs } = this.#parts;
    for (const { buffer, ...piece } of weight.pieces) {
      const shape = { ...pieceShape(weight, piece), bias: bias !== undefined, accumulate };
      const biases = bias ? [bias] : [];
      if (this.#rows === 'prompt') {
        this.#builder.add(matrixMatrixKernel(shape), [buffer, x, ...biases, inputs.paramBuffer, y], () =>
          matrixMatrixGroups(shape, inputs.tokens),
        );
        continue;
      }
      const norm = gain ? { norm: { epsilon: spec.normEpsilon } } : {};
      const kernel = matrixVectorKernel({ ...shape, ...norm, tokens: this.#rows }, gpu.capabilities);
      const buffers = [buffer, x, ...(gain ? [gain] : []), ...biases, y];
      this.#builder.add(kernel, buffers, matrixVectorGroups(shape.layout.rows));
    }
  }
}

function pieceShape(
  { rows, blockScale }: GpuMatrix,
  { layout, firstRow }: { readonly layout: ProductShape['layout']; readonly firstRow: number },
): ProductShape {
  return { layout, firstRow, outputRows: rows, ...(blockScale && { blockScale }) };
}
