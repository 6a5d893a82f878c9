/**
 * The prefix cache: sequences of recent requests, so that a prompt which starts like an earlier one isn't prefilled
 * again. A radix tree finds the longest cached prefix. The backend accounts for memory; restored sequences that no
 * request has used are evicted first, then the least recently used. All requests of a model share the cache, but each
 * owner (request class) keeps its own few sequences: a keystroke evicts keystrokes, not the chat.
 */
import type { CacheDemand, Decoder, Sequence } from '../backend/backend.ts';
import { type PrefixMatch, PrefixTree } from './prefixTree.ts';

export interface PrefixCacheOptions {
  readonly decoder: Pick<Decoder, 'createSequence' | 'canAllocate' | 'memory'>;
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

/** A shorter shared prefix is prefilled again, which is cheaper than copying the KV cache. */
const minSharedTokens = 16;

export class PrefixCache {
  readonly #options: PrefixCacheOptions;
  readonly #tree = new PrefixTree<IdleSequence>();
  /** Least recently used first. */
  readonly #idle = new Set<IdleSequence>();
  readonly #leased = new Set<Lease>();

  constructor(options: PrefixCacheOptions) {
    this.#options = options;
  }

  /** Sequences not in use, least recently used first. */
  get idle(): Iterable<IdleSequence> {
    return this.#idle;
  }

  get idleSequences(): number {
    return this.#idle.size;
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

  evictUntil(canAllocate: () => boolean): boolean {
    while (!canAllocate()) {
      const least = this.#nextToEvict();
      if (!least) return false;
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
    if (sequence.length === 0) {
      sequence.dispose();
      return;
    }
    this.#keep({ sequence, owner, tokens: tokens.slice(0, sequence.length) });
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

  /** Of unused restored sequences the last: they were restored most recently used first. */
  #nextToEvict(): IdleSequence | undefined {
    const [oldest] = this.#idle;
    return [...this.#idle].findLast(({ owner }) => owner === undefined) ?? oldest;
  }

  #end(lease: Lease): void {
    if (!this.#leased.delete(lease)) throw new Error('A sequence was released twice.');
  }

  #keep(idle: IdleSequence): void {
    this.#idle.add(idle);
    this.#tree.insert(idle.tokens, idle);
    if (idle.owner === undefined) return;
    const own = [...this.#idle].filter(({ owner }) => owner === idle.owner);
    const excess = own.length - this.#options.maxIdle(idle.owner);
    for (const oldest of own.slice(0, Math.max(0, excess))) this.#drop(oldest);
    this.#shrink(idle);
  }

  /** Gives up idle sequences beyond the decoder's limit, but not the one that was just used. */
  #shrink(newest: IdleSequence): void {
    for (;;) {
      const { cacheBytes, idleLimitBytes = Number.POSITIVE_INFINITY } = this.#options.decoder.memory();
      const least = this.#nextToEvict();
      if (cacheBytes <= idleLimitBytes || least === undefined || least === newest) return;
      this.#drop(least);
    }
  }

  #reuse(tokens: readonly number[], owner: string): Sequence | undefined {
    const { shared, values } = this.#longest(tokens.slice(0, -1));
    if (shared < minSharedTokens) return undefined;
    const idle = this.#mostRecent(values, owner);
    if (!idle) return undefined;
    // A continuation takes the sequence over. A request that only shares a preamble forks it and leaves it to its
    // owner.
    const own = (idle.owner ?? owner) === owner;
    const continues = own && 2 * shared >= Math.min(idle.tokens.length, tokens.length);
    this.#remove(idle);
    const sequence = continues ? idle.sequence : idle.sequence.fork();
    if (!continues) this.#keep({ ...idle, owner: idle.owner ?? owner });
    sequence.truncate(shared);
    return sequence;
  }

  /** The tree gives the shared length; a sequence with sliding windows may have to be truncated further. */
  #longest(tokens: readonly number[]): PrefixMatch<IdleSequence> {
    let longest: { shared: number; values: IdleSequence[] } = { shared: 0, values: [] };
    for (const { shared, values } of this.#tree.matches(tokens)) {
      if (shared <= longest.shared) break;
      for (const idle of values) {
        const reached = idle.sequence.reachable(shared);
        if (reached > longest.shared) longest = { shared: reached, values: [] };
        if (reached === longest.shared) longest.values.push(idle);
      }
    }
    return longest;
  }

  /** Prefers the same owner, then the most recently used: most likely the same conversation. */
  #mostRecent(among: readonly IdleSequence[], owner: string): IdleSequence | undefined {
    const equals = new Set(among);
    let found: IdleSequence | undefined;
    for (const idle of this.#idle) {
      if (equals.has(idle) && (idle.owner === owner || found?.owner !== owner)) found = idle;
    }
    return found;
  }

  #remove(idle: IdleSequence): void {
    this.#idle.delete(idle);
    this.#tree.delete(idle.tokens, idle);
  }

  #drop(idle: IdleSequence): void {
    this.#remove(idle);
    idle.sequence.dispose();
  }
}
