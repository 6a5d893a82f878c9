/** Who gets the key-value memory when it does not hold all: requests of better classes, and of one class the earliest. */
import type { PrefixCache } from '../kv/prefixCache.ts';
import type { Job } from './job.ts';
import type { StepSlice } from './nextStep.ts';
import type { RequestQueue } from './requestQueue.ts';
import type { StatisticsRecorder } from './statistics.ts';

type Slice = StepSlice<Job>;

export class MemoryRoom {
  readonly #queue: RequestQueue<Job>;
  readonly #cache: () => PrefixCache;
  readonly #statistics: StatisticsRecorder;

  /** `cache`: after a loss it is another one. */
  constructor(queue: RequestQueue<Job>, cache: () => PrefixCache, statistics: StatisticsRecorder) {
    this.#queue = queue;
    this.#cache = cache;
    this.#statistics = statistics;
  }

  /** Whether all that is admitted can be computed. If not, requests of worse classes make room, or this one waits. */
  hasRoomFor(job: Job): boolean {
    const admitted = [...this.#queue].filter((other) => other.admitted);
    for (;;) {
      const demands = admitted.map(({ sequence, waitingTokens }) => ({ sequence, tokens: waitingTokens }));
      // Alone it is tried whatever the account says: the decoder knows what to tell the user.
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

  /** Its tokens stay in the cache while there is room; what is lost is computed again. */
  #suspend(job: Job): void {
    const { lease } = job;
    if (!lease) throw new Error('A request without a sequence has none to give back.');
    job.lease = undefined;
    job.drafts = [];
    this.#cache().release(lease, job.tokens);
    this.#statistics.suspended();
  }

  /** The slices for which there is memory: all, else the first alone, for which another request may have to stand back. */
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
      // Those that rank before it go on; alone it is tried whatever the account says.
      if (![...this.#queue].some((other) => other.admitted && other !== first.request)) break;
      this.#suspend(first.request);
      this.#queue.block(first.request);
      return [];
    }
    return [first];
  }
}

const demand = ({ request, tokens, drafts }: Slice) => ({ sequence: request.sequence, tokens: tokens + drafts });
