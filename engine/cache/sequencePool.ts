/**
 * Keeps the key-value caches of recent requests, so that a prompt which begins like an earlier one is not computed again.
 * Each kind of request (its owner) keeps a few sequences of its own: a keystroke displaces keystrokes, not the chat.
 */
import type { Sequence } from '../backend/backend.ts';

export interface PoolOptions {
  readonly createSequence: () => Sequence;
  /** Of keys and values over all layers. */
  readonly bytesPerToken: number;
  /** Idle sequences are dropped, the longest unused first, to keep the pool within this. */
  readonly budgetBytes: number;
  readonly maxIdlePerOwner: number;
}

/** A sequence in use by one request. Its first `cachedTokens` tokens are computed. */
export interface Lease {
  readonly sequence: Sequence;
  readonly cachedTokens: number;
  readonly owner: string;
}

interface Idle {
  readonly sequence: Sequence;
  readonly tokens: readonly number[];
  readonly owner: string;
}

/** A shorter common beginning is computed again: cheaper than a copy of the cache. */
const leastSharedTokens = 16;

export class SequencePool {
  readonly #options: PoolOptions;
  /** The longest unused first. */
  #idle: Idle[] = [];
  readonly #leased = new Set<Lease>();

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** Bytes of all sequences, idle and leased. */
  get bytes(): number {
    let tokens = 0;
    for (const idle of this.#idle) tokens += idle.sequence.length;
    for (const lease of this.#leased) tokens += lease.sequence.length;
    return tokens * this.#options.bytesPerToken;
  }

  /**
   * A sequence that holds the longest known beginning of `tokens`, and nothing else. At least the last token is left
   * to compute, since only computing gives logits.
   */
  acquire(tokens: readonly number[], owner: string): Lease {
    const sequence = this.#reuse(tokens, owner) ?? this.#options.createSequence();
    const lease: Lease = { sequence, cachedTokens: sequence.length, owner };
    this.#leased.add(lease);
    this.#evict((tokens.length - sequence.length) * this.#options.bytesPerToken);
    return lease;
  }

  /** Gives the sequence back. `tokens` begins with the tokens that it holds. */
  release(lease: Lease, tokens: readonly number[]): void {
    this.#end(lease);
    const { sequence, owner } = lease;
    if (sequence.length > tokens.length) {
      sequence.dispose();
      throw new Error(`A sequence of ${sequence.length} tokens was released with ${tokens.length} token ids.`);
    }
    this.#idle.push({ sequence, owner, tokens: tokens.slice(0, sequence.length) });
    this.#evict(0);
  }

  /** Drops a sequence whose contents are in doubt. */
  discard(lease: Lease): void {
    this.#end(lease);
    lease.sequence.dispose();
  }

  /** Drops every idle sequence. */
  clear(): void {
    for (const { sequence } of this.#idle) sequence.dispose();
    this.#idle = [];
  }

  #end(lease: Lease): void {
    if (!this.#leased.delete(lease)) throw new Error('A sequence was given back twice.');
  }

  #reuse(tokens: readonly number[], owner: string): Sequence | undefined {
    let best: { readonly idle: Idle; readonly shared: number } | undefined;
    for (const idle of this.#idle) {
      const shared = Math.min(commonPrefix(idle.tokens, tokens), tokens.length - 1);
      // Among equals the last used, whose owner is most likely to be the same conversation.
      if (shared >= Math.max(leastSharedTokens, best?.shared ?? 0)) best = { idle, shared };
    }
    if (!best) return undefined;
    const { idle, shared } = best;
    // What continues its own kind takes the sequence over; what merely shares a preamble leaves the rest to its owner.
    const continues = idle.owner === owner && 2 * shared >= Math.min(idle.tokens.length, tokens.length);
    if (continues) this.#idle = this.#idle.filter((other) => other !== idle);
    const sequence = continues ? idle.sequence : idle.sequence.fork();
    sequence.truncate(shared);
    return sequence;
  }

  #evict(neededBytes: number): void {
    const { maxIdlePerOwner, budgetBytes } = this.#options;
    for (const owner of new Set(this.#idle.map((idle) => idle.owner))) {
      const own = this.#idle.filter((idle) => idle.owner === owner);
      for (const idle of own.slice(0, Math.max(0, own.length - maxIdlePerOwner))) this.#drop(idle);
    }
    while (this.bytes + neededBytes > budgetBytes) {
      const oldest = this.#idle[0];
      if (!oldest) return;
      this.#drop(oldest);
    }
  }

  #drop(idle: Idle): void {
    this.#idle = this.#idle.filter((other) => other !== idle);
    idle.sequence.dispose();
  }
}

function commonPrefix(a: readonly number[], b: readonly number[]): number {
  const length = Math.min(a.length, b.length);
  let shared = 0;
  while (shared < length && a[shared] === b[shared]) shared++;
  return shared;
}
