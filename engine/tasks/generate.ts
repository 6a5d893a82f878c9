/** From a prompt to a stream of text: tokens become characters, stop rules end it, and it is measured. */
import type { OutputParser, OutputPiece } from '../prompt/output.ts';
import { StopStrings } from '../prompt/stopStrings.ts';
import {
  type LogitsProcessor,
  type NextTokens,
  nextTokens,
  onlyAllowed,
  without,
} from '../sampling/logitsProcessor.ts';
import type { LogprobRecorder, TokenLogprob } from '../sampling/logprobs.ts';
import { type SamplerSettings, sample, type TokenHistory } from '../sampling/sampler.ts';
import { Uniforms } from '../sampling/uniforms.ts';
import type { Drawing, TokenOutcome } from '../scheduler/job.ts';
import type { RequestClass } from '../scheduler/nextStep.ts';
import type { Scheduler } from '../scheduler/scheduler.ts';

export type FinishReason = TokenOutcome['finish'];

export interface GenerationStatistics {
  readonly promptTokens: number;
  /** Of the prompt, how many came from the cache. */
  readonly cachedTokens: number;
  readonly generatedTokens: number;
  readonly timeToFirstTokenMs: number;
  /** Of the tokens after the first. */
  readonly tokensPerSecond: number;
}

export interface GenerationRequest {
  readonly requestClass: RequestClass;
  readonly prompt: readonly number[];
  /** As of `TokenRequest`. */
  readonly boundaries?: readonly number[] | undefined;
  readonly maxTokens: number;
  readonly sampling: SamplerSettings;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** Tokens that end the answer and are no part of it. */
  readonly stopIds: ReadonlySet<number>;
  /** End the answer and are no part of it; thinking may contain them. */
  readonly stopStrings: readonly string[];
  /** Makes text of tokens, and tells thinking from answer. */
  readonly parser: OutputParser;
  /** The first that forces a token, or says which may come, decides. */
  readonly processors?: readonly LogitsProcessor[] | undefined;
  /** Told of every choice; the device then draws nothing itself. */
  readonly logprobs?: LogprobRecorder | undefined;
  /** Shown the logits of the first tokens, and which were chosen: those the host samples, the others a device may. */
  readonly observer?: SampleObserver | undefined;
  /** `tokens`: generated so far, with those that are not shown. `logprobs`: of the piece's tokens. */
  readonly onPiece: (piece: OutputPiece, tokens: number, logprobs?: readonly TokenLogprob[]) => 'continue' | 'stop';
  /** Counted from now: what is not done by then fails with `timeout`. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface SampleObserver {
  /** How many tokens it looks at. */
  readonly tokens: number;
  /** @param logits `[vocabulary]`, those that were sampled from; not to be kept. */
  sampled(logits: Float32Array, token: number): void;
}

export interface GeneratedCall {
  /** Which call of the answer, as its pieces said. */
  readonly index: number;
  readonly name: string;
  /** A JSON object. */
  readonly arguments: string;
}

export interface Generated {
  readonly text: string;
  readonly thinking: string;
  readonly calls: readonly GeneratedCall[];
  readonly finish: FinishReason;
  readonly statistics: GenerationStatistics;
}

/** @throws HearthError as `Scheduler.submit` does. Cancelling is an end: what was written until then is returned. */
export async function generate(scheduler: Scheduler, request: GenerationRequest): Promise<Generated> {
  const answer = new Answer(request);
  const { requestClass, prompt, boundaries, maxTokens, timeoutMs, signal } = request;
  const outcome = await scheduler.submit({
    requestClass,
    prompt,
    boundaries,
    maxTokens,
    choose: (logits) => answer.choose(logits),
    drawing: answer.drawing(),
    deliver: (token) => answer.take(token),
    timeoutMs,
    signal,
  });
  answer.end();
  const { text, thinking } = answer;
  return {
    text,
    thinking,
    calls: answer.calls(),
    finish: outcome.finish,
    statistics: statisticsOf(prompt.length, outcome),
  };
}

type Pending = Extract<NextTokens, { readonly kind: 'pending' }>;

class Answer {
  text = '';
  thinking = '';
  readonly #calls: { readonly name: string; json: string }[] = [];
  readonly #request: GenerationRequest;
  readonly #stops: StopStrings;
  readonly #sequence: Set<number>;
  readonly #generated = new Set<number>();
  readonly #uniforms: Uniforms;
  #tokens = 0;
  #stopped = false;

  constructor(request: GenerationRequest) {
    this.#request = request;
    this.#uniforms = new Uniforms(request.random);
    this.#stops = new StopStrings(request.stopStrings);
    this.#sequence = new Set(request.prompt);
  }

  choose(logits: Float32Array): number | Promise<number> {
    const next = nextTokens(this.#processors);
    // The decoder writes into its buffer again meanwhile.
    return next.kind === 'pending' ? this.#chooseOnceReady(next, logits.slice()) : this.#chooseWithin(next, logits);
  }

  async #chooseOnceReady(pending: Pending, logits: Float32Array): Promise<number> {
    let next: NextTokens = pending;
    while (next.kind === 'pending') {
      await next.ready();
      next = nextTokens(this.#processors);
    }
    return this.#chooseWithin(next, logits);
  }

  #chooseWithin(next: Exclude<NextTokens, Pending>, logits: Float32Array): number {
    const token = this.#tokenWithin(next, logits);
    this.#request.logprobs?.chose(logits, token);
    return token;
  }

  #tokenWithin(next: Exclude<NextTokens, Pending>, logits: Float32Array): number {
    switch (next.kind) {
      case 'forced':
        return next.token;
      case 'mask':
        return this.#sample(onlyAllowed(logits, next.allowed));
      case 'free':
        return this.#sample(without(logits, next.forbidden));
    }
  }

  #sample(logits: Float32Array): number {
    const token = sample(logits, this.#request.sampling, this.#history, () => this.#uniforms.next());
    if (this.#isObserved) this.#request.observer?.sampled(logits, token);
    return token;
  }

  /** `choose` as rules that a device can follow; absent where each logit has a bias of its own. */
  drawing(): Drawing | undefined {
    const { sampling, logprobs, stopIds } = this.#request;
    if (logprobs || sampling.logitBias.size > 0) return undefined;
    // As `sample`, which draws no number when it is greedy.
    const isGreedy = sampling.temperature === 0 || sampling.topK === 1;
    return {
      rules: sampling,
      history: this.#history,
      stopIds,
      free: () => {
        const next = nextTokens(this.#processors);
        return next.kind === 'free' && !this.#isObserved ? next : undefined;
      },
      uniforms: (count) => (isGreedy ? new Array<number>(count).fill(0) : this.#uniforms.peek(count)),
      drew: (tokens) => this.#uniforms.skip(tokens),
    };
  }

  get #isObserved(): boolean {
    return this.#tokens < (this.#request.observer?.tokens ?? 0);
  }

  get #processors(): readonly LogitsProcessor[] {
    return this.#request.processors ?? [];
  }

  get #history(): TokenHistory {
    return { sequence: this.#sequence, generated: this.#generated };
  }

  take(token: number): 'continue' | 'stop' {
    this.#sequence.add(token);
    this.#generated.add(token);
    this.#tokens += 1;
    if (this.#request.stopIds.has(token)) return 'stop';
    this.#request.logprobs?.took();
    this.#read(this.#request.parser.push(token));
    for (const processor of this.#processors) processor.take?.(token);
    return this.#stopped ? 'stop' : 'continue';
  }

  /** Delivers what was held back in case it became a stop string, a tag or the rest of a character. */
  end(): void {
    this.#read(this.#request.parser.end());
    if (!this.#stopped) this.#deliver({ kind: 'text', text: this.#stops.end() });
  }

  /** Those that are whole: a call that was cut off or broken is none. */
  calls(): GeneratedCall[] {
    return this.#calls.flatMap(({ name, json }, index) => (isJson(json) ? [{ index, name, arguments: json }] : []));
  }

  #read(pieces: readonly OutputPiece[]): void {
    for (const piece of pieces) {
      if (this.#stopped) return;
      if (piece.kind !== 'text') {
        this.#deliver(piece);
        continue;
      }
      const { text, stop } = this.#stops.push(piece.text);
      this.#deliver({ kind: 'text', text });
      if (stop !== undefined) this.#stopped = true;
    }
  }

  #deliver(piece: OutputPiece): void {
    if (piece.kind === 'tool-call') {
      this.#calls[piece.index] ??= { name: piece.name, json: '' };
      const call = this.#calls[piece.index];
      if (call) call.json += piece.text;
    } else if (piece.text === '') return;
    else if (piece.kind === 'thinking') this.thinking += piece.text;
    else this.text += piece.text;
    const logprobs = this.#request.logprobs?.of(piece);
    if (this.#request.onPiece(piece, this.#tokens, logprobs) === 'stop') this.#stopped = true;
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function statisticsOf(promptTokens: number, outcome: TokenOutcome): GenerationStatistics {
  const { cachedTokens, generatedTokens, submittedMs, firstTokenMs, endedMs } = outcome;
  // The first token belongs to the prompt: it comes with the last of its logits.
  const decodeMs = endedMs - firstTokenMs;
  return {
    promptTokens,
    cachedTokens,
    generatedTokens,
    timeToFirstTokenMs: firstTokenMs - submittedMs,
    tokensPerSecond: decodeMs > 0 ? (1000 * Math.max(0, generatedTokens - 1)) / decodeMs : 0,
  };
}
