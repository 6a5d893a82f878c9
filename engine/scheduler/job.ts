/** A request as the scheduler carries it, from submission to its outcome. */
import type { SamplingSlice } from '../backend/backend.ts';
import type { Lease } from '../kv/prefixCache.ts';
import type { FreeTokens } from '../sampling/logitsProcessor.ts';
import type { RequestClass } from './nextStep.ts';
import type { QueuedRequest } from './requestQueue.ts';
import type { Drafter } from './speculation.ts';

export interface TokenRequest {
  readonly requestClass: RequestClass;
  readonly prompt: readonly number[];
  /** Lengths of the prompt from which later prompts may differ; absent: its end alone. */
  readonly boundaries?: readonly number[] | undefined;
  /** 0: the prompt is computed and kept in the cache, nothing is sampled. */
  readonly maxTokens: number;
  /** @param logits `[vocabulary]`; a promise where a grammar says first what may come. */
  readonly choose: (logits: Float32Array) => number | Promise<number>;
  /** How `choose` chooses, where that is by these rules and nothing else: a device may then draw the tokens itself. */
  readonly drawing?: Drawing | undefined;
  /** Called with every token as it is chosen. */
  readonly deliver: (token: number) => 'continue' | 'stop';
  /** Counted from submission: what is not done by then fails with `timeout`. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Drawing extends Pick<SamplingSlice, 'rules' | 'history' | 'stopIds'> {
  /** What the rules may choose next; undefined: the next token is not left to them alone. */
  free(): FreeTokens | undefined;
  /** The next numbers that `choose` would use, which stay unused. */
  uniforms(count: number): number[];
  /** So many tokens were drawn with them. */
  drew(tokens: number): void;
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

export class Job implements QueuedRequest {
  readonly request: TokenRequest;
  readonly submittedMs: number;
  readonly deadlineMs: number;
  readonly resolve: (outcome: TokenOutcome) => void;
  readonly reject: (error: unknown) => void;
  /** Prompt and answer so far. */
  readonly tokens: number[];
  lease: Lease | undefined;
  /** Of the prompt, how many came from the cache when the request was first admitted. */
  cachedTokens: number | undefined;
  firstTokenMs: number | undefined;
  /** Guesses at the tokens that follow. */
  drafts: readonly number[] = [];
  drafter: Drafter | undefined;
  /** Tokens that the drafter has seen. */
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

  /** What it runs on. */
  get sequence(): Lease['sequence'] {
    if (!this.lease) throw new Error('A request runs without a sequence.');
    return this.lease.sequence;
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
