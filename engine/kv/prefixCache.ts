/**
 * Keeps the key-value caches of recent requests, so that a prompt which begins like an earlier one is not computed again.
 * A tree over token ids finds the longest known beginning; memory is the backend's own account, and what was unused longest
 * makes room, after what was never used. All requests of one model share it; each kind (its owner) keeps a few sequences of its own: a keystroke
 * displaces keystrokes, not the chat.
 */
import type { CacheDemand, Decoder, Sequence } from '../backend/backend.ts';
import { type Beginning, PrefixTree } from './prefixTree.ts';

export interface PrefixCacheOptions {
  readonly decoder: Pick<Decoder, 'createSequence' | 'hasRoom'>;
  /** Idle sequences that an owner keeps at most. */
  readonly maxIdle: (owner: string) => number;
}

/** A sequence in use by one request. Its first `cachedTokens` tokens are computed. */
export interface Lease {
  readonly sequence: Sequence;
  readonly cachedTokens: number;
  readonly owner: string;
}

export interface Idle {
  readonly sequence: Sequence;
  readonly tokens: readonly number[];
  /** Undefined: a spare one, which nobody has asked for yet; whoever asks first has it. */
  readonly owner: string | undefined;
}

/** A shorter common beginning is computed again: cheaper than a copy of the cache. */
const leastSharedTokens = 16;

export class PrefixCache {
  readonly #options: PrefixCacheOptions;
  readonly #tree = new PrefixTree<Idle>();
  /** The longest unused first. */
  readonly #idle = new Set<Idle>();
  readonly #leased = new Set<Lease>();

  constructor(options: PrefixCacheOptions) {
    this.#options = options;
  }

  /** Sequences that nobody uses, the longest unused first. */
  get idle(): Iterable<Idle> {
    return this.#idle;
  }

  get idleSequences(): number {
    return this.#idle.size;
  }

  /**
   * A sequence that holds the longest known beginning of `tokens`, and nothing else. At least the last token is left
   * to compute, since only computing gives logits.
   */
  acquire(tokens: readonly number[], owner: string): Lease {
    const sequence = this.#reuse(tokens, owner) ?? this.#options.decoder.createSequence();
    const lease: Lease = { sequence, cachedTokens: sequence.length, owner };
    this.#leased.add(lease);
    return lease;
  }

  /** Of `tokens`, how many from the first on some idle sequence holds and can go back to. */
  known(tokens: readonly number[]): number {
    return this.#longest(tokens).shared;
  }

  /** Takes in a sequence that was computed elsewhere. */
  adopt(sequence: Sequence, tokens: readonly number[], owner: string | undefined): void {
    if (sequence.length !== tokens.length) throw new Error('A sequence was adopted with other tokens than it holds.');
    this.#keep({ sequence, tokens, owner });
  }

  /** Drops idle sequences, spare ones and then the longest unused first, until there is room. @returns whether there is. */
  makeRoom(demands: readonly CacheDemand[]): boolean {
    return this.makeRoomWhere(() => this.#options.decoder.hasRoom(demands));
  }

  makeRoomWhere(hasRoom: () => boolean): boolean {
    while (!hasRoom()) {
      const least = this.#leastUseful();
      if (!least) return false;
      this.#drop(least);
    }
    return true;
  }

  /** Gives the sequence back. `tokens` begins with the tokens that it holds. */
  release(lease: Lease, tokens: readonly number[]): void {
    this.#end(lease);
    const { sequence, owner } = lease;
    if (sequence.length > tokens.length) {
      sequence.dispose();
      throw new Error(`A sequence of ${sequence.length} tokens was released with ${tokens.length} token ids.`);
    }
    if (sequence.length === 0) {
      sequence.dispose();
      return;
    }
    this.#keep({ sequence, owner, tokens: tokens.slice(0, sequence.length) });
  }

  /** Drops a sequence whose contents are in doubt. */
  discard(lease: Lease): void {
    this.#end(lease);
    lease.sequence.dispose();
  }

  /** Drops every idle sequence. */
  clear(): void {
    for (const idle of this.#idle) this.#drop(idle);
  }

  /** Spare ones came in the order of their use. */
  #leastUseful(): Idle | undefined {
    const [oldest] = this.#idle;
    return [...this.#idle].findLast(({ owner }) => owner === undefined) ?? oldest;
  }

  #end(lease: Lease): void {
    if (!this.#leased.delete(lease)) throw new Error('A sequence was given back twice.');
  }

  #keep(idle: Idle): void {
    this.#idle.add(idle);
    this.#tree.insert(idle.tokens, idle);
    if (idle.owner === undefined) return;
    const own = [...this.#idle].filter(({ owner }) => owner === idle.owner);
    const excess = own.length - this.#options.maxIdle(idle.owner);
    for (const oldest of own.slice(0, Math.max(0, excess))) this.#drop(oldest);
  }

  #reuse(tokens: readonly number[], owner: string): Sequence | undefined {
    const { shared, values } = this.#longest(tokens.slice(0, -1));
    if (shared < leastSharedTokens) return undefined;
    const idle = this.#lastUsed(values, owner);
    if (!idle) return undefined;
    // What continues its own kind takes the sequence over; what merely shares a preamble leaves the rest to its owner.
    const own = (idle.owner ?? owner) === owner;
    const continues = own && 2 * shared >= Math.min(idle.tokens.length, tokens.length);
    this.#remove(idle);
    const sequence = continues ? idle.sequence : idle.sequence.fork();
    if (!continues) this.#keep({ ...idle, owner: idle.owner ?? owner });
    sequence.truncate(shared);
    return sequence;
  }

  /** The tree knows what sequences share; one with sliding windows may have to go back further. */
  #longest(tokens: readonly number[]): Beginning<Idle> {
    let longest: { shared: number; values: Idle[] } = { shared: 0, values: [] };
    for (const { shared, values } of this.#tree.beginnings(tokens)) {
      if (shared <= longest.shared) break;
      for (const idle of values) {
        const reached = idle.sequence.reachable(shared);
        if (reached > longest.shared) longest = { shared: reached, values: [] };
        if (reached === longest.shared) longest.values.push(idle);
      }
    }
    return longest;
  }

  /** Among equals the last used of the same owner: most likely the same conversation. */
  #lastUsed(among: readonly Idle[], owner: string): Idle | undefined {
    const equals = new Set(among);
    let found: Idle | undefined;
    for (const idle of this.#idle) {
      if (equals.has(idle) && (idle.owner === owner || found?.owner !== owner)) found = idle;
    }
    return found;
  }

  #remove(idle: Idle): void {
    this.#idle.delete(idle);
    this.#tree.delete(idle.tokens, idle);
  }

  #drop(idle: Idle): void {
    this.#remove(idle);
    idle.sequence.dispose();
  }
}
