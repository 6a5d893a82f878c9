/**
 * The prefix cache: sequences of recent requests, so that a prompt which starts like an earlier one isn't prefilled
 * again. The backend accounts for memory; restored sequences that no request has used are evicted first, then the least
 * recently used. All requests of a model share the cache, but each owner (request class) keeps its own few sequences: a
 * keystroke evicts keystrokes, not the chat.
 */
import type { CacheDemand, Sequence } from './blockCache.ts';

export interface PrefixCacheOptions {
  readonly decoder: {
    createSequence(): Sequence;
    canAllocate(demands: readonly CacheDemand[]): boolean;
    /** See `DecoderMemory`. */
    memory(): { readonly cacheBytes: number; readonly idleLimitBytes?: number };
  };
  /** Most idle sequences of an owner. */
  readonly maxIdle: (owner: string) => number;
}

/** A sequence in use by one request. Its first `cachedTokens` tokens need no prefill. */
export interface Lease {
  readonly sequence: Sequence;
  readonly cachedTokens: number;
  readonly owner: string;
}

export interface IdleSequence {
  readonly sequence: Sequence;
  readonly tokens: readonly number[];
  /** Undefined for a restored sequence that no request has used; the first request to use it becomes its owner. */
  readonly owner: string | undefined;
}

/** Owner of a draft model's sequences. They are useless after the answer, so they are never saved. */
export const draftOwner = 'draft';

/** A shorter shared prefix is prefilled again, which is cheaper than copying the KV cache. */
const minSharedTokens = 16;

export class PrefixCache {
  readonly #options: PrefixCacheOptions;
  /** Least recently used first. */
  readonly #idle = new Set<IdleSequence>();
  readonly #leased = new Set<Lease>();

  constructor(options: PrefixCacheOptions) {
    this.#options = options;
  }

  /** Sequences not in use, least recently used first. */
  get idle(): ReadonlySet<IdleSequence> {
    return this.#idle;
  }

  /**
   * A sequence that holds the longest cached prefix of `tokens`. The last token is never cached: its logits are still
   * needed.
   */
  acquire(tokens: readonly number[], owner: string): Lease {
    const sequence = this.#reuse(tokens, owner) ?? this.#options.decoder.createSequence();
    const lease: Lease = { sequence, cachedTokens: sequence.length, owner };
    this.#leased.add(lease);
    return lease;
  }

  /** Length of the longest prefix of `tokens` that an idle sequence holds and can be truncated to. */
  cachedPrefixTokens(tokens: readonly number[]): number {
    return this.#longest(tokens).shared;
  }

  /** Adds a sequence that was computed elsewhere. */
  adopt(sequence: Sequence, tokens: readonly number[], owner: string | undefined): void {
    if (sequence.length !== tokens.length) throw new Error('An adopted sequence must hold exactly its tokens.');
    this.#keep({ sequence, tokens, owner });
  }

  /**
   * Evicts idle sequences, unused restored ones and then the least recently used, until the demands fit.
   * @returns whether they fit.
   */
  evictFor(demands: readonly CacheDemand[]): boolean {
    return this.evictUntil(() => this.#options.decoder.canAllocate(demands));
  }

  /** @param kept isn't evicted. @returns whether it is enough. */
  evictUntil(isEnough: () => boolean, kept?: IdleSequence): boolean {
    while (!isEnough()) {
      const least = this.#nextToEvict();
      if (!least || least === kept) return false;
      this.#drop(least);
    }
    return true;
  }

  /** Returns the sequence to the cache. `tokens` must start with the tokens that it holds. */
  release(lease: Lease, tokens: readonly number[]): void {
    this.#end(lease);
    const { sequence, owner } = lease;
    if (sequence.length > tokens.length) {
      sequence.dispose();
      throw new Error(`A sequence of ${sequence.length} tokens was released with only ${tokens.length} token ids.`);
    }
    if (sequence.length === 0) sequence.dispose();
    else this.#keep({ sequence, owner, tokens: tokens.slice(0, sequence.length) });
  }

  /** Disposes a sequence whose contents may be wrong. */
  discard(lease: Lease): void {
    this.#end(lease);
    lease.sequence.dispose();
  }

  /** Disposes every idle sequence. */
  clear(): void {
    for (const idle of this.#idle) this.#drop(idle);
  }

  /** Picks the last of the unused restored sequences: they were restored most recently used first. */
  #nextToEvict(): IdleSequence | undefined {
    const [oldest] = this.#idle;
    return [...this.#idle].findLast(({ owner }) => owner === undefined) ?? oldest;
  }

  #end(lease: Lease): void {
    if (!this.#leased.delete(lease)) throw new Error('A sequence was released twice.');
  }

  #keep(idle: IdleSequence): void {
    this.#idle.add(idle);
    if (idle.owner === undefined) return;
    const own = [...this.#idle].filter(({ owner }) => owner === idle.owner);
    const excess = own.length - this.#options.maxIdle(idle.owner);
    for (const oldest of own.slice(0, Math.max(0, excess))) this.#drop(oldest);
    this.evictUntil(() => {
      const { cacheBytes, idleLimitBytes = Number.POSITIVE_INFINITY } = this.#options.decoder.memory();
      return cacheBytes <= idleLimitBytes;
    }, idle);
  }

  #reuse(tokens: readonly number[], owner: string): Sequence | undefined {
    const { shared, entries } = this.#longest(tokens.slice(0, -1));
    // The same owner's, then the most recently used: most likely the same conversation.
    const idle = entries.findLast((entry) => entry.owner === owner) ?? entries.at(-1);
    if (!idle || shared < minSharedTokens) return undefined;
    // A continuation takes the sequence over. A request that only shares a preamble forks it and leaves it to its
    // owner.
    const own = (idle.owner ?? owner) === owner;
    const continues = own && 2 * shared >= Math.min(idle.tokens.length, tokens.length);
    this.#idle.delete(idle);
    const sequence = continues ? idle.sequence : idle.sequence.fork();
    if (!continues) this.#keep({ ...idle, owner: idle.owner ?? owner });
    sequence.truncate(shared);
    return sequence;
  }

  /** A sequence with sliding windows may have to be truncated further than to what it shares. */
  #longest(tokens: readonly number[]) {
    return longestShared(this.#idle, (idle) => idle.sequence.reachable(sharedLength(idle.tokens, tokens)));
  }

  #drop(idle: IdleSequence): void {
    this.#idle.delete(idle);
    idle.sequence.dispose();
  }
}

/**
 * The entries with the longest shared prefix, in their order, and its length in tokens; no entries if none shares a
 * token. Compares all entries: a model has few idle sequences and snapshots, and most differ from a prompt early.
 */
export function longestShared<Entry>(
  entries: Iterable<Entry>,
  sharedTokens: (entry: Entry) => number,
): { readonly shared: number; readonly entries: readonly Entry[] } {
  let longest: { shared: number; entries: Entry[] } = { shared: 0, entries: [] };
  for (const entry of entries) {
    const shared = sharedTokens(entry);
    if (shared > longest.shared) longest = { shared, entries: [entry] };
    else if (shared > 0 && shared === longest.shared) longest.entries.push(entry);
  }
  return longest;
}

/** Length of the longest common prefix of two token lists. */
export function sharedLength(tokens: readonly number[], others: readonly number[]): number {
  const length = Math.min(tokens.length, others.length);
  let shared = 0;
  while (shared < length && tokens[shared] === others[shared]) shared++;
  return shared;
}
