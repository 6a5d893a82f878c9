/**
 * The states of one sequence in recurrent layers. A state summarises all tokens so far, so a sequence can be truncated
 * only to a length at which its state was kept: at requested checkpoints, and at regular intervals. Replaces
 * `BlockTable` in a group whose blocks are states; a block holds the state of all layers of the group.
 */
import { type BlockCopy, type BlockPool, maxCheckpoints, selectCheckpoints } from './blocks.ts';

/** Distance of the states that are kept without a request, in tokens. */
const keptInterval = 1024;

/**
 * Most states that a sequence keeps besides its current one: the requested ones, and one at the interval. A state is as
 * large as some thousand tokens of the other layers.
 */
const maxKept = maxCheckpoints + 1;

/** Most states of a sequence: the kept ones, the current one, and one that a pass is about to write. */
export const maxStates = maxKept + 2;

interface State {
  readonly length: number;
  readonly block: number;
}

export class StateTable {
  readonly #pool: BlockPool;
  /** Written in place by every pass. */
  #current: State | undefined;
  /** Ascending, all shorter than the current one. */
  #kept: readonly State[] = [];
  #checkpoints: readonly number[] = [];

  constructor(pool: BlockPool) {
    this.#pool = pool;
  }

  /** The block that a pass reads and writes. */
  get blocks(): readonly number[] {
    return this.#current ? [this.#current.block] : [];
  }

  blocksNeeded(length: number): number {
    return this.#current === undefined || this.#mustCopy(this.#current, length) ? 1 : 0;
  }

  /**
   * Makes the state writable for a pass from `length` to `end`. Keeps the state at `length` if a checkpoint needs it.
   */
  prepare(length: number, end: number): BlockCopy[] {
    const before = this.#current;
    if (before === undefined || this.#mustCopy(before, length)) {
      const [block = 0] = this.#pool.take(1);
      this.#current = { length: end, block };
      if (!before) return [];
      if (this.#isWanted(length)) this.#keep({ length, block: before.block });
      else this.#pool.release(before.block);
      return [{ from: before.block, to: block }];
    }
    this.#current = { ...before, length: end };
    return [];
  }

  #mustCopy({ block }: State, length: number): boolean {
    return this.#isWanted(length) || this.#pool.isShared(block);
  }

  #isWanted(length: number): boolean {
    if (length === 0) return false;
    return this.#checkpoints.includes(length) || length - (this.#kept.at(-1)?.length ?? 0) >= keptInterval;
  }

  #keep(state: State): void {
    const all = [...this.#kept, state];
    const asked = all.filter(({ length }) => this.#checkpoints.includes(length));
    const unasked = all.filter((each) => !asked.includes(each)).slice(asked.length - maxKept);
    this.#kept = all.filter((each) => asked.includes(each) || unasked.includes(each));
    for (const each of all) if (!this.#kept.includes(each)) this.#pool.release(each.block);
  }

  setCheckpoints(lengths: readonly number[]): void {
    this.#checkpoints = selectCheckpoints(lengths);
  }

  /** Tokens from `length` to the next checkpoint. */
  tokensUntilCheckpoint(length: number): number {
    return Math.min(...this.#checkpoints.filter((each) => each > length)) - length;
  }

  slide(): boolean {
    return false;
  }

  reachable(length: number): number {
    if (this.#current && this.#current.length <= length) return this.#current.length;
    return this.#kept.findLast((state) => state.length <= length)?.length ?? 0;
  }

  truncate(length: number): void {
    if (!this.#current || this.#current.length <= length) return;
    this.#pool.release(this.#current.block);
    const lost = this.#kept.filter((state) => state.length > length);
    for (const { block } of lost) this.#pool.release(block);
    const kept = this.#kept.filter((state) => state.length <= length);
    this.#current = kept.at(-1);
    this.#kept = kept.slice(0, -1);
  }

  /** For each state, the token that it follows. */
  get ranges(): (readonly [first: number, end: number])[] {
    return this.#all.map(({ length }) => [length - 1, length]);
  }

  /** Drops the earlier of two adjacent ranges: the ranges of a stored sequence must not touch. */
  get rangesApart(): (readonly [first: number, end: number])[] {
    const { ranges } = this;
    return ranges.filter(([, end], i) => ranges[i + 1]?.[0] !== end);
  }

  /** The blocks of `rangesApart`. */
  get blocksApart(): readonly number[] {
    const ends = new Set(this.rangesApart.map(([, end]) => end));
    return this.#all.flatMap(({ length, block }) => (ends.has(length) ? [block] : []));
  }

  held(): number[] {
    return this.rangesApart.flat();
  }

  get #all(): readonly State[] {
    return this.#current ? [...this.#kept, this.#current] : this.#kept;
  }

  hold(ranges: readonly number[]): void {
    const lengths = ranges.filter((_, i) => i % 2 === 1);
    const blocks = this.#pool.take(lengths.length);
    const states = lengths.map((length, i) => ({ length, block: blocks[i] ?? 0 }));
    this.#current = states.at(-1);
    this.#kept = states.slice(0, -1);
  }

  fork(): StateTable {
    const fork = new StateTable(this.#pool);
    for (const { block } of this.#all) this.#pool.share(block);
    fork.#current = this.#current;
    fork.#kept = this.#kept;
    fork.#checkpoints = this.#checkpoints;
    return fork;
  }
}
