/** Divides the KV cache when it cannot hold every request: better classes first, and earlier requests first within a class. */
import type { PrefixCache } from '../kv/prefixCache.ts';
import type { Job, StepSlice } from './job.ts';
import type { RequestQueue } from './requestQueue.ts';
import type { StatisticsRecorder } from './statistics.ts';

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

  /** Whether every admitted request has memory. If not, requests of worse classes give theirs up, or this one waits. */
  hasRoomFor(job: Job): boolean {
    const admitted = [...this.#queue].filter((other) => other.admitted);
    for (;;) {
      const demands = admitted.map(({ sequence, waitingTokens }) => ({ sequence, tokens: waitingTokens }));
      // A single request always runs: if memory is short, the decoder has the better error message.
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
