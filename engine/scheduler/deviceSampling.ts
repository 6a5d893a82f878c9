/** Decides whether the device samples the next tokens itself, and how many before the host sees them. Nothing else decides it. */
import type { Decoder, SamplingSlice } from '../backend/backend.ts';
import type { FreeTokens } from '../sampling/logitsProcessor.ts';
import type { Job, StepSlice } from './job.ts';

/** The longest wait of a cancellation or of a request of a better class, unless a single token takes longer; tokens ahead included. */
const stepMs = 25;

export interface DeviceStep {
  readonly slices: readonly SamplingSlice[];
  readonly steps: number;
  /** Tokens that the device goes on with while these are delivered. */
  readonly ahead: number;
  /** The device began with them in the step before. */
  readonly begun: boolean;
}

export class DeviceSampler {
  readonly #decoder: () => Decoder;
  /** Time of one token in the last step. */
  #tokenMs = stepMs;
  /** Of the last step. */
  #ahead = 0;

  /** @param decoder the current one; it is replaced after a device loss. */
  constructor(decoder: () => Decoder) {
    this.#decoder = decoder;
  }

  /**
   * @param mayRunAhead nobody else waits for the device
   * @returns the step for these slices if the device can sample all their tokens; undefined if the host needs logits.
   */
  plan(slices: readonly StepSlice<Job>[], mayRunAhead: boolean): DeviceStep | undefined {
    const begunSteps = this.#ahead;
    this.#ahead = 0;
    const allowances = slices.flatMap((slice) => this.#allowance(slice) ?? []);
    if (allowances.length < slices.length) return undefined;
    const most = Math.min(
      ...allowances.map(({ tokens }) => tokens),
      ...slices.map(({ request }) => this.#tokensLeft(request)),
    );
    const decoder = this.#decoder();
    const hasRoom = (tokens: number): boolean =>
      decoder.canAllocate(slices.map(({ request: { sequence } }) => ({ sequence, tokens })));
    const paced = this.#paced();
    const runsAhead = mayRunAhead && paced > 1 && decoder.deviceSampling?.samplesAhead === true;
    const share = runsAhead ? Math.floor(paced / 2) : paced;
    const begun = begunSteps > 0 && begunSteps <= most;
    const wanted = begun ? begunSteps : Math.min(most, share);
    const steps = hasRoom(wanted) ? wanted : 1;
    const further = runsAhead ? Math.min(share, most - steps) : 0;
    const ahead = hasRoom(steps + further) ? further : 0;
    this.#ahead = ahead;
    const sampled = slices.flatMap(({ request }, i) => samplingSlice(request, steps + ahead, allowances[i]) ?? []);
    return { steps, ahead, begun, slices: sampled };
  }

  sample({ slices, steps, ahead }: DeviceStep): Promise<number[][]> {
    const { deviceSampling } = this.#decoder();
    if (!deviceSampling) throw new Error('A step was planned for a device that cannot sample.');
    return deviceSampling.sample(slices, steps, ahead);
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
