/** Two models on one device: their schedulers run one pass at a time, and the better class of request goes first. */
import { type RequestClass, requestClasses } from './job.ts';

export interface DeviceUser {
  /** The best class that waits for a pass; undefined: none does. */
  readonly waitingClass: () => RequestClass | undefined;
}

export interface SharedDeviceOptions {
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
  readonly #options: SharedDeviceOptions;
  /** The one that waits longest first. */
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
