/** Steps whose tokens the device draws itself, several before it is asked again. */
import type { Decoder, DrawSlice } from '../backend/backend.ts';
import type { Job } from './job.ts';
import type { StepSlice } from './nextStep.ts';

/** What a cancellation, or a request of a better class, waits for at most; a single token may take longer. */
const stepMs = 25;

export interface DrawStep {
  readonly slices: readonly DrawSlice[];
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
    if (!slices.every((slice) => this.#isDrawable(slice))) return undefined;
    const wanted = Math.min(this.#paced(), ...slices.map(({ request }) => this.#tokensLeft(request)));
    const hasRoom = this.#decoder().hasRoom(slices.map(({ request: { sequence } }) => ({ sequence, tokens: wanted })));
    const steps = hasRoom ? wanted : 1;
    return { steps, slices: slices.flatMap(({ request }) => drawSlice(request, steps) ?? []) };
  }

  draw({ slices, steps }: DrawStep): Promise<number[][]> {
    const { deviceSampling } = this.#decoder();
    if (!deviceSampling) throw new Error('A step was planned for a device that draws nothing.');
    return deviceSampling.draw(slices, steps);
  }

  took(step: DrawStep, ms: number): void {
    this.#tokenMs = ms / step.steps;
  }

  #isDrawable({ request, tokens, drafts, logits }: StepSlice<Job>): boolean {
    const { drawing } = request.request;
    const decodes = tokens === 1 && drafts === 0 && logits === 'last';
    if (!decodes || !drawing?.isFree()) return false;
    return this.#decoder().deviceSampling?.follows(drawing.rules) === true;
  }

  #paced(): number {
    return Math.max(1, Math.min(this.#decoder().deviceSampling?.mostSteps ?? 1, Math.floor(stepMs / this.#tokenMs)));
  }

  #tokensLeft({ request, generatedTokens, sequence }: Job): number {
    return Math.min(request.maxTokens - generatedTokens, this.#decoder().contextTokens - sequence.length);
  }
}

function drawSlice({ request: { drawing }, sequence, tokens }: Job, steps: number): DrawSlice | undefined {
  const token = tokens.at(-1);
  if (!drawing || token === undefined) return undefined;
  const { rules, history, stopIds } = drawing;
  return { sequence, token, rules, history, stopIds, uniforms: drawing.uniforms(steps) };
}
