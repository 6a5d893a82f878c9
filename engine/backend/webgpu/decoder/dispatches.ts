/** A recorded list of dispatches: bound once, encoded for every pass. */
import type { Kernel, KernelDevice, KernelSource } from '../device/gpu.ts';

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

  constructor(gpu: KernelDevice) {
    this.#gpu = gpu;
  }

  /** Later steps belong to the next layer. */
  beginLayer(): void {
    this.#layerStarts.push(this.#steps.length);
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
    return new Plan(await Promise.all(this.#steps), this.#layerStarts);
  }
}

export class Plan {
  readonly #steps: readonly Step[];
  readonly #layerStarts: readonly number[];

  constructor(steps: readonly Step[], layerStarts: readonly number[]) {
    this.#steps = steps;
    this.#layerStarts = layerStarts;
  }

  get dispatches(): number {
    return this.#steps.length;
  }

  /** Every kernel in order, with the workgroups that it would start now. */
  kernels(): { readonly source: KernelSource; readonly groups: Groups }[] {
    return this.#steps.map(({ kernel, groups }) => ({ source: kernel.source, groups: groupsNow(groups) }));
  }

  /** Each kernel once, with how often the plan starts it; `encode` starts the first of them `times` times. */
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

  /** Of each layer; the plan ends with the last. */
  get layerDispatches(): number[] {
    return this.#layerStarts.map((start, i) => (this.#layerStarts[i + 1] ?? this.#steps.length) - start);
  }

  encode(pass: GPUComputePassEncoder): void {
    for (const step of this.#steps) encodeStep(pass, step);
  }
}

function encodeStep(pass: GPUComputePassEncoder, { kernel, bindGroup, groups }: Step): void {
  const [x, y = 1, z = 1] = groupsNow(groups);
  pass.setPipeline(kernel.pipeline);
  pass.setBindGroup(0, bindGroup);
  pass.dispatchWorkgroups(x, y, z);
}
