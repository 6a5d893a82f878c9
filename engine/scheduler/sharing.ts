/** Divides the KV cache between requests and the device between models, and detects device calls that hang. */
import type { PrefixCache } from '../kv/prefixCache.ts';
import { limits } from '../limits.ts';
import { type Job, type RequestClass, requestClasses, type StatisticsRecorder, type StepSlice } from './job.ts';
import type { RequestQueue } from './requestQueue.ts';

type Slice = StepSlice<Job>;

export class MemoryRoom {
  readonly #queue: RequestQueue<Job>;
  readonly #cache: () => PrefixCache;
  readonly #statistics: StatisticsRecorder;

  /** @param cache the current one; it is replaced after a device loss. */
  constructor(queue: RequestQueue<Job>, cache: () => PrefixCache, statistics: StatisticsRecorder) {
    this.#queue = queue;
    this.#cache = cache;
    this.#statistics = statistics;
  }

  /** Whether every admitted request has memory. If not, requests of worse classes give up theirs, or this one waits. */
  hasRoomFor(job: Job): boolean {
    const admitted = [...this.#queue].filter((other) => other.admitted);
    for (;;) {
      const demands = admitted.map(({ sequence, waitingTokens }) => ({ sequence, tokens: waitingTokens }));
      // A single request always runs: if memory is short, the decoder's error message says more.
      if (this.#cache().evictFor(demands) || admitted.length === 1) return true;
      const victim = this.#queue.victimFor(job);
      this.#suspend(victim && victim.requestClass !== job.requestClass ? victim : job);
      if (!job.admitted) {
        this.#queue.block(job);
        return false;
      }
      admitted.splice(0, admitted.length, ...admitted.filter((other) => other.admitted));
    }
  }

  /** Its tokens stay in the cache while there is room; evicted ones are computed again. */
  #suspend(job: Job): void {
    const { lease } = job;
    if (!lease) throw new Error('The request has no sequence to give back.');
    job.lease = undefined;
    job.drafts = [];
    this.#cache().release(lease, job.tokens);
    this.#statistics.suspended();
  }

  /** @returns all slices if they fit, else the first alone, for which other requests may be suspended. */
  fitting(slices: readonly Slice[]): readonly Slice[] {
    const cache = this.#cache();
    if (cache.evictFor(slices.map(demand))) return slices;
    const [first] = slices;
    if (!first) return [];
    while (!cache.evictFor([demand(first)])) {
      const victim = this.#queue.victimFor(first.request);
      if (victim) {
        this.#suspend(victim);
        continue;
      }
      // Requests that rank before it continue. A single request always runs.
      if (![...this.#queue].some((other) => other.admitted && other !== first.request)) break;
      this.#suspend(first.request);
      this.#queue.block(first.request);
      return [];
    }
    return [first];
  }
}

const demand = ({ request, tokens, drafts }: Slice) => ({ sequence: request.sequence, tokens: tokens + drafts });

// Two models on one device: their schedulers run one pass at a time, and the better class of request goes first.

export interface DeviceUser {
  /** The best class that waits for a pass; undefined if none waits. */
  readonly waitingClass: () => RequestClass | undefined;
}

interface SharedDeviceOptions {
  /** How long better classes of another scheduler may delay the next pass of a class. */
  readonly patienceMs: Readonly<Record<RequestClass, number>>;
  /** Monotonic milliseconds, the clock of the schedulers. */
  readonly now: () => number;
}

interface Waiting {
  readonly user: DeviceUser;
  readonly sinceMs: number;
  readonly grant: () => void;
}

export class SharedDevice {
  /** When a request of each class last arrived at any of the schedulers. */
  readonly arrivals = new Map<RequestClass, number>();
  readonly calls = new CallWatch();
  readonly #options: SharedDeviceOptions;
  /** The longest waiting first. */
  readonly #waiting: Waiting[] = [];
  #holder: DeviceUser | undefined;

  constructor(options: SharedDeviceOptions) {
    this.#options = options;
  }

  /** Another scheduler waits for a pass. */
  get isWanted(): boolean {
    return this.#waiting.length > 0;
  }

  /** Gives the device back if `user` holds it, and waits for the next pass. */
  async enter(user: DeviceUser): Promise<void> {
    const isFree = this.#holder === undefined || this.#holder === user;
    if (isFree && this.#waiting.length === 0) {
      this.#holder = user;
      return;
    }
    const granted = new Promise<void>((grant) => {
      this.#waiting.push({ user, sinceMs: this.#options.now(), grant });
    });
    this.leave(user);
    await granted;
  }

  leave(user: DeviceUser): void {
    if (this.#holder === user) this.#holder = undefined;
    if (this.#holder !== undefined) return;
    const next = this.#next();
    if (next === undefined) return;
    this.#waiting.splice(this.#waiting.indexOf(next), 1);
    this.#holder = next.user;
    next.grant();
  }

  #next(): Waiting | undefined {
    const nowMs = this.#options.now();
    let best: Waiting | undefined;
    let bestRank = Number.POSITIVE_INFINITY;
    for (const waiting of this.#waiting) {
      const rank = this.#rank(waiting, nowMs);
      if (rank < bestRank) [best, bestRank] = [waiting, rank];
    }
    return best;
  }

  #rank({ user, sinceMs }: Waiting, nowMs: number): number {
    const requestClass = user.waitingClass();
    if (requestClass === undefined) return requestClasses.length;
    const isImpatient = nowMs - sinceMs > this.#options.patienceMs[requestClass];
    return isImpatient ? -1 : requestClasses.indexOf(requestClass);
  }
}

// Detects calls into native code (Dawn, ONNX Runtime, ggml) that never return. Time is counted in checks, one a second,
// so time while the process was stopped or the computer slept does not count. The caller of `look` ends the process.

/** A forward pass, whose time is compared with earlier passes of its decoder. */
export interface WatchedPass {
  readonly decoder: object;
  readonly tokens: number;
}

/** A call that has not returned. */
export interface WatchedCall {
  /** Reports progress, which restarts the count. */
  goesOn(): void;
  end(): void;
}

interface Slowest {
  looks: number;
  /** Most tokens of one pass. */
  tokens: number;
}

export class CallWatch {
  readonly #running = new Set<{ looks: number; readonly most: number }>();
  readonly #slowest = new WeakMap<object, Slowest>();

  begin(pass?: WatchedPass): WatchedCall {
    const call = { looks: 0, most: this.#mostLooks(pass) };
    this.#running.add(call);
    return {
      goesOn: () => {
        call.looks = 0;
      },
      end: () => {
        this.#running.delete(call);
        if (pass) this.#measured(pass, call.looks);
      },
    };
  }

  async during<Result>(work: Result | Promise<Result>, pass?: WatchedPass): Promise<Result> {
    const call = this.begin(pass);
    try {
      return await work;
    } finally {
      call.end();
    }
  }

  /** Call every second. @returns the seconds that a call has taken if it counts as hung. */
  look(): number | undefined {
    let hung: number | undefined;
    for (const call of this.#running) if (++call.looks > call.most) hung = call.looks;
    return hung;
  }

  #mostLooks(pass: WatchedPass | undefined): number {
    const { callSeconds, passSeconds, slowerPass } = limits.hang;
    const slowest = pass && this.#slowest.get(pass.decoder);
    if (!slowest) return callSeconds;
    // A pass shorter than a second was never checked, so its count is 0.
    const expected = (slowest.looks + 1) * Math.max(1, pass.tokens / slowest.tokens);
    return Math.max(passSeconds, slowerPass * expected);
  }

  #measured({ decoder, tokens }: WatchedPass, looks: number): void {
    const slowest = this.#slowest.get(decoder);
    if (!slowest) this.#slowest.set(decoder, { looks, tokens });
    else Object.assign(slowest, { looks: Math.max(looks, slowest.looks), tokens: Math.max(tokens, slowest.tokens) });
  }
}
