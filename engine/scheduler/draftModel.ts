/**
 * Draft tokens by a smaller model with the same vocabulary (Leviathan et al. 2023, "Fast inference from transformers via
 * speculative decoding"). It decodes greedily and the larger model verifies, as for prompt lookup (tokensPerStep.ts), so
 * answers are sampled from the larger model's distribution. The smaller one sees only the end of the text.
 *
 * Measured times and the acceptance rate decide whether to draft, and how many tokens. The smaller model has to prefill
 * the text first, so an answer gets its first draft only after it has taken as long as that prefill will take.
 */

import { argmax, emptyHistory, greedy } from '../backend/sampler.ts';
import { draftOwner } from '../kv/prefixCache.ts';
import { type FreeTokens, free } from '../sampling/logitsProcessor.ts';
import type { SamplingState, TokenRequest } from './job.ts';
import type { Submitter } from './scheduler.ts';
import { Speculation } from './tokensPerStep.ts';

const parameters = {
  /** Most tokens that the smaller model prefills; its cache also serves completions. */
  windowTokens: 2048,
  /** Largest share of its context for the window. */
  windowShare: 0.25,
  /** The longest pass, drafting included, as a multiple of a pass without draft tokens. */
  maxCost: 12,
  /** At least one pass in this many has no draft tokens; its time is the unit for the others. */
  plainInterval: 32,
  /** If drafts don't pay, one is tried after this many passes, because costs and texts change. */
  probeInterval: 128,
  /** The acceptance rate before any measurement, weighted like this many tokens. */
  initialAcceptance: { rate: 0.7, tokens: 4 },
  /** With a higher acceptance rate, lengths that were never measured are tried. */
  rightRate: 0.8,
  /** Weight of older tokens in the acceptance rate. */
  decay: 0.98,
  /** Prefill of one token by the smaller model, as a share of a pass of the larger one, until it is measured. */
  assumedReadShare: 0.1,
} as const;

/** The smaller model, for all answers of a larger one. */
export class DraftModel {
  readonly #source: Submitter;
  readonly #vocabularySize: number;
  readonly #now: () => number;
  /** Costs of passes with draft tokens, drafting included. */
  readonly #costs = new Speculation();
  #predicted: number = parameters.initialAcceptance.tokens;
  #accepted = parameters.initialAcceptance.rate * parameters.initialAcceptance.tokens;
  #readMsPerToken: number | undefined;

  /**
   * @param source where the smaller model takes requests
   * @param vocabularySize ids below it mean the same to both models.
   * @param now monotonic milliseconds, the schedulers' clock.
   */
  constructor(source: Submitter, vocabularySize: number, now: () => number) {
    this.#source = source;
    this.#vocabularySize = vocabularySize;
    this.#now = now;
  }

  drafter(request: TokenRequest): ModelDrafter {
    return new ModelDrafter(this, request, this.#now);
  }

  /**
   * First token that the smaller model reads of a text with `tokens` tokens. It moves in strides, so that the cache
   * stays valid in between.
   */
  windowStart(tokens: number): number {
    const { windowTokens, windowShare } = parameters;
    const most = Math.min(windowTokens, Math.floor(this.#source.decoder.contextTokens * windowShare));
    const stride = Math.max(1, most >> 1);
    return tokens <= most ? 0 : Math.ceil((tokens - most) / stride) * stride;
  }

  /** Expected milliseconds of a prefill. @param plainMs milliseconds of a pass of the larger model. */
  readMs(tokens: number, plainMs: number): number {
    return tokens * (this.#readMsPerToken ?? parameters.assumedReadShare * plainMs);
  }

  /**
   * The draft length that yields the most tokens a millisecond; 0: none pays. Each length is tried once while nearly all
   * drafts are right: a pass with a few rows may cost three times as much as one with a single row, and hardly less
   * than one with many.
   * @param probes tries the next longer length.
   */
  bestLength(probes: boolean): number {
    const { maxCost, rightRate } = parameters;
    const rate = this.#accepted / this.#predicted;
    const best = this.#costs.bestLength(Math.min(0.98, rate), maxCost);
    if (probes) return this.#costs.longer(best, maxCost);
    return best === 0 && rate > rightRate ? (this.#costs.unmeasured(maxCost) ?? 0) : best;
  }

  /** Prefills the text into the smaller model's cache. @returns whether that succeeded. */
  async read(tokens: readonly number[], request: TokenRequest): Promise<boolean> {
    const startMs = this.#now();
    const outcome = await this.#ask(tokens, 0, request);
    if (outcome === undefined) return false;
    const computed = tokens.length - outcome.cachedTokens;
    if (computed > 0) this.#readMsPerToken = (this.#now() - startMs) / computed;
    return true;
  }

  /** @returns the likeliest next tokens; fewer or none if it can't go on. */
  async draft(tokens: readonly number[], count: number, request: TokenRequest): Promise<number[]> {
    const drafts: number[] = [];
    await this.#ask(tokens, count, request, (token) => {
      if (token >= this.#vocabularySize) return 'stop';
      drafts.push(token);
      return 'continue';
    });
    return drafts;
  }

  /**
   * Records that a pass accepted `accepted` of `drafts` draft tokens and took `cost` times as long as a pass without
   * drafts.
   */
  verified(drafts: number, accepted: number, cost: number): void {
    const judged = Math.min(drafts, accepted + 1);
    const kept = parameters.decay ** judged;
    this.#predicted = kept * this.#predicted + judged;
    this.#accepted = kept * this.#accepted + accepted;
    this.#costs.measured(drafts, cost);
  }

  /** @returns undefined if the smaller model refused or failed, for example because it is being unloaded. */
  async #ask(
    prompt: readonly number[],
    maxTokens: number,
    { requestClass, owner, signal }: TokenRequest,
    deliver: TokenRequest['deliver'] = () => 'continue',
  ) {
    const choose = (logits: Float32Array): number => argmax(logits);
    const request = {
      requestClass,
      owner,
      cacheOwner: draftOwner,
      signal,
      prompt,
      maxTokens,
      choose,
      deliver,
      sampling: likeliest,
    };
    try {
      return await this.#source.submit(request);
    } catch {
      return undefined;
    }
  }
}

/** `argmax` as sampling rules for the device. */
const likeliest: SamplingState = {
  rules: greedy,
  history: emptyHistory,
  stopIds: new Set(),
  free: (): FreeTokens => free,
  uniforms: (count) => new Array<number>(count).fill(0),
  sampled: () => {},
};

/** Asks for the draft tokens of one answer. */
export class ModelDrafter {
  readonly #model: DraftModel;
  readonly #request: TokenRequest;
  readonly #now: () => number;
  #window: { readonly start: number; state: 'reading' | 'read' | 'failed' } | undefined;
  #sincePlain = 0;
  #sinceDraft = 0;
  #askedAt = -1;
  #askedMs = 0;

  constructor(model: DraftModel, request: TokenRequest, now: () => number) {
    this.#model = model;
    this.#request = request;
    this.#now = now;
  }

  /** Whether it asks this smaller model. */
  isOf(model: DraftModel): boolean {
    return this.#model === model;
  }

  /**
   * @param tokens prompt and answer so far.
   * @param spentMs duration of the answer so far. `plainMs`: duration of one of its passes without draft tokens.
   * @returns undefined if the answer continues without a draft.
   */
  propose(
    tokens: readonly number[],
    {
      most,
      spentMs,
      plainMs,
    }: { readonly most: number; readonly spentMs: number; readonly plainMs: number | undefined },
  ): Promise<number[]> | undefined {
    // The answer continues without a draft that didn't come.
    if (plainMs === undefined || this.#askedAt === tokens.length) return undefined;
    const probes = ++this.#sinceDraft >= parameters.probeInterval;
    const length = Math.min(most, this.#model.bestLength(probes));
    if (length < 1 || !this.#hasRead(tokens, spentMs, plainMs)) return undefined;
    if (++this.#sincePlain > parameters.plainInterval) {
      this.#sincePlain = 0;
      return undefined;
    }
    this.#sinceDraft = 0;
    this.#askedAt = tokens.length;
    this.#askedMs = this.#now();
    return this.#model.draft(tokens.slice(this.#window?.start), length, this.#request);
  }

  /** Records that a pass accepted `accepted` of `drafts` draft tokens. */
  verified(drafts: number, accepted: number, plainMs: number): void {
    this.#model.verified(drafts, accepted, (this.#now() - this.#askedMs) / plainMs);
  }

  /** Starts the smaller model's prefill alongside the answer if that pays. */
  #hasRead(tokens: readonly number[], spentMs: number, plainMs: number): boolean {
    const start = this.#model.windowStart(tokens.length);
    if (this.#window?.start === start) return this.#window.state === 'read';
    if (this.#window === undefined && spentMs < this.#model.readMs(tokens.length - start, plainMs)) return false;
    const window = { start, state: 'reading' as 'reading' | 'read' | 'failed' };
    this.#window = window;
    void this.#model.read(tokens.slice(start), this.#request).then((isRead) => {
      window.state = isRead ? 'read' : 'failed';
    });
    return false;
  }
}
