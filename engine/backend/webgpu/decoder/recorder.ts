/** Records the dispatches of one plan. The number of rows decides how it multiplies and normalises. */
import type { DecoderSpec } from '../../../model/spec/spec.ts';
import type { KernelDevice, KernelSource } from '../device/gpu.ts';
import { matrixMatrixGroups, matrixMatrixKernel } from '../kernels/matrixMatrix.ts';
import { matrixVectorGroups, matrixVectorKernel } from '../kernels/matrixVector.ts';
import { rmsNormKernel } from '../kernels/rmsNorm.ts';
import { splitHalvesKernel } from '../kernels/splitHalves.ts';
import type { DecoderCache } from './cache.ts';
import { type Groups, type Plan, PlanBuilder } from './dispatches.ts';
import type { GpuLinear, GpuWeights } from './gpuWeights.ts';
import type { RunInputs } from './inputs.ts';
import type { Scratch } from './scratch.ts';

/** Everything that a plan may bind. */
export interface DecoderParts {
  readonly gpu: KernelDevice;
  readonly spec: DecoderSpec;
  readonly weights: GpuWeights;
  readonly cache: DecoderCache;
  readonly inputs: RunInputs;
  readonly scratch: Scratch;
}

/** `rows`: 1 to 16, or `prompt`. */
export type PlanRows = number | 'prompt';

export interface ProductOptions {
  /** x is normalised with it first. */
  readonly gain?: GPUBuffer;
  /** Adds to y. */
  readonly accumulate?: boolean;
  readonly rowsPerHead?: number;
}

export class Recorder {
  readonly parts: DecoderParts;
  readonly rows: PlanRows;
  readonly #builder: PlanBuilder;
  /** The buffer whose halves are in `scratch.halves`, until it is written to. */
  #halved: GPUBuffer | undefined;

  constructor(parts: DecoderParts, rows: PlanRows) {
    this.parts = parts;
    this.rows = rows;
    this.#builder = new PlanBuilder(parts.gpu);
  }

  beginLayer(): void {
    this.#builder.beginLayer();
  }

  finish(): Promise<Plan> {
    return this.#builder.finish();
  }

  add(kernel: KernelSource, buffers: readonly (GPUBuffer | GPUBufferBinding)[], groups: Groups | (() => Groups)): void {
    if (kernel.bindings.some((kind, i) => kind === 'write' && buffers[i] === this.#halved)) this.#halved = undefined;
    this.#builder.add(kernel, buffers, groups);
  }

  /**
   * The binding of x for tiles, with `rowsEach` rows of `width` a token: x itself, or its halves and scales for subgroup matrices.
   */
  tileOperand(x: GPUBuffer, width: number, rowsEach = 1): readonly GPUBuffer[] {
    const { gpu, inputs, scratch } = this.parts;
    if (!gpu.capabilities.subgroupMatrix) return [x];
    const halves = [scratch.halves, scratch.halfScales];
    if (this.#halved !== x) {
      this.add(splitHalvesKernel(width), [x, ...halves], () => [rowsEach * inputs.tokens]);
      this.#halved = x;
    }
    return halves;
  }

  /** Normalises x: for few rows inside the matmuls, which get the gain; for a prompt once, into `normed`. */
  normalised(
    x: GPUBuffer,
    gain: GPUBuffer,
    width: number,
    normed: GPUBuffer,
  ): { readonly x: GPUBuffer; readonly gain: { readonly gain?: GPUBuffer } } {
    if (this.rows !== 'prompt') return { x, gain: { gain } };
    this.normalise(x, gain, width, normed);
    return { x: normed, gain: {} };
  }

  normalise(x: GPUBuffer, gain: GPUBuffer, width: number, normed: GPUBuffer): void {
    const { gpu, spec, inputs } = this.parts;
    this.add(rmsNormKernel(width, spec.normEpsilon, gpu.capabilities), [x, gain, normed], () => [inputs.tokens]);
  }

  /** Adds a block's output `x · Wᵀ + bias` to the residual stream, normalised first where the model has a norm there. */
  addOutput(linear: GpuLinear, x: GPUBuffer, postNorm: GPUBuffer | undefined): void {
    const { gpu, spec, inputs, scratch } = this.parts;
    if (!postNorm) {
      this.product(linear, x, scratch.hidden, { accumulate: true });
      return;
    }
    // `normed` is free: the block's own products have read it.
    this.product(linear, x, scratch.normed);
    const kernel = rmsNormKernel(spec.hiddenSize, spec.normEpsilon, gpu.capabilities, true);
    this.add(kernel, [scratch.normed, postNorm, scratch.hidden], () => [inputs.tokens]);
  }

  /** y (+)= x · Wᵀ + bias */
  product({ weight, bias }: GpuLinear, x: GPUBuffer, y: GPUBuffer, options: ProductOptions = {}): void {
    const { gpu, spec, inputs } = this.parts;
    const { gain, accumulate = false, rowsPerHead } = options;
    const biases = bias ? [bias] : [];
    const isPrompt = this.rows === 'prompt';
    const heads = rowsPerHead === undefined ? 1 : weight.rows / rowsPerHead;
    const operand = isPrompt ? this.tileOperand(x, heads * weight.columns) : [x];
    for (const { buffer, layout, firstRow } of weight.pieces) {
      const shape = {
        layout,
        firstRow,
        outputRows: weight.rows,
        bias: bias !== undefined,
        accumulate,
        ...(weight.blockScale && { blockScale: weight.blockScale }),
        ...(rowsPerHead !== undefined && { rowsPerHead }),
      };
      if (this.rows === 'prompt') {
        const kernel = matrixMatrixKernel(shape, gpu.capabilities);
        this.add(kernel, [buffer, ...operand, ...biases, inputs.paramBuffer, y], () =>
          matrixMatrixGroups(shape, inputs.tokens),
        );
        continue;
      }
      const norm = gain ? { norm: { epsilon: spec.normEpsilon } } : {};
      const kernel = matrixVectorKernel({ ...shape, ...norm, tokens: this.rows }, gpu.capabilities);
      this.add(kernel, [buffer, x, ...(gain ? [gain] : []), ...biases, y], matrixVectorGroups(layout.rows));
    }
  }
}
