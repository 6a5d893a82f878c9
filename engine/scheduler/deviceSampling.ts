/** Decides whether the device samples the next tokens itself, and how many before the host sees them. Nothing else decides it. */
import type { Decoder, SamplingSlice } from '../backend/backend.ts';
import type { FreeTokens } from '../sampling/logitsProcessor.ts';
import type { Job, StepSlice } from './job.ts';

/** The longest wait of a cancellation or of a request of a better class, unless a single token takes longer. */
const stepMs = 25;

export interface DeviceStep {
  readonly slices: readonly SamplingSlice[];
  readonly steps: number;
}

export class DeviceSampler {
  readonly #decoder: () => Decoder;
  /** Time of one token in the last step. */
  #tokenMs = stepMs;

  /** @param decoder the current one; it is replaced after a device loss. */
  constructor(decoder: () => Decoder) {
    this.#decoder = decoder;
  }

  /** @returns the step for these slices if the device can sample all their tokens; undefined if the host needs logits. */
  plan(slices: readonly StepSlice<Job>[]): DeviceStep | undefined {
    const allowances = slices.flatMap((slice) => this.#allowance(slice) ?? []);
    if (allowances.length < slices.length) return undefined;
    const wanted = Math.min(
      this.#paced(),
      ...allowances.map(({ tokens }) => tokens),
      ...slices.map(({ request }) => this.#tokensLeft(request)),
    );
    const canAllocate = this.#decoder().canAllocate(
      slices.map(({ request: { sequence } }) => ({ sequence, tokens: wanted })),
    );
    const steps = canAllocate ? wanted : 1;
    return { steps, slices: slices.flatMap(({ request }, i) => samplingSlice(request, steps, allowances[i]) ?? []) };
  }

  sample({ slices, steps }: DeviceStep): Promise<number[][]> {
    const { deviceSampling } = this.#decoder();
    if (!deviceSampling) throw new Error('A step was planned for a device that cannot sample.');
    return deviceSampling.sample(slices, steps);
  }

  took(step: DeviceStep, ms: number): void {
    this.#tokenMs = ms / step.steps;
  }

  /** The tokens that the device may sample for this slice; undefined if the host needs logits. */
  #allowance({ request, tokens, drafts, logits }: StepSlice<Job>): FreeTokens | undefined {
    const { sampling } = request.request;
    const decodes = tokens === 1 && drafts === 0 && logits === 'last';
    if (!decodes || !sampling || !this.#decoder().deviceSampling?.supports(sampling.rules)) return undefined;
    return sampling.free();
  }

  #paced(): number {
    return Math.max(1, Math.min(this.#decoder().deviceSampling?.maxSteps ?? 1, Math.floor(stepMs / this.#tokenMs)));
  }

  #tokensLeft({ request, generatedTokens, sequence }: Job): number {
    return Math.min(request.maxTokens - generatedTokens, this.#decoder().contextTokens - sequence.length);
  }
}

function samplingSlice(
  { request: { sampling }, sequence, tokens }: Job,
  steps: number,
  allowance: FreeTokens | undefined,
): SamplingSlice | undefined {
  const token = tokens.at(-1);
  if (!sampling || !allowance || token === undefined) return undefined;
  const { rules, history, stopIds } = sampling;
  const { forbidden } = allowance;
  return { sequence, token, rules, history, stopIds, forbidden, uniforms: sampling.uniforms(steps) };
}
