/**
 * Who waits and whose turn it is. Time is an argument and nothing is computed here, so that a simulation with a virtual
 * clock can show that no request starves.
 *
 * Between classes the better one goes first, but a class that has waited for its patience gets one step. Within a class
 * every request gets the same share of the time: the one that was served least goes first, and a newcomer begins
 * where an ideal processor, shared by all, would stand now (start-time fair queueing: Goyal, Vin and Cheng 1996).
 */
import { HearthError } from '../errors.ts';
import {
  type Candidate,
  type NextStep,
  nextStep,
  type RequestClass,
  requestClasses,
  type StepLimits,
  type StepSlice,
} from './nextStep.ts';

/** Someone who types goes on within this time, and hardly ever before. */
const typing = { soonestMs: 60, latestMs: 2000 };

export interface QueueLimits extends StepLimits {
  /** Requests of one class that wait or run: a flood of one kind shuts out none of another. */
  readonly maxPendingPerClass: number;
  /** How long better classes may keep a class from its next step. */
  readonly patienceMs: Readonly<Record<RequestClass, number>>;
}

export interface QueuedRequest extends Candidate {
  /** When it must be done, on the queue's clock. */
  readonly deadlineMs?: number | undefined;
}

interface Turn {
  readonly arrival: number;
  servedMs: number;
  /** It waits for memory that others hold. */
  blocked: boolean;
  /** Its next token is being chosen elsewhere. */
  held: boolean;
}

interface ClassState {
  pending: number;
  /** What a request that was always here would have been served. */
  virtualMs: number;
  /** When the class was last served, or began to wait. */
  servedAtMs: number;
  arrivedAtMs: number;
}

export class RequestQueue<Request extends QueuedRequest> implements Iterable<Request> {
  #limits: QueueLimits;
  readonly #turns = new Map<Request, Turn>();
  readonly #classes = new Map<RequestClass, ClassState>(
    requestClasses.map((name) => [
      name,
      { pending: 0, virtualMs: 0, servedAtMs: 0, arrivedAtMs: Number.NEGATIVE_INFINITY },
    ]),
  );
  #arrivals = 0;
  /** In the last run of a prompt's tokens; 0 before there was one. */
  #msPerToken = 0;

  constructor(limits: QueueLimits) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#turns.size;
  }

  [Symbol.iterator](): Iterator<Request> {
    return this.#turns.keys();
  }

  has(request: Request): boolean {
    return this.#turns.has(request);
  }

  /** @throws HearthError `busy`. */
  add(request: Request, nowMs: number): void {
    const state = this.#classOf(request);
    if (state.pending >= this.#limits.maxPendingPerClass) {
      throw new HearthError(
        'busy',
        `${state.pending} requests of this kind are waiting already; try again when some are done.`,
      );
    }
    if (state.pending === 0) state.servedAtMs = nowMs;
    state.arrivedAtMs = nowMs;
    state.pending++;
    this.#turns.set(request, { arrival: this.#arrivals++, servedMs: state.virtualMs, blocked: false, held: false });
  }

  /** What it held is free again, so whoever waits for memory may try. */
  delete(request: Request): void {
    if (!this.#turns.delete(request)) throw new Error('A request ended twice.');
    this.#classOf(request).pending--;
    this.#unblock();
  }

  #unblock(): void {
    for (const turn of this.#turns.values()) turn.blocked = false;
  }

  next(nowMs: number): NextStep<Request> | undefined {
    const ordered = this.#ordered(nowMs);
    return nextStep(ordered, { ...this.#limits, chunkTokens: this.#chunkTokens(ordered[0], nowMs) });
  }

  #chunkTokens(first: Request | undefined, nowMs: number): number {
    const isTyping = first !== undefined && this.isTypingBefore(first, nowMs);
    return chunkTokens({ fullTokens: this.#limits.chunkTokens, msPerToken: this.#msPerToken, isTyping });
  }

  /** Another machine takes other runs. */
  resize(limits: StepLimits): void {
    this.#limits = { ...this.#limits, ...limits };
    this.#msPerToken = 0;
    this.#unblock();
  }

  /** Somebody types, or asks otherwise for what goes before the request: probably again during its next step. */
  isTypingBefore(request: Request, nowMs: number): boolean {
    return requestClasses.slice(0, rank(request)).some((name) => {
      const sinceMs = nowMs - this.#classOf({ requestClass: name }).arrivedAtMs;
      return sinceMs > typing.soonestMs && sinceMs < typing.latestMs;
    });
  }

  /** How long one forward pass took. Not those whose tokens the device samples: they follow each other, a token each. */
  measured(slices: readonly StepSlice<Request>[], tookMs: number): void {
    const tokens = tokensOf(slices);
    if (tokens >= leastMeasuredTokens) this.#msPerToken = tookMs / tokens;
  }

  /** What was computed, and how long that took: divided among the slices by their tokens. */
  charge(slices: readonly StepSlice<Request>[], tookMs: number, nowMs: number): void {
    const allTokens = tokensOf(slices);
    for (const { request, tokens, drafts } of slices) {
      const turn = this.#turns.get(request);
      if (!turn) continue;
      const ms = (tookMs * (tokens + drafts)) / allTokens;
      turn.servedMs += ms;
      const state = this.#classOf(request);
      state.virtualMs += ms / state.pending;
      state.servedAtMs = nowMs;
    }
  }

  /** Leaves the request out until it is released. */
  hold(request: Request): void {
    this.#turn(request).held = true;
  }

  /** Without effect on one that has ended meanwhile. */
  release(request: Request): void {
    const turn = this.#turns.get(request);
    if (turn) turn.held = false;
  }

  isHeld(request: Request): boolean {
    return this.#turn(request).held;
  }

  /** Leaves the request out until another one ends. */
  block(request: Request): void {
    this.#turn(request).blocked = true;
  }

  /**
   * Of those that hold a sequence, the one that must give it back for `request`: the latest of the worst class, and none
   * that ranks before it. The first of all is never chosen, so that it gets done.
   */
  victimFor(request: Request): Request | undefined {
    let victim: Request | undefined;
    for (const other of this.#turns.keys()) {
      if (other.admitted && other !== request && this.#ranksBefore(victim ?? request, other)) victim = other;
    }
    return victim;
  }

  #ranksBefore(a: Request, b: Request): boolean {
    const byClass = rank(a) - rank(b);
    return byClass < 0 || (byClass === 0 && this.#turn(a).arrival < this.#turn(b).arrival);
  }

  #ordered(nowMs: number): Request[] {
    const impatient = this.#impatientClass(nowMs);
    const first = (request: Request): number => (request.requestClass === impatient ? -1 : rank(request));
    return [...this.#turns]
      .filter(([, { blocked, held }]) => !blocked && !held)
      .sort(
        ([a, turnA], [b, turnB]) =>
          first(a) - first(b) || turnA.servedMs - turnB.servedMs || turnA.arrival - turnB.arrival,
      )
      .map(([request]) => request);
  }

  /** The class that has waited longest beyond its patience. */
  #impatientClass(nowMs: number): RequestClass | undefined {
    let found: RequestClass | undefined;
    let longestMs = 0;
    for (const [name, { pending, servedAtMs }] of this.#classes) {
      const beyondMs = nowMs - servedAtMs - this.#limits.patienceMs[name];
      if (pending === 0 || beyondMs <= longestMs) continue;
      longestMs = beyondMs;
      found = name;
    }
    return found;
  }

  #classOf({ requestClass }: Pick<Request, 'requestClass'>): ClassState {
    const state = this.#classes.get(requestClass);
    if (!state) throw new Error(`There is no class ${requestClass}.`);
    return state;
  }

  #turn(request: Request): Turn {
    const turn = this.#turns.get(request);
    if (!turn) throw new Error('The request is not pending.');
    return turn;
  }
}

const tokensOf = (slices: readonly StepSlice<unknown>[]): number =>
  slices.reduce((sum, { tokens, drafts }) => sum + tokens + drafts, 0);

const rank = ({ requestClass }: Candidate): number => requestClasses.indexOf(requestClass);

// How many tokens of a prompt one forward pass takes: decided here alone, by the time that passes take on this device.

/** While somebody types, the next key waits for a pass to end. A pass of fewer tokens reads all weights for too little. */
const typingPass = { passMs: 100, leastTokens: 16 };

/**
 * Otherwise what fills the device, unless a cancellation, or the first key of somebody who begins to type, would wait for longer than this.
 * As many tokens as `leastTokens` run at once on any device, and before its speed is known.
 */
const idlePass = { passMs: 1000, leastTokens: 128 };

interface ChunkConditions {
  /** Of a pass that fills the device (`Decoder.maxTokensPerRun`). */
  readonly fullTokens: number;
  /** Measured in the last passes; 0: not known yet. */
  readonly msPerToken: number;
  /** Somebody types, or asks otherwise for what goes first. */
  readonly isTyping: boolean;
}

function chunkTokens({ fullTokens, msPerToken, isTyping }: ChunkConditions): number {
  const { passMs, leastTokens } = isTyping ? typingPass : idlePass;
  const timely = msPerToken > 0 ? Math.floor(passMs / msPerToken) : leastTokens;
  return Math.min(fullTokens, Math.max(leastTokens, timely));
}

/** The time of shorter passes is that of reading the weights, and says little of a prompt's. */
const leastMeasuredTokens = typingPass.leastTokens;
