/** A recorded list of dispatches: bound once, encoded again for every run. */
import type { Gpu, Kernel, KernelSource } from '../device/gpu.ts';

export type Groups = readonly [number, number?, number?];

interface Step {
  readonly kernel: Kernel;
  readonly bindGroup: GPUBindGroup;
  readonly groups: Groups | (() => Groups);
}

/** Collects steps while their pipelines compile side by side. */
export class PlanBuilder {
  readonly #gpu: Gpu;
  readonly #steps: Promise<Step>[] = [];
  readonly #layerStarts: number[] = [];

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  /** What is added from here on belongs to the next layer. */
  beginLayer(): void {
    this.#layerStarts.push(this.#steps.length);
  }

  /** `groups`: fixed, or asked for at each run. */
  add(source: KernelSource, buffers: readonly (GPUBuffer | GPUBufferBinding)[], groups: Groups | (() => Groups)): void {
    const step = this.#gpu.kernel(source).then((kernel) => {
      return { kernel, bindGroup: this.#gpu.bind(kernel, buffers), groups };
    });
    // A failure is seen by `finish`; until then it must not count as unhandled.
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

  /** Of each layer; the plan ends with the last. */
  get layerDispatches(): number[] {
    return this.#layerStarts.map((start, i) => (this.#layerStarts[i + 1] ?? this.#steps.length) - start);
  }

  encode(pass: GPUComputePassEncoder): void {
    for (const { kernel, bindGroup, groups } of this.#steps) {
      const [x, y = 1, z = 1] = typeof groups === 'function' ? groups() : groups;
      pass.setPipeline(kernel.pipeline);
      pass.setBindGroup(0, bindGroup);
      pass.dispatchWorkgroups(x, y, z);
    }
  }
}
