/**
 * The queue of requests and their order. Time is an argument and nothing is computed here, so that a simulation with a
 * virtual clock can show that no request starves.
 *
 * A better class goes first, but a class that has waited longer than its patience gets one step. Windows share the time
 * of a class equally, and so do the requests of a window: the least served goes first, and a new one starts at the
 * virtual time of an ideal shared processor (start-time fair queueing with weights: Goyal, Vin and Cheng 1996).
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
} from './job.ts';

/** While the user types, the next key comes within this interval. */
const typing = { soonestMs: 60, latestMs: 2000 };

export interface QueueLimits extends StepLimits {
  /** Requests of one class and window that wait or run, so that a flood of one can't block the others. */
  readonly maxPendingPerClass: number;
  /** How long better classes may delay the next step of a class. */
  readonly patienceMs: Readonly<Record<RequestClass, number>>;
  /** When a request of each class last arrived at any queue of the device. Absent: this queue keeps its own times. */
  readonly arrivals?: Map<RequestClass, number>;
}

export interface QueuedRequest extends Candidate {
  /** The window that asked. Requests without an owner count as one window. */
  readonly owner?: object | undefined;
  /** On the queue's clock. */
  readonly deadlineMs?: number | undefined;
}

interface Turn {
  readonly arrival: number;
  servedMs: number;
  /** The request waits for memory. */
  blocked: boolean;
  /** The request's next token waits for a grammar. */
  held: boolean;
}

interface ClassState {
  /** By window; windows without requests are absent. */
  readonly pending: Map<object | undefined, number>;
  /** Service time that a request present from the beginning would have had, times the requests of its window. */
  virtualMs: number;
  /** When the class was last served or started to wait. */
  servedAtMs: number;
}

export class RequestQueue<Request extends QueuedRequest> implements Iterable<Request> {
  #limits: QueueLimits;
  readonly #turns = new Map<Request, Turn>();
  readonly #classes = new Map<RequestClass, ClassState>(
    requestClasses.map((name) => [name, { pending: new Map(), virtualMs: 0, servedAtMs: 0 }]),
  );
  readonly #arrivals: Map<RequestClass, number>;
  #arrived = 0;
  /** In the last prefill pass; 0 before the first. */
  #msPerToken = 0;

  constructor(limits: QueueLimits) {
    this.#limits = limits;
    this.#arrivals = limits.arrivals ?? new Map();
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
    const pending = state.pending.get(request.owner) ?? 0;
    if (pending >= this.#limits.maxPendingPerClass) {
      throw new HearthError(
        'busy',
        `${pending} requests of this kind are already waiting. Try again when some are done.`,
      );
    }
    if (state.pending.size === 0) state.servedAtMs = nowMs;
    this.#arrivals.set(request.requestClass, nowMs);
    state.pending.set(request.owner, pending + 1);
    this.#turns.set(request, { arrival: this.#arrived++, servedMs: state.virtualMs, blocked: false, held: false });
  }

  /** Removes the request and unblocks those that wait for memory. */
  delete(request: Request): void {
    if (!this.#turns.delete(request)) throw new Error('A request ended twice.');
    const { pending } = this.#classOf(request);
    const left = (pending.get(request.owner) ?? 0) - 1;
    if (left > 0) pending.set(request.owner, left);
    else pending.delete(request.owner);
    this.#unblock();
  }

  /** The best class with a request that neither waits for memory nor is held. */
  bestClass(): RequestClass | undefined {
    const waiting = new Set<RequestClass>();
    for (const [{ requestClass }, { blocked, held }] of this.#turns) if (!blocked && !held) waiting.add(requestClass);
    return requestClasses.find((name) => waiting.has(name));
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
    const { chunkTokens: fullTokens, passesInFlight = 1 } = this.#limits;
    // While the user types, only one pass is in flight.
    return chunkTokens({ fullTokens, msPerToken: this.#msPerToken * (isTyping ? 1 : passesInFlight), isTyping });
  }

  /** Call when the decoder is replaced. */
  resize(limits: StepLimits): void {
    this.#limits = { ...this.#limits, ...limits };
    this.#msPerToken = 0;
    this.#unblock();
  }

  /**
   * Whether a request of a better class is likely to arrive during the next step of `request`, because the user types.
   */
  isTypingBefore(request: Request, nowMs: number): boolean {
    return requestClasses.slice(0, rank(request)).some((name) => {
      const sinceMs = nowMs - (this.#arrivals.get(name) ?? Number.NEGATIVE_INFINITY);
      return sinceMs > typing.soonestMs && sinceMs < typing.latestMs;
    });
  }

  /** Records the time of one forward pass. Steps with device sampling are several passes of one token and don't count. */
  measured(slices: readonly StepSlice<Request>[], tookMs: number): void {
    const tokens = tokensOf(slices);
    if (tokens >= leastMeasuredTokens) this.#msPerToken = tookMs / tokens;
  }

  /** Charges the time of a step to its requests, in proportion to their tokens. */
  charge(slices: readonly StepSlice<Request>[], tookMs: number, nowMs: number): void {
    const allTokens = tokensOf(slices);
    for (const { request, tokens, drafts } of slices) {
      const turn = this.#turns.get(request);
      if (!turn) continue;
      const ms = (tookMs * (tokens + drafts)) / allTokens;
      const state = this.#classOf(request);
      // Requests share their window's time; windows share the class's time.
      turn.servedMs += ms * (state.pending.get(request.owner) ?? 1);
      state.virtualMs += ms / state.pending.size;
      state.servedAtMs = nowMs;
    }
  }

  /** Skips the request until `release`. */
  hold(request: Request): void {
    this.#turn(request).held = true;
  }

  /** No effect on a request that has ended. */
  release(request: Request): void {
    const turn = this.#turns.get(request);
    if (turn) turn.held = false;
  }

  isHeld(request: Request): boolean {
    return this.#turn(request).held;
  }

  /** Skips the request until another one ends. */
  block(request: Request): void {
    this.#turn(request).blocked = true;
  }

  /**
   * The admitted request that must give its sequence back for `request`: the latest of the worst class, never one that
   * ranks before `request`. So the first of all requests always finishes.
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
      if (pending.size === 0 || beyondMs <= longestMs) continue;
      longestMs = beyondMs;
      found = name;
    }
    return found;
  }

  #classOf({ requestClass }: Pick<Request, 'requestClass'>): ClassState {
    const state = this.#classes.get(requestClass);
    if (!state) throw new Error(`Unknown request class ${requestClass}.`);
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

// Sets the number of prompt tokens in one forward pass, from the measured time of passes on this device. Nothing else
// sets it.

/**
 * While the user types, the next key waits for a pass to end. Smaller passes would read all weights for too few tokens.
 */
const typingPass = { passMs: 100, leastTokens: 16 };

/**
 * Without typing, a pass fills the device, unless a cancellation or the first key would wait longer than `passMs`.
 * `leastTokens` is the minimum on every device, and the size before its speed is known.
 */
const idlePass = { passMs: 1000, leastTokens: 128 };

interface ChunkConditions {
  /** A pass that fills the device (`Decoder.maxTokensPerRun`). */
  readonly fullTokens: number;
  /** 0: not measured yet. */
  readonly msPerToken: number;
  /** A request of a better class is likely to arrive soon. */
  readonly isTyping: boolean;
}

function chunkTokens({ fullTokens, msPerToken, isTyping }: ChunkConditions): number {
  const { passMs, leastTokens } = isTyping ? typingPass : idlePass;
  const timely = msPerToken > 0 ? Math.floor(passMs / msPerToken) : leastTokens;
  return Math.min(fullTokens, Math.max(leastTokens, timely));
}

/** Shorter passes mostly measure how long it takes to read the weights, not prefill. */
const leastMeasuredTokens = typingPass.leastTokens;
