/** Generates a stream of text from a prompt: decodes tokens to text, applies stop rules and measures speed. */

import { setImmediate } from 'node:timers/promises';
import { type SamplerSettings, sample, type TokenHistory, without } from '../backend/sampler.ts';
import { HearthError, throwIfAborted } from '../errors.ts';
import { limits } from '../limits.ts';
import type { OutputParser, OutputPiece } from '../prompt/conversation.ts';
import { StopStrings } from '../prompt/thinking.ts';
import type { FinishReason, Statistics } from '../protocol/engineProtocol.ts';
import { type LogitsProcessor, type NextTokens, nextTokens, onlyAllowed } from '../sampling/logitsProcessor.ts';
import type { LogprobRecorder, TokenLogprob } from '../sampling/logprobs.ts';
import { Uniforms } from '../sampling/random.ts';
import type { RequestClass, SamplingState, TokenOutcome } from '../scheduler/job.ts';
import type { Submitter } from '../scheduler/scheduler.ts';
import type { Sliced } from '../tokenizer/tokenizer.ts';

export interface GenerationRequest {
  readonly requestClass: RequestClass;
  readonly prompt: readonly number[];
  /** See `TokenRequest`. */
  readonly boundaries?: readonly number[] | undefined;
  readonly maxTokens: number;
  readonly sampling: SamplerSettings;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** Tokens that end the answer and are not part of it. */
  readonly stopIds: ReadonlySet<number>;
  /** Strings that end the answer and are not part of it; thinking may contain them. */
  readonly stopStrings: readonly string[];
  /** Turns tokens into text, and separates thinking from the answer. */
  readonly parser: OutputParser;
  /** Combined as in `nextTokens`. */
  readonly processors?: readonly LogitsProcessor[] | undefined;
  /** Ends an answer that repeats itself in a cycle. Thinking has its own limit, and the user can end it. */
  readonly endRepetition?: boolean | undefined;
  /** Records every token; the device then doesn't sample. */
  readonly logprobs?: LogprobRecorder | undefined;
  /** Gets the logits of the first tokens, which the host samples; the device may sample later ones. */
  readonly observer?: SampleObserver | undefined;
  /** `tokens`: generated so far, including hidden ones. `logprobs`: of the piece's tokens. */
  readonly onPiece: (piece: OutputPiece, tokens: number, logprobs?: readonly TokenLogprob[]) => 'continue' | 'stop';
  /** From now; a request that takes longer fails with `timeout`. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface SampleObserver {
  /** How many first tokens it observes. */
  readonly tokens: number;
  /** @param logits `[vocabulary]`, as sampled from; the buffer is reused. */
  sampled(logits: Float32Array, token: number): void;
}

export interface GeneratedCall {
  /** Index of the call in the answer. */
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
  readonly statistics: Statistics;
}

/** Returns the partial answer if cancelled. @throws HearthError as `Scheduler.submit` does. */
export async function generate(scheduler: Submitter, request: GenerationRequest): Promise<Generated> {
  const answer = new Answer(request);
  const { requestClass, prompt, boundaries, maxTokens, timeoutMs, signal } = request;
  const outcome = await scheduler.submit({
    requestClass,
    prompt,
    boundaries,
    maxTokens,
    choose: (logits) => answer.choose(logits),
    sampling: answer.samplingState(),
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
    finish: answer.isRepeated && outcome.finish === 'stop' ? 'repetition' : outcome.finish,
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
  readonly #repetition: RepetitionWatch | undefined;
  isRepeated = false;

  constructor(request: GenerationRequest) {
    this.#request = request;
    this.#uniforms = new Uniforms(request.random);
    this.#stops = new StopStrings(request.stopStrings);
    this.#sequence = new Set(request.prompt);
    this.#repetition = request.endRepetition ? new RepetitionWatch() : undefined;
  }

  choose(logits: Float32Array): number | Promise<number> {
    const next = nextTokens(this.#processors);
    // The decoder reuses its buffer in the meantime.
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

  /** `choose` as rules that a device can follow; undefined if there is a logit bias. */
  samplingState(): SamplingState | undefined {
    const { sampling, logprobs, stopIds } = this.#request;
    if (logprobs || sampling.logitBias.size > 0) return undefined;
    // Like `sample`, which uses no random number if it is greedy.
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
      sampled: (tokens) => this.#uniforms.skip(tokens),
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

  /** Delivers text held back as a possible stop string, tag or partial character. */
  end(): void {
    this.#read(this.#request.parser.end());
    if (!this.#stopped) this.#deliver({ kind: 'text', text: this.#stops.end() });
  }

  /** Complete calls only, not truncated or malformed ones. */
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
    if (piece.kind === 'text' && this.#repetition?.push(piece.text)) this.isRepeated = this.#stopped = true;
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

function statisticsOf(promptTokens: number, outcome: TokenOutcome): Statistics {
  const { cachedTokens, generatedTokens, submittedMs, firstTokenMs, endedMs } = outcome;
  // The first token belongs to prefill: it is sampled from the prompt's last logits.
  const decodeMs = endedMs - firstTokenMs;
  return {
    promptTokens,
    cachedTokens,
    generatedTokens,
    timeToFirstTokenMs: firstTokenMs - submittedMs,
    tokensPerSecond: decodeMs > 0 ? (1000 * Math.max(0, generatedTokens - 1)) / decodeMs : 0,
  };
}

// Detects a text that repeats itself in a cycle. Exact: only identical characters count.

/**
 * A cycle counts once it has this many turns and this many characters in all. People write rules of dashes, rows of
 * zeros, equal lines and base64 padding, but not two thousand characters of them.
 */
const leastTurns = 6;
const leastChars = 2_000;
/** Characters at the end that are checked. A cycle may have up to a sixth of them. */
const windowChars = 12_288;
/** Checks the text every this many characters, so that a character costs about 24 comparisons. */
const stepChars = 512;

export class RepetitionWatch {
  #tail = '';
  #unseen = 0;

  /** Whether the text so far ends in a cycle. */
  push(text: string): boolean {
    this.#tail = (this.#tail + text).slice(-windowChars);
    this.#unseen += text.length;
    if (this.#unseen < stepChars) return false;
    this.#unseen = 0;
    return endsInCycle(this.#tail);
  }
}

/** Uses the prefix function (Knuth, Morris, Pratt) of the reversed text: period = length - border. */
function endsInCycle(text: string): boolean {
  const length = text.length;
  const borders = new Uint32Array(length + 1);
  for (let end = 1, border = 0; end < length; end += 1) {
    const char = text.charCodeAt(length - 1 - end);
    while (border > 0 && text.charCodeAt(length - 1 - border) !== char) border = borders[border] ?? 0;
    if (text.charCodeAt(length - 1 - border) === char) border += 1;
    borders[end + 1] = border;
    const chars = end + 1;
    if (chars >= leastChars && chars >= leastTurns * (chars - border)) return true;
  }
  return false;
}

// Runs long synchronous work in slices, so that completions, cancellations and status requests are not delayed.

export interface SliceOptions {
  readonly signal?: AbortSignal | undefined;
  /** By `performance.now()`. */
  readonly deadlineMs?: number | undefined;
}

/** @throws HearthError `cancelled` or `timeout` between two slices, which abandons the work. */
export async function runInSlices<Result>(
  work: Sliced<Result>,
  { signal, deadlineMs = Number.POSITIVE_INFINITY }: SliceOptions = {},
): Promise<Result> {
  for (;;) {
    throwIfAborted(signal);
    const started = performance.now();
    if (started > deadlineMs) throw new HearthError('timeout', 'The request timed out before its prompt was prepared.');
    while (performance.now() - started < limits.generation.sliceMs) {
      const step = work.next();
      if (step.done) return step.value;
    }
    await nextTurn();
  }
}

let lastTurn: Promise<void> = Promise.resolve();

/** Runs one slice in each turn of the event loop, for all requests together. */
function nextTurn(): Promise<void> {
  lastTurn = lastTurn.then(() => setImmediate());
  return lastTurn;
}
