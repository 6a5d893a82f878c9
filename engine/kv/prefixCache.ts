/**
 * The prefix cache: sequences of recent requests, so that a prompt which starts like an earlier one isn't prefilled
 * again. A radix tree finds the longest cached prefix. The backend accounts for memory; restored sequences that no
 * request has used are evicted first, then the least recently used. All requests of a model share the cache, but each
 * owner (request class) keeps its own few sequences: a keystroke evicts keystrokes, not the chat.
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

  /** Of unused restored sequences, drops the last: they were restored most recently used first. */
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

// A radix tree over token ids: finds the stored token lists that share the longest prefix with a prompt.

interface Node<Value> {
  /** Token ids from the parent to this node; empty at the root only. */
  edge: readonly number[];
  /** Keyed by the first token of their edges. */
  readonly children: Map<number, Node<Value>>;
  /** Values of the lists that end here. */
  readonly values: Set<Value>;
}

/** A shared prefix: its length in tokens, and the values of all lists that start with it. */
interface PrefixMatch<Value> {
  readonly shared: number;
  readonly values: readonly Value[];
}

const newNode = <Value>(edge: readonly number[]): Node<Value> => ({ edge, children: new Map(), values: new Set() });

export class PrefixTree<Value> {
  readonly #root = newNode<Value>([]);

  insert(tokens: readonly number[], value: Value): void {
    let node = this.#root;
    for (let at = 0; at < tokens.length; ) {
      const child = node.children.get(tokens[at] ?? -1);
      if (!child) {
        const leaf = newNode<Value>(tokens.slice(at));
        node.children.set(tokens[at] ?? -1, leaf);
        node = leaf;
        break;
      }
      const shared = sharedLength(child.edge, tokens, at);
      node = shared === child.edge.length ? child : split(node, child, shared);
      at += shared;
    }
    node.values.add(value);
  }

  /** @returns whether it was stored under these tokens. */
  delete(tokens: readonly number[], value: Value): boolean {
    const path: Node<Value>[] = [this.#root];
    for (let at = 0; at < tokens.length; ) {
      const child = path.at(-1)?.children.get(tokens[at] ?? -1);
      if (!child || sharedLength(child.edge, tokens, at) < child.edge.length) return false;
      path.push(child);
      at += child.edge.length;
    }
    const found = path.at(-1)?.values.delete(value) ?? false;
    prune(path);
    return found;
  }

  /** The longest prefix that any stored list shares with `tokens`. */
  longest(tokens: readonly number[]): PrefixMatch<Value> {
    const [longest] = this.matches(tokens);
    return longest ?? { shared: 0, values: [] };
  }

  /** All prefixes that stored lists share with `tokens`, longest first. */
  *matches(tokens: readonly number[]): Generator<PrefixMatch<Value>> {
    const path: { readonly node: Node<Value>; readonly shared: number }[] = [];
    for (let node = this.#root, at = 0; at < tokens.length; ) {
      const child = node.children.get(tokens[at] ?? -1);
      if (!child) break;
      const shared = sharedLength(child.edge, tokens, at);
      node = child;
      at += shared;
      path.push({ node, shared: at });
      if (shared < child.edge.length) break;
    }
    for (const { node, shared } of path.reverse()) yield { shared, values: valuesBelow(node) };
  }
}

/** Number of tokens of `edge` that equal `tokens` from index `at` on. */
function sharedLength(edge: readonly number[], tokens: readonly number[], at: number): number {
  const length = Math.min(edge.length, tokens.length - at);
  let shared = 0;
  while (shared < length && edge[shared] === tokens[at + shared]) shared++;
  return shared;
}

/** Inserts a node between parent and child, `shared` tokens down the child's edge. */
function split<Value>(parent: Node<Value>, child: Node<Value>, shared: number): Node<Value> {
  const middle = newNode<Value>(child.edge.slice(0, shared));
  parent.children.set(middle.edge[0] ?? -1, middle);
  child.edge = child.edge.slice(shared);
  middle.children.set(child.edge[0] ?? -1, child);
  return middle;
}

/** Removes leaves without values and merges nodes with a single child. */
function prune<Value>(path: readonly Node<Value>[]): void {
  for (let depth = path.length - 1; depth > 0; depth--) {
    const [parent, node] = [path[depth - 1], path[depth]];
    if (!parent || !node || node.values.size > 0) return;
    const [only, ...others] = node.children.values();
    if (others.length > 0) return;
    const key = node.edge[0] ?? -1;
    if (!only) {
      parent.children.delete(key);
      continue;
    }
    only.edge = [...node.edge, ...only.edge];
    parent.children.set(key, only);
    return;
  }
}

function valuesBelow<Value>(top: Node<Value>): Value[] {
  const values: Value[] = [];
  const open = [top];
  for (let node = open.pop(); node; node = open.pop()) {
    values.push(...node.values);
    open.push(...node.children.values());
  }
  return values;
}
