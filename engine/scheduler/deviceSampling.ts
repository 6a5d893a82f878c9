/** Whether the device samples the next tokens itself, and how many before the host looks at them: the one place that decides it. */
import type { Decoder, SamplingSlice } from '../backend/backend.ts';
import type { FreeTokens } from '../sampling/logitsProcessor.ts';
import type { Job } from './job.ts';
import type { StepSlice } from './nextStep.ts';

/** What a cancellation, or a request of a better class, waits for at most; a single token may take longer. */
const stepMs = 25;

export interface DrawStep {
  readonly slices: readonly SamplingSlice[];
  readonly steps: number;
}

export class DeviceDraws {
  readonly #decoder: () => Decoder;
  /** Of one token, in the last step. */
  #tokenMs = stepMs;

  /** `decoder`: after a loss it is another one. */
  constructor(decoder: () => Decoder) {
    this.#decoder = decoder;
  }

  /** The step for these slices, where the device can draw all their tokens; undefined: they need logits. */
  plan(slices: readonly StepSlice<Job>[]): DrawStep | undefined {
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
    return { steps, slices: slices.flatMap(({ request }, i) => drawSlice(request, steps, allowances[i]) ?? []) };
  }

  draw({ slices, steps }: DrawStep): Promise<number[][]> {
    const { deviceSampling } = this.#decoder();
    if (!deviceSampling) throw new Error('A step was planned for a device that draws nothing.');
    return deviceSampling.sample(slices, steps);
  }

  took(step: DrawStep, ms: number): void {
    this.#tokenMs = ms / step.steps;
  }

  /** What the device may choose for this slice; undefined: it needs logits. */
  #allowance({ request, tokens, drafts, logits }: StepSlice<Job>): FreeTokens | undefined {
    const { drawing } = request.request;
    const decodes = tokens === 1 && drafts === 0 && logits === 'last';
    if (!decodes || !drawing || !this.#decoder().deviceSampling?.supports(drawing.rules)) return undefined;
    return drawing.free();
  }

  #paced(): number {
    return Math.max(1, Math.min(this.#decoder().deviceSampling?.maxSteps ?? 1, Math.floor(stepMs / this.#tokenMs)));
  }

  #tokensLeft({ request, generatedTokens, sequence }: Job): number {
    return Math.min(request.maxTokens - generatedTokens, this.#decoder().contextTokens - sequence.length);
  }
}

function drawSlice(
  { request: { drawing }, sequence, tokens }: Job,
  steps: number,
  allowance: FreeTokens | undefined,
): SamplingSlice | undefined {
  const token = tokens.at(-1);
  if (!drawing || !allowance || token === undefined) return undefined;
  const { rules, history, stopIds } = drawing;
  const { forbidden } = allowance;
  return { sequence, token, rules, history, stopIds, forbidden, uniforms: drawing.uniforms(steps) };
}
