/** More than one token a step: the device samples several, or draft tokens are verified. */
import type { Decoder, SamplingSlice } from '../backend/backend.ts';
import type { FreeTokens } from '../sampling/logitsProcessor.ts';
import type { DraftModel } from './draftModel.ts';
import type { Job, StatisticsRecorder, StepSlice } from './job.ts';
import type { RequestQueue } from './requestQueue.ts';

// Decides whether the device samples the next tokens, and how many before the host sees them. Nothing else decides
// this.

/**
 * Longest wait of a cancellation or of a better class, unless a single token takes longer. Includes the tokens ahead.
 */
const stepMs = 25;

export interface DeviceStep {
  readonly slices: readonly SamplingSlice[];
  readonly steps: number;
  /** Tokens that the device already computes while these are delivered. */
  readonly ahead: number;
  /** The device began these tokens in the previous step. */
  readonly begun: boolean;
}

export class DeviceSampler {
  readonly #decoder: () => Decoder;
  /** Time of one token in the last step. */
  #tokenMs = stepMs;
  /** Tokens ahead in the last step. */
  #ahead = 0;

  /** @param decoder the current one; it is replaced after a device loss. */
  constructor(decoder: () => Decoder) {
    this.#decoder = decoder;
  }

  /**
   * @param mayRunAhead no other request waits for the device.
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

// Speculative decoding by prompt lookup (Saxena 2023, "Prompt lookup decoding"): edits and answers about code repeat the
// prompt, so the tokens that followed the last few tokens before are likely to follow them again. Draft tokens are
// verified in one forward pass as in Leviathan et al. 2023: sample from the model, and accept while the sample equals the
// draft. The length of a draft depends on measured pass times and on the measured acceptance rate, which is known even
// for tokens that were predicted but not drafted.

/** How much a draft may lengthen a forward pass, and so the wait of a better class: the larger of both values. */
interface DelayBudget {
  readonly ms: number;
  /** As a share of a pass without draft tokens. */
  readonly share: number;
}

const parameters = {
  /** Tokens that must match before the tokens after them are a draft. */
  matchTokens: 3,
  /** The longest drafts serve mixture-of-experts models, whose passes cost by the experts that they touch. */
  draftLengths: [2, 4, 8, 16, 32, 48],
  idleBudget: { ms: 40, share: 1 } satisfies DelayBudget,
  /** A user who types doesn't notice this delay. */
  typingBudget: { ms: 10, share: 0.9 } satisfies DelayBudget,
  /** The median of this many measurements counts, so that a single slow pass changes nothing. */
  measurements: 5,
  /** With fewer measurements, the cost of a length is extrapolated from shorter lengths. */
  minSamples: 3,
  /** A draft must be faster than plain decoding by this factor, because its cost is known only roughly. */
  minSpeedup: 1.05,
  /** One draft in this many has the next longer length, because its measured cost may be wrong or out of date. */
  probeInterval: 64,
  /** At least one pass in this many has no draft tokens; its time is the unit for the other passes. */
  plainInterval: 32,
  /** Cost of one more row, as a share of a pass of one row, until it is measured. */
  assumedRowShare: 0.25,
  /** The acceptance rate of a new request, weighted like this many tokens. */
  initialAcceptance: { rate: 0.6, tokens: 4 },
  /** Weight of older tokens in the acceptance rate: copied text is followed by new text. */
  decay: 0.95,
} as const;

/** The last measurements of one quantity. */
class Measurements {
  readonly #last: number[] = [];

  get count(): number {
    return this.#last.length;
  }

  get median(): number {
    return this.#last.toSorted((a, b) => a - b)[(this.#last.length - 1) >> 1] ?? Number.NaN;
  }

  add(value: number): void {
    this.#last.push(value);
    if (this.#last.length > parameters.measurements) this.#last.shift();
  }
}

/**
 * The cost of draft tokens on one decoder, as a multiple of a pass of the same request without draft tokens at about
 * the same time. Passes take longer with a longer context and on a busy machine, but this ratio hardly changes.
 */
export class Speculation {
  /** By the number of draft tokens in the pass. */
  readonly #costs = new Map<number, Measurements>();
  /** Milliseconds of the last pass without draft tokens, of any request. */
  lastPlainMs: number | undefined;

  drafter(tokens: readonly number[]): Drafter {
    return new Drafter(this, tokens);
  }

  /** Records that a pass with this many draft tokens took `cost` times as long as one without. */
  measured(draftTokens: number, cost: number): void {
    // The end of the answer cuts a draft to another length.
    if (!parameters.draftLengths.some((length) => length === draftTokens)) return;
    const known = this.#costs.get(draftTokens) ?? new Measurements();
    known.add(cost);
    this.#costs.set(draftTokens, known);
  }

  /**
   * The draft length that yields the most tokens a millisecond if each draft token is accepted with probability `rate`; 0: none.
   * @param maxCost highest cost of a pass, as a multiple of one without draft tokens.
   */
  bestLength(rate: number, maxCost: number): number {
    let best = 0;
    let bestSpeedup: number = parameters.minSpeedup;
    for (const length of this.#lengths(maxCost)) {
      // Every pass gives one token more than it accepts: the one sampled after the last accepted draft token.
      const tokens = (1 - rate ** (length + 1)) / (1 - rate);
      const speedup = tokens / this.#cost(length);
      if (speedup > bestSpeedup) [best, bestSpeedup] = [length, speedup];
    }
    return best;
  }

  /** The next longer length whose pass costs at most `maxCost`; else the same length. */
  longer(length: number, maxCost: number): number {
    return this.#lengths(maxCost).find((each) => each > length) ?? length;
  }

  /** The shortest length without a measurement. */
  unmeasured(maxCost: number): number | undefined {
    return this.#lengths(maxCost).find((each) => !this.#costs.has(each));
  }

  #lengths(maxCost: number): readonly number[] {
    const { draftLengths } = parameters;
    const tooLong = draftLengths.findIndex((length) => this.#cost(length) > maxCost);
    return draftLengths.slice(0, tooLong < 0 ? undefined : tooLong);
  }

  #cost(length: number): number {
    const known = this.#costs.get(length);
    if (known && known.count >= parameters.minSamples) return known.median;
    const predicted = this.#predictedCost(length);
    return known ? Math.min(known.median, predicted) : predicted;
  }

  #predictedCost(length: number): number {
    const shorter = parameters.draftLengths.findLast((each) => each < length && this.#costs.has(each));
    const rowShare =
      shorter === undefined
        ? parameters.assumedRowShare
        : Math.max(0, (this.#costs.get(shorter)?.median ?? 1) - 1) / shorter;
    return 1 + rowShare * length;
  }
}

/** Proposes the draft tokens of one request. */
export class Drafter {
  readonly #speculation: Speculation;
  readonly #tokens: number[] = [];
  /**
   * Hash of the last `matchTokens` tokens → position of the token after them. A hash collision costs a rejected draft,
   * nothing else.
   */
  readonly #followers = new Map<number, number>();
  readonly #plainMs = new Measurements();
  /** Tokens that were predicted, drafted or not, and how many of the predictions were right; both decay. */
  #predicted: number = parameters.initialAcceptance.tokens;
  #accepted = parameters.initialAcceptance.rate * parameters.initialAcceptance.tokens;
  #sinceProbe = 0;
  #sincePlain = 0;
  /** Passes with draft tokens until the next one without: few at first, then up to `plainInterval`. */
  #untilPlain = 0;

  constructor(speculation: Speculation, tokens: readonly number[]) {
    this.#speculation = speculation;
    for (const token of tokens) this.#append(token);
  }

  /** Adds the next token of the text and compares it with the prediction. */
  take(token: number): void {
    const from = this.#follower();
    if (from !== undefined) {
      this.#predicted = parameters.decay * this.#predicted + 1;
      this.#accepted = parameters.decay * this.#accepted + (this.#tokens[from] === token ? 1 : 0);
    }
    this.#append(token);
  }

  #append(token: number): void {
    const hash = this.#hash();
    if (hash !== undefined) this.#followers.set(hash, this.#tokens.length);
    this.#tokens.push(token);
  }

  /**
   * @param maxTokens the longest draft that has room.
   * @param isTyping a more urgent request is likely to arrive during the pass.
   */
  propose(maxTokens: number, isTyping: boolean): number[] {
    const from = this.#follower();
    if (from === undefined) return [];
    if (this.#sincePlain >= this.#untilPlain) {
      this.#schedulePlain();
      return [];
    }
    const length = Math.min(maxTokens, this.#length(isTyping));
    const period = this.#tokens.length - from;
    // Past the end of the text, the draft repeats itself.
    return Array.from({ length }, (_, i) => this.#tokens[from + (i % period)] ?? 0);
  }

  /** Records that a pass of this sequence alone, with this many draft tokens, took `tookMs`. */
  ran(draftTokens: number, tookMs: number): void {
    if (draftTokens > 0) {
      this.#sincePlain++;
      if (this.#plainMs.median > 0) this.#speculation.measured(draftTokens, tookMs / this.#plainMs.median);
      return;
    }
    this.#schedulePlain();
    this.#plainMs.add(tookMs);
    this.#speculation.lastPlainMs = this.#plainMs.median;
  }

  #schedulePlain(): void {
    this.#sincePlain = 0;
    this.#untilPlain = Math.min(parameters.plainInterval, 2 * this.#untilPlain + 4);
  }

  #length(isTyping: boolean): number {
    const rate = Math.min(0.98, this.#accepted / this.#predicted);
    const maxCost = this.#maxCost(isTyping ? parameters.typingBudget : parameters.idleBudget);
    const best = this.#speculation.bestLength(rate, maxCost);
    this.#sinceProbe = (this.#sinceProbe + 1) % parameters.probeInterval;
    return this.#sinceProbe === 0 ? this.#speculation.longer(best, maxCost) : best;
  }

  #maxCost({ ms, share }: DelayBudget): number {
    const plainMs = this.#plainMs.count > 0 ? this.#plainMs.median : this.#speculation.lastPlainMs;
    return 1 + (plainMs === undefined ? share : Math.max(share, ms / plainMs));
  }

  /** Position of the tokens that are likely to come next. */
  #follower(): number | undefined {
    const hash = this.#hash();
    return hash === undefined ? undefined : this.#followers.get(hash);
  }

  #hash(): number | undefined {
    if (this.#tokens.length < parameters.matchTokens) return undefined;
    let hash = 0;
    for (const token of this.#tokens.slice(-parameters.matchTokens)) hash = (Math.imul(hash, 0x9e3779b1) + token) | 0;
    return hash;
  }
}

// Gives each request its draft tokens, and measures their cost and acceptance. Asks a smaller model where the text
// repeats nothing.

interface Machine {
  readonly decoder: Pick<Decoder, 'contextTokens'>;
  readonly speculation?: Speculation;
}

export class DraftTokens {
  readonly #machine: () => Machine;
  readonly #queue: Pick<RequestQueue<Job>, 'isTypingBefore' | 'size'>;
  readonly #statistics: StatisticsRecorder;
  /** A smaller model on the same device, if one is loaded. */
  model: DraftModel | undefined;

  /** @param machine the current one; it is replaced after a device loss. */
  constructor(
    machine: () => Machine,
    queue: Pick<RequestQueue<Job>, 'isTypingBefore' | 'size'>,
    statistics: StatisticsRecorder,
  ) {
    this.#machine = machine;
    this.#queue = queue;
    this.#statistics = statistics;
  }

  /** Only a pass of one decoding sequence shows the cost of draft tokens. */
  measured([first, second]: readonly StepSlice<Job>[], passMs: number): void {
    if (first?.tokens !== 1 || second) return;
    const { request, drafts } = first;
    if (drafts === 0 || request.draftedBy === 'lookup') request.drafter?.ran(drafts, passMs);
  }

  /**
   * Before a step without draft tokens: asks the smaller model for some.
   * @returns undefined if the step runs without them; else hold the request until the promise resolves.
   */
  ask([first, second]: readonly StepSlice<Job>[], nowMs: number): Promise<void> | undefined {
    const { speculation } = this.#machine();
    if (!first || second || !this.model || !speculation) return undefined;
    const { request: job, tokens, drafts } = first;
    const decodes = tokens === 1 && drafts === 0 && first.logits === 'last' && job.firstTokenMs !== undefined;
    if (!decodes || this.#queue.size > 1 || this.#queue.isTypingBefore(job, nowMs)) return undefined;
    if (!job.modelDrafter?.isOf(this.model)) job.modelDrafter = this.model.drafter(job.request);
    const most = this.#room(job);
    const spentMs = nowMs - (job.firstTokenMs ?? nowMs);
    const proposed = job.modelDrafter.propose(job.tokens, { most, spentMs, plainMs: speculation.lastPlainMs });
    return proposed?.then((tokens) => {
      job.drafts = tokens;
      job.draftedBy = 'model';
    });
  }

  /** After a step that verified `verified` draft tokens: counts the accepted ones and proposes new ones. */
  renew(job: Job, verified: number, nowMs: number): void {
    const { speculation } = this.#machine();
    if (!speculation) return;
    const fresh = job.tokens.slice(job.verifiedTokens);
    job.verifiedTokens = job.tokens.length;
    if (job.drafter) {
      for (const token of fresh) job.drafter.take(token);
      this.#statistics.verified(job.requestClass, verified, fresh.length - 1);
      if (job.draftedBy === 'model' && verified > 0 && speculation.lastPlainMs !== undefined) {
        job.modelDrafter?.verified(verified, fresh.length - 1, speculation.lastPlainMs);
      }
    } else {
      job.drafter = speculation.drafter(job.tokens);
    }
    job.drafts = job.drafter.propose(this.#room(job), this.#queue.isTypingBefore(job, nowMs));
    job.draftedBy = 'lookup';
  }

  /** Most draft tokens that fit the answer's limit and the context. */
  #room({ request, generatedTokens, tokens }: Job): number {
    const { contextTokens } = this.#machine().decoder;
    return Math.max(0, Math.min(request.maxTokens - generatedTokens, contextTokens - tokens.length));
  }
}
