/** A request in the scheduler, from submission to its outcome. */
import type { SamplingSlice } from '../backend/backend.ts';
import { HearthError, invalidInput } from '../errors.ts';
import type { Lease } from '../kv/prefixCache.ts';
import type { ClassStatistics, SchedulerStatistics } from '../protocol/models.ts';
import type { FreeTokens } from '../sampling/logitsProcessor.ts';
import type { ModelDrafter } from './draftModel.ts';
import type { QueuedRequest } from './requestQueue.ts';
import type { Drafter } from './tokensPerStep.ts';

// Decides what the engine computes next, as a pure function.

/** The first class goes first; better classes pre-empt worse ones between steps. */
export const requestClasses = ['keystroke', 'chat', 'summary', 'warm-up'] as const;
export type RequestClass = (typeof requestClasses)[number];

export interface Candidate {
  readonly requestClass: RequestClass;
  /** The request holds a sequence, so its cached length is known. */
  readonly admitted: boolean;
  /** Known tokens that are not yet in the cache: the rest of the prompt, or the last sampled token. */
  readonly waitingTokens: number;
  /** Draft tokens to verify in the same pass; 0 during prefill. */
  readonly draftTokens: number;
  /** False for a warm-up. */
  readonly samples: boolean;
}

export interface StepLimits {
  /** Most prompt tokens between two decisions. A keystroke or a cancellation waits at most this long. */
  readonly chunkTokens: number;
  /** Sequences in one forward pass. */
  readonly maxSequences: number;
  /** Most passes that are submitted but not yet computed when a request or a cancellation arrives. Default 1. */
  readonly passesInFlight?: number;
}

export interface StepSlice<Request> {
  readonly request: Request;
  /** How many of the waiting tokens. */
  readonly tokens: number;
  /** Draft tokens after them; if there are any, `logits` is `all`. */
  readonly drafts: number;
  readonly logits: 'none' | 'last' | 'all';
}

export type NextStep<Request> =
  /** Give the request a sequence, then decide again. */
  | { readonly kind: 'admit'; readonly request: Request }
  | { readonly kind: 'run'; readonly slices: readonly StepSlice<Request>[] };

/**
 * Plans one pass for the first request. If the decoder takes several sequences, decoding requests join the pass, and
 * prompts of the same class share the rest of the chunk.
 * @param ordered the first goes first.
 */
export function nextStep<Request extends Candidate>(
  ordered: readonly Request[],
  { chunkTokens, maxSequences }: StepLimits,
): NextStep<Request> | undefined {
  const [first] = ordered;
  if (!first) return undefined;
  const slices: StepSlice<Request>[] = [];
  let roomTokens = chunkTokens;
  for (const request of ordered) {
    if (slices.length === maxSequences || roomTokens === 0) break;
    const isPeer = request.requestClass === first.requestClass;
    if (!request.admitted) {
      if (isPeer) return { kind: 'admit', request };
      continue;
    }
    if (!isPeer && !decodes(request)) continue;
    const slice = sliceOf(request, roomTokens);
    slices.push(slice);
    roomTokens -= slice.tokens + slice.drafts;
  }
  return { kind: 'run', slices };
}

const decodes = ({ waitingTokens, samples }: Candidate): boolean => samples && waitingTokens === 1;

function sliceOf<Request extends Candidate>(request: Request, roomTokens: number): StepSlice<Request> {
  const { waitingTokens, draftTokens, samples } = request;
  const tokens = Math.min(waitingTokens, roomTokens);
  const drafts = decodes(request) ? Math.min(draftTokens, roomTokens - tokens) : 0;
  const last = samples && tokens === waitingTokens;
  return { request, tokens, drafts, logits: last ? (drafts > 0 ? 'all' : 'last') : 'none' };
}

export interface TokenRequest {
  readonly requestClass: RequestClass;
  /** The window that asks. Requests without an owner count as one window. */
  readonly owner?: object | undefined;
  readonly prompt: readonly number[];
  /** Owner of the cached sequences that the request continues and leaves behind. Default: its class. */
  readonly cacheOwner?: string;
  /** Prompt lengths at which later prompts may diverge; absent: only the end. */
  readonly boundaries?: readonly number[] | undefined;
  /** 0: the prompt is computed into the cache and nothing is sampled. */
  readonly maxTokens: number;
  /** @param logits `[vocabulary]`. @returns a promise if a grammar is still computing its mask. */
  readonly choose: (logits: Float32Array) => number | Promise<number>;
  /** Set if `choose` follows these rules alone, so that the device may sample instead. */
  readonly sampling?: SamplingState | undefined;
  /** Called with every token once it is sampled. */
  readonly deliver: (token: number) => 'continue' | 'stop';
  /** From submission; a request that takes longer fails with `timeout`. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface SamplingState extends Pick<SamplingSlice, 'rules' | 'history' | 'stopIds'> {
  /** Limits of the next tokens; undefined if the rules alone don't decide the next token. */
  free(): FreeTokens | undefined;
  /** Looks at the next random numbers that `choose` would use, without using them. */
  uniforms(count: number): number[];
  /** Marks the random numbers of this many tokens as used. */
  sampled(tokens: number): void;
}

export interface TokenOutcome {
  readonly finish: 'stop' | 'length' | 'context' | 'cancelled';
  readonly cachedTokens: number;
  readonly generatedTokens: number;
  readonly submittedMs: number;
  /** Equal to `endedMs` when nothing was generated. */
  readonly firstTokenMs: number;
  readonly endedMs: number;
}

/** Where an answer ends apart from its own token limit, and the width of its logits. */
export interface AnswerEnds {
  readonly contextTokens: number;
  /** Logits of a row. */
  readonly width: number;
  readonly now: () => number;
}

/** @throws HearthError `invalid-input`, `context-overflow` */
export function requirePrompt(prompt: readonly number[], contextTokens: number): void {
  if (prompt.length === 0) throw invalidInput('The prompt is empty.');
  if (prompt.length <= contextTokens) return;
  throw new HearthError(
    'context-overflow',
    `The prompt has ${prompt.length} tokens; the context holds ${contextTokens}. Shorten it or load the model with a longer context.`,
  );
}

/** A request's part of a forward pass, as the decoder takes it. */
export function inputOf({ request, tokens, drafts, logits }: StepSlice<Job>) {
  const { sequence } = request;
  const start = sequence.length;
  return {
    sequence,
    tokens: [...request.tokens.slice(start, start + tokens), ...request.drafts.slice(0, drafts)],
    logits,
  };
}

export class Job implements QueuedRequest {
  readonly request: TokenRequest;
  readonly submittedMs: number;
  readonly deadlineMs: number;
  readonly resolve: (outcome: TokenOutcome) => void;
  readonly reject: (error: unknown) => void;
  /** Prompt and answer so far. */
  readonly tokens: number[];
  lease: Lease | undefined;
  /** Prompt tokens found in the cache when the request was first admitted. */
  cachedTokens: number | undefined;
  firstTokenMs: number | undefined;
  /** Draft tokens to verify in the next pass. */
  drafts: readonly number[] = [];
  drafter: Drafter | undefined;
  modelDrafter: ModelDrafter | undefined;
  /** Source of the draft tokens. */
  draftedBy: 'lookup' | 'model' = 'lookup';
  /** Tokens that the drafter already knows. */
  verifiedTokens = 0;

  constructor(
    request: TokenRequest,
    submittedMs: number,
    settle: { readonly resolve: (outcome: TokenOutcome) => void; readonly reject: (error: unknown) => void },
  ) {
    this.request = request;
    this.submittedMs = submittedMs;
    this.deadlineMs = submittedMs + (request.timeoutMs ?? Number.POSITIVE_INFINITY);
    this.tokens = [...request.prompt];
    this.resolve = settle.resolve;
    this.reject = settle.reject;
  }

  get requestClass(): RequestClass {
    return this.request.requestClass;
  }

  get owner(): object | undefined {
    return this.request.owner;
  }

  get cacheOwner(): string {
    return this.request.cacheOwner ?? this.requestClass;
  }

  get boundaries(): readonly number[] {
    return this.request.boundaries ?? [this.request.prompt.length];
  }

  get admitted(): boolean {
    return this.lease !== undefined;
  }

  get samples(): boolean {
    return this.request.maxTokens > 0;
  }

  get waitingTokens(): number {
    return this.tokens.length - (this.lease?.sequence.length ?? 0);
  }

  get draftTokens(): number {
    return this.drafts.length;
  }

  get generatedTokens(): number {
    return this.tokens.length - this.request.prompt.length;
  }

  get sequence(): Lease['sequence'] {
    if (!this.lease) throw new Error('A request runs without a sequence.');
    return this.lease.sequence;
  }

  /**
   * Samples the next token, and one more after each accepted draft token. Each is sampled from the model's own
   * distribution, so draft tokens change only the speed.
   * @param logits `[1 + drafts, vocabulary]`
   */
  async choose(
    drafts: readonly number[],
    logits: Float32Array | undefined,
    ends: AnswerEnds,
  ): Promise<TokenOutcome['finish'] | undefined> {
    const { width } = ends;
    if (logits?.length !== (1 + drafts.length) * width)
      throw new Error('The decoder returned no logits for a slice that asked for them.');
    for (let row = 0; row <= drafts.length; row++) {
      const chosen = this.request.choose(logits.subarray(row * width, (row + 1) * width));
      const token = typeof chosen === 'number' ? chosen : await chosen;
      const finish = this.deliver(token, ends);
      if (finish || token !== drafts[row]) return finish;
    }
    return undefined;
  }

  deliver(token: number, { contextTokens, now }: AnswerEnds): TokenOutcome['finish'] | undefined {
    this.firstTokenMs ??= now();
    this.tokens.push(token);
    if (this.request.deliver(token) === 'stop') return 'stop';
    if (this.generatedTokens >= this.request.maxTokens) return 'length';
    return this.tokens.length > contextTokens ? 'context' : undefined;
  }

  timeout(): HearthError {
    const seconds = Math.ceil((this.request.timeoutMs ?? 0) / 1000);
    return new HearthError(
      'timeout',
      `The answer took longer than ${seconds} s. The part of its prompt that was computed stays in the cache.`,
    );
  }

  outcome(finish: TokenOutcome['finish'], endedMs: number): TokenOutcome {
    return {
      finish,
      cachedTokens: this.cachedTokens ?? 0,
      generatedTokens: this.generatedTokens,
      submittedMs: this.submittedMs,
      firstTokenMs: this.firstTokenMs ?? endedMs,
      endedMs,
    };
  }
}

// Counts the scheduler's work by request class, since the scheduler was created.

type Counted = Exclude<keyof ClassStatistics, 'longestWaitMs' | 'recentStepMs'>;

const recentSteps = 100;

const nothing = (): ClassStatistics => ({
  submitted: 0,
  finished: 0,
  cancelled: 0,
  failed: 0,
  refused: 0,
  cachedTokens: 0,
  computedTokens: 0,
  generatedTokens: 0,
  deviceTokens: 0,
  draftTokens: 0,
  acceptedTokens: 0,
  waitedMs: 0,
  longestWaitMs: 0,
  answerSteps: 0,
  recentStepMs: [],
});

export class StatisticsRecorder {
  readonly #classes: Record<RequestClass, ClassStatistics> = {
    keystroke: nothing(),
    chat: nothing(),
    summary: nothing(),
    'warm-up': nothing(),
  };
  #steps = 0;
  #slices = 0;
  #busyMs = 0;
  #suspensions = 0;

  count(requestClass: RequestClass, what: Counted, by = 1): void {
    this.#classes[requestClass][what] += by;
  }

  admitted(requestClass: RequestClass, waitedMs: number, cachedTokens: number): void {
    const counts = this.#classes[requestClass];
    counts.waitedMs += waitedMs;
    counts.longestWaitMs = Math.max(counts.longestWaitMs, waitedMs);
    counts.cachedTokens += cachedTokens;
  }

  step(slices: readonly StepSlice<{ readonly requestClass: RequestClass }>[], tookMs: number): void {
    this.#steps++;
    this.#slices += slices.length;
    this.#busyMs += tookMs;
    for (const { request, tokens, drafts } of slices)
      this.count(request.requestClass, 'computedTokens', tokens + drafts);
    const answering = slices.filter(({ tokens, logits }) => tokens === 1 && logits !== 'none');
    for (const name of new Set(answering.map(({ request }) => request.requestClass))) this.#answered(name, tookMs);
  }

  #answered(requestClass: RequestClass, tookMs: number): void {
    const counts = this.#classes[requestClass];
    counts.answerSteps++;
    counts.recentStepMs.push(tookMs);
    if (counts.recentStepMs.length > recentSteps) counts.recentStepMs.shift();
  }

  verified(requestClass: RequestClass, drafts: number, accepted: number): void {
    if (drafts === 0) return;
    this.count(requestClass, 'draftTokens', drafts);
    this.count(requestClass, 'acceptedTokens', accepted);
  }

  suspended(): void {
    this.#suspensions++;
  }

  snapshot(): SchedulerStatistics {
    return {
      steps: this.#steps,
      slices: this.#slices,
      busyMs: this.#busyMs,
      suspensions: this.#suspensions,
      classes: structuredClone(this.#classes),
    };
  }
}
