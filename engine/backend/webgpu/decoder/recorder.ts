/** A recorded list of dispatches: bound once, encoded for every pass. */

import type { DecoderSpec } from '../../../model/spec/spec.ts';
import type { Kernel, KernelDevice, KernelSource } from '../device/gpu.ts';
import { matrixMatrixGroups, matrixMatrixKernel, matrixVectorGroups, matrixVectorKernel } from '../kernels/linear.ts';
import { splitHalvesKernel } from '../kernels/matrixTiles.ts';
import { normKernel } from '../kernels/norms.ts';
import type { DecoderCache } from './cache.ts';
import type { GpuLinear, GpuWeights } from './gpuWeights.ts';
import type { HostTask } from './outsideExperts.ts';
import type { RunInputs, Scratch } from './scratch.ts';

export type Groups = readonly [number, number?, number?];

interface Step {
  readonly kernel: Kernel;
  readonly bindGroup: GPUBindGroup;
  readonly groups: Groups | (() => Groups);
}

const groupsNow = (groups: Groups | (() => Groups)): Groups => (typeof groups === 'function' ? groups() : groups);

/** Collects steps while their pipelines compile in parallel. */
export class PlanBuilder {
  readonly #gpu: KernelDevice;
  readonly #steps: Promise<Step>[] = [];
  readonly #layerStarts: number[] = [];
  readonly #cuts: Cut[] = [];

  constructor(gpu: KernelDevice) {
    this.#gpu = gpu;
  }

  /** Later steps belong to the next layer. */
  beginLayer(): void {
    this.#layerStarts.push(this.#steps.length);
  }

  /** The host does this task before the steps that are added later. */
  cut(task: HostTask): void {
    this.#cuts.push({ step: this.#steps.length, layer: this.#layerStarts.length - 1, task });
  }

  /** `groups`: constant, or computed for each pass. */
  add(source: KernelSource, buffers: readonly (GPUBuffer | GPUBufferBinding)[], groups: Groups | (() => Groups)): void {
    const step = this.#gpu.kernel(source).then((kernel) => {
      return { kernel, bindGroup: this.#gpu.bind(kernel, buffers), groups };
    });
    // `finish` reports the failure; until then it must not count as unhandled.
    step.catch(() => {});
    this.#steps.push(step);
  }

  async finish(): Promise<Plan> {
    return new Plan(await Promise.all(this.#steps), this.#layerStarts, this.#cuts);
  }
}

/** A task of the host before a step. */
interface Cut {
  readonly step: number;
  readonly layer: number;
  readonly task: HostTask;
}

export class Plan {
  readonly cuts: readonly Cut[];
  readonly #steps: readonly Step[];
  readonly #layerStarts: readonly number[];

  constructor(steps: readonly Step[], layerStarts: readonly number[], cuts: readonly Cut[]) {
    this.#steps = steps;
    this.#layerStarts = layerStarts;
    this.cuts = cuts;
  }

  get dispatches(): number {
    return this.#steps.length;
  }

  /** Every kernel in order, with its current number of workgroups. */
  kernels(): { readonly source: KernelSource; readonly groups: Groups }[] {
    return this.#steps.map(({ kernel, groups }) => ({ source: kernel.source, groups: groupsNow(groups) }));
  }

  /**
   * Each kernel once, with its number of dispatches in the plan; `encode` dispatches the first of them `times` times.
   */
  kinds(): {
    readonly source: KernelSource;
    readonly dispatches: number;
    readonly encode: (pass: GPUComputePassEncoder, times: number) => void;
  }[] {
    const firsts = new Map(this.#steps.toReversed().map((step) => [step.kernel.source.code, step]));
    return [...firsts.values()].map((first) => ({
      source: first.kernel.source,
      dispatches: this.#steps.filter(({ kernel }) => kernel === first.kernel).length,
      encode: (pass, times) => {
        for (let i = 0; i < times; i++) encodeStep(pass, first);
      },
    }));
  }

  /** Dispatches of each layer; the plan ends with the last layer. */
  get layerDispatches(): number[] {
    return this.#layerStarts.map((start, i) => (this.#layerStarts[i + 1] ?? this.#steps.length) - start);
  }

  /** Steps `[from, to)`. */
  encode(pass: GPUComputePassEncoder, from = 0, to = this.#steps.length): void {
    for (const step of this.#steps.slice(from, to)) encodeStep(pass, step);
  }
}

function encodeStep(pass: GPUComputePassEncoder, { kernel, bindGroup, groups }: Step): void {
  const [x, y = 1, z = 1] = groupsNow(groups);
  pass.setPipeline(kernel.pipeline);
  pass.setBindGroup(0, bindGroup);
  pass.dispatchWorkgroups(x, y, z);
}

// Records the dispatches of one plan. The number of rows decides how it multiplies and normalises.

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

interface ProductOptions {
  /** Gain of a norm that is applied to x first. */
  readonly gain?: GPUBuffer;
  /** Epsilon of that norm. Default: the model's. */
  readonly epsilon?: number;
  /** Adds to y. */
  readonly accumulate?: boolean;
  /** y is the GELU of the result. */
  readonly gelu?: boolean;
  readonly rowsPerHead?: number;
}

/** A block's contribution to the residual stream: `x · Wᵀ + bias`. */
export interface BlockOutput {
  readonly linear: GpuLinear;
  readonly x: GPUBuffer;
}

export class Recorder {
  readonly parts: DecoderParts;
  readonly rows: PlanRows;
  /** Whether the CPU computes the experts that it can. */
  readonly computesExperts: boolean;
  readonly #builder: PlanBuilder;
  /** The buffer whose halves are in `scratch.halves`; unset once it is written to. */
  #halved: GPUBuffer | undefined;

  constructor(parts: DecoderParts, rows: PlanRows, computesExperts = rows !== 'prompt') {
    this.parts = parts;
    this.rows = rows;
    this.computesExperts = computesExperts;
    this.#builder = new PlanBuilder(parts.gpu);
  }

  beginLayer(): void {
    this.#builder.beginLayer();
  }

  /** See `PlanBuilder.cut`. */
  cut(task: HostTask): void {
    this.#builder.cut(task);
  }

  finish(): Promise<Plan> {
    return this.#builder.finish();
  }

  add(kernel: KernelSource, buffers: readonly (GPUBuffer | GPUBufferBinding)[], groups: Groups | (() => Groups)): void {
    if (kernel.bindings.some((kind, i) => kind === 'write' && buffers[i] === this.#halved)) this.#halved = undefined;
    this.#builder.add(kernel, buffers, groups);
  }

  /**
   * The binding of x for tiles, with `rowsEach` rows of `width` values a token: x itself, or its halves and scales for
   * subgroup matrices.
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

  /**
   * Normalises x. For few rows, the matmuls do it and get the gain. For a prompt, for LayerNorm, and on request, it is
   * done once, into `normed`.
   */
  normalised(
    x: GPUBuffer,
    gain: GPUBuffer,
    width: number,
    normed: GPUBuffer,
    {
      groups = () => [this.parts.inputs.tokens],
      epsilon = this.parts.spec.normEpsilon,
      once = false,
    }: { readonly groups?: Groups | (() => Groups); readonly epsilon?: number; readonly once?: boolean } = {},
  ): { readonly x: GPUBuffer; readonly gain: Pick<ProductOptions, 'gain' | 'epsilon'> } {
    const { gpu, spec } = this.parts;
    if (this.rows !== 'prompt' && spec.norm !== 'layer' && !once) return { x, gain: { gain, epsilon } };
    this.add(normKernel({ ...spec, normEpsilon: epsilon }, width, gpu.capabilities), [x, gain, normed], groups);
    return { x: normed, gain: {} };
  }

  /** Adds a block's output `x · Wᵀ + bias` to the residual stream, normalised first if the model has a norm there. */
  addOutput({ linear, x }: BlockOutput, postNorm?: GPUBuffer): void {
    const { gpu, spec, inputs, scratch } = this.parts;
    if (!postNorm) {
      this.product(linear, x, scratch.hidden, { accumulate: true });
      return;
    }
    // `normed` is free, because the block's matmuls have already read it.
    this.product(linear, x, scratch.normed);
    const kernel = normKernel(spec, spec.hiddenSize, gpu.capabilities, true);
    this.add(kernel, [scratch.normed, postNorm, scratch.hidden], () => [inputs.tokens]);
  }

  /** y (+)= x · Wᵀ + bias */
  product({ weight, bias }: GpuLinear, x: GPUBuffer, y: GPUBuffer, options: ProductOptions = {}): void {
    const { gpu, spec, inputs } = this.parts;
    const { gain, epsilon = spec.normEpsilon, accumulate = false, gelu = false, rowsPerHead } = options;
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
        gelu,
        ...(weight.blockScale && { blockScale: weight.blockScale }),
        ...(rowsPerHead !== undefined && { rowsPerHead }),
      };
      if (this.rows === 'prompt') {
        const kernel = matrixMatrixKernel(shape, gpu.capabilities);
        this.add(kernel, [buffer, ...operand, ...biases, inputs.paramBuffer, y], () =>
          matrixMatrixGroups(shape, inputs.tokens, gpu.capabilities),
        );
        continue;
      }
      const norm = gain ? { norm: { epsilon } } : {};
      const kernel = matrixVectorKernel({ ...shape, ...norm, tokens: this.rows }, gpu.capabilities);
      this.add(kernel, [buffer, x, ...(gain ? [gain] : []), ...biases, y], matrixVectorGroups(layout.rows));
    }
  }
}
