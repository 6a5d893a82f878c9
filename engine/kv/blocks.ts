/**
 * Which blocks of KV-cache memory hold which tokens of a sequence. Forks share blocks; a shared block is copied before it
 * is written. Bookkeeping only: the backend has the bytes (blockCache.ts).
 */
import { HearthError } from '../errors.ts';

/** The blocks of one window group: layers with the same sliding window, whose tokens stay visible equally long. */
export interface BlockGroup {
  /** Query i attends to key j iff `0 <= i - j < slidingWindow`; undefined: to every earlier key. */
  readonly slidingWindow?: number | undefined;
  /** A block holds the state after a token (states.ts) instead of keys and values; `blockTokens` is then 1. */
  readonly isState?: boolean;
  readonly blockTokens: number;
  /** Bytes of one block in all layers of the group. */
  readonly blockBytes: number;
  /** Most blocks in use. Absent: bytes alone are limited (`BlockStorage.capacityBytes`). */
  readonly blocks?: number;
  /**
   * The backend needs consecutive tokens in one piece of memory. A range of blocks is then allocated with an eighth to
   * spare, and copied as a whole when it grows beyond that or is written while shared.
   */
  readonly contiguous?: boolean;
}

/** A block to copy, in every layer of its group, before its sequence is written to. */
export interface BlockCopy {
  readonly from: number;
  readonly to: number;
}

/** Blocks that this many consecutive tokens need. */
export function blocksFor(tokens: number, group: Pick<BlockGroup, 'blockTokens' | 'contiguous'>): number {
  const { blockTokens, contiguous } = group;
  return Math.ceil((contiguous ? tokens + tokens / 8 : tokens) / blockTokens);
}

// Truncation with sliding windows. A windowed layer drops keys and values that no later token attends to. It keeps
// checkpoints of its window at some lengths, so that a sequence can be truncated to them (llama.cpp: context
// checkpoints).

/** Tokens that a windowed layer keeps beyond its window, so that a short truncation needs no checkpoint. */
export const rewindTokens = 256;

/** Distance of the checkpoints that every windowed layer keeps, in tokens. */
export const checkpointInterval = (slidingWindow: number): number => Math.max(512, 4 * slidingWindow);

/** Most requested checkpoints of one sequence; bounds their memory. */
export const maxCheckpoints = 8;

/** The first requested length, which conversations share, and the last ones: at most `maxCheckpoints`. */
export function selectCheckpoints(lengths: readonly number[]): number[] {
  const ascending = [...new Set(lengths)].filter((length) => length > 0).sort((a, b) => a - b);
  return ascending.length > maxCheckpoints
    ? [...ascending.slice(0, 1), ...ascending.slice(1 - maxCheckpoints)]
    : ascending;
}

/** Most blocks, without spare ones, that a sequence of `tokens` holds while up to `runTokens` are appended. */
export function maxBlocks(tokens: number, runTokens: number, group: Pick<BlockGroup, 'slidingWindow' | 'blockTokens'>) {
  const { slidingWindow, blockTokens } = group;
  const all = Math.ceil(tokens / blockTokens);
  if (slidingWindow === undefined) return all;
  const checkpoints = Math.floor(tokens / checkpointInterval(slidingWindow)) + maxCheckpoints;
  const windowBlocks = Math.ceil(slidingWindow / blockTokens) + 1;
  const recent = slidingWindow + rewindTokens + runTokens;
  return Math.min(all, checkpoints * windowBlocks + Math.ceil(recent / blockTokens) + 2);
}

/** Positions of the blocks that hold these token ranges. */
export function heldBlocks(ranges: readonly number[], blockTokens: number): Set<number> {
  const held = new Set<number>();
  for (let i = 0; i < ranges.length; i += 2) {
    const [first = 0, end = 0] = ranges.slice(i, i + 2);
    for (let index = Math.floor(first / blockTokens); index * blockTokens < end; index++) held.add(index);
  }
  return held;
}

export function noRoomFor(demands: readonly { readonly tokens: number }[]): HearthError {
  const tokens = demands.reduce((sum, demand) => sum + demand.tokens, 0);
  return new HearthError(
    'out-of-memory',
    `The open conversations fill the KV cache: it has no room for ${tokens} more tokens. Nothing was changed. Close one, or load the model with a shorter context.`,
  );
}

/** Counts the users of each block of a group. */
export class BlockPool {
  readonly group: BlockGroup;
  readonly #users: number[] = [];
  readonly #free: number[] = [];

  constructor(group: BlockGroup) {
    this.group = group;
  }

  get usedBlocks(): number {
    return this.#users.length - this.#free.length;
  }

  get freeBlocks(): number {
    return (this.group.blocks ?? Number.POSITIVE_INFINITY) - this.usedBlocks;
  }

  /** @throws HearthError `out-of-memory` if fewer are free; nothing is changed then. */
  take(count: number): number[] {
    if (count > this.freeBlocks) throw noRoomFor([{ tokens: count * this.group.blockTokens }]);
    return Array.from({ length: count }, () => {
      const block = this.#free.pop() ?? this.#users.length;
      this.#users[block] = 1;
      return block;
    });
  }

  share(block: number): void {
    this.#users[block] = (this.#users[block] ?? 0) + 1;
  }

  release(block: number): void {
    const users = (this.#users[block] ?? 0) - 1;
    if (users < 0) throw new Error(`Block ${block} was released more often than it was taken.`);
    this.#users[block] = users;
    if (users === 0) this.#free.push(block);
  }

  isShared(block: number): boolean {
    return (this.#users[block] ?? 0) > 1;
  }
}

/** Stands for a block that was released because no later token attends to it. */
const released = -1;

/** The blocks of one sequence in one window group, by position. */
export class BlockTable {
  readonly blocks: number[];
  readonly #pool: BlockPool;
  /** `slide` has checked the blocks before this one. */
  #slidTo = 0;
  #checkpoints: readonly number[] = [];

  constructor(pool: BlockPool, blocks: readonly number[] = []) {
    this.#pool = pool;
    this.blocks = [...blocks];
  }

  /** Blocks that `prepare` would take. */
  blocksNeeded(length: number, end: number): number {
    const { copied, count } = this.#plan(length, end);
    return count - copied;
  }

  /**
   * Makes the tokens `[length, end)` writable.
   * @returns the copies to make first, because those blocks were shared.
   */
  prepare(length: number, end: number): BlockCopy[] {
    const { copied, count } = this.#plan(length, end);
    const taken = this.#pool.take(count - copied);
    const shared = this.blocks.splice(copied, this.blocks.length, ...taken);
    for (const block of shared) this.#pool.release(block);
    return shared.flatMap((from, i) => {
      const to = taken[i];
      return to === undefined ? [] : [{ from, to }];
    });
  }

  /** Blocks from position `copied` on are replaced, then the table is extended to `count`. */
  #plan(length: number, end: number): { readonly copied: number; readonly count: number } {
    const { group } = this.#pool;
    const { blockTokens, contiguous } = group;
    const first = contiguous ? this.#rangeStart(this.blocks.length) : Math.floor(length / blockTokens);
    const block = this.blocks[first];
    const isWritten = contiguous || length % blockTokens > 0;
    const isCopied = isWritten && block !== undefined && this.#pool.isShared(block);
    const fits = end <= this.blocks.length * blockTokens && !(contiguous && isCopied);
    return {
      copied: isCopied ? first : this.blocks.length,
      count: fits ? this.blocks.length : first + blocksFor(end - first * blockTokens, group),
    };
  }

  /** See `Sequence.setCheckpoints`. */
  setCheckpoints(lengths: readonly number[]): void {
    if (this.#pool.group.slidingWindow === undefined) return;
    this.#checkpoints = selectCheckpoints(lengths);
    // Blocks that earlier checkpoints kept are checked again.
    this.#slidTo = 0;
  }

  /**
   * Releases the blocks that are neither attended to near `length` nor part of a checkpoint.
   * @returns whether there were any.
   */
  slide(length: number): boolean {
    const { slidingWindow, blockTokens, contiguous } = this.#pool.group;
    if (slidingWindow === undefined) return false;
    const outside = Math.floor(Math.max(0, length - slidingWindow - rewindTokens) / blockTokens);
    // Moving the rest of a contiguous range costs more than reading some tokens too many, so it happens in steps.
    const end = contiguous ? outside - (outside % (rewindTokens / blockTokens)) : outside;
    let isChanged = false;
    for (; this.#slidTo < end; this.#slidTo++) {
      const block = this.blocks[this.#slidTo];
      if (block === undefined || block === released || this.#isKept(this.#slidTo, slidingWindow)) continue;
      this.#pool.release(block);
      this.blocks[this.#slidTo] = released;
      isChanged = true;
    }
    return isChanged;
  }

  /** The largest length up to `length` whose next token finds everything that it attends to. */
  reachable(length: number): number {
    const { slidingWindow, blockTokens } = this.#pool.group;
    if (slidingWindow === undefined) return length;
    for (let end = length; end > 0; ) {
      const first = Math.floor(Math.max(0, end - slidingWindow + 1) / blockTokens);
      const hole = this.blocks.slice(first, Math.ceil(end / blockTokens)).lastIndexOf(released);
      if (hole < 0) return end;
      // Every longer length attends to the hole, down to the one that ends where it starts.
      end = (first + hole) * blockTokens;
    }
    return 0;
  }

  /** Releases the blocks after `length`, except spare ones of a contiguous range: making it smaller would copy it. */
  truncate(length: number): void {
    const filled = Math.ceil(length / this.#pool.group.blockTokens);
    const hole = this.blocks.indexOf(released, filled);
    const isSpare = this.#pool.group.contiguous && filled > 0;
    const kept = !isSpare ? filled : hole < 0 ? this.blocks.length : hole;
    for (const block of this.blocks.splice(kept)) if (block !== released) this.#pool.release(block);
    this.#slidTo = Math.min(this.#slidTo, filled);
  }

  /** Positions of the first block and the end of each range of blocks without a hole. */
  get ranges(): (readonly [first: number, end: number])[] {
    const ranges: [number, number][] = [];
    for (const [index, block] of this.blocks.entries()) {
      if (block === released) continue;
      const last = ranges.at(-1);
      if (last?.[1] === index) last[1]++;
      else ranges.push([index, index + 1]);
    }
    return ranges;
  }

  /** Token ranges that are cached, within `length`: start, end, start, end, … */
  held(length: number): number[] {
    const { blockTokens } = this.#pool.group;
    return this.ranges.flatMap(([first, end]) => {
      const start = first * blockTokens;
      return start < length ? [start, Math.min(length, end * blockTokens)] : [];
    });
  }

  /** Takes blocks for these token ranges into an empty table. */
  hold(ranges: readonly number[]): void {
    const held = heldBlocks(ranges, this.#pool.group.blockTokens);
    const taken = this.#pool.take(held.size);
    for (let index = 0; index <= Math.max(-1, ...held); index++) {
      this.blocks.push(held.has(index) ? (taken.pop() ?? released) : released);
    }
  }

  fork(): BlockTable {
    for (const block of this.blocks) if (block !== released) this.#pool.share(block);
    const fork = new BlockTable(this.#pool, this.blocks);
    fork.#slidTo = this.#slidTo;
    fork.#checkpoints = this.#checkpoints;
    return fork;
  }

  #isKept(index: number, slidingWindow: number): boolean {
    const { contiguous } = this.#pool.group;
    if (this.#isInCheckpoint(index, slidingWindow)) return true;
    const block = this.blocks[index];
    if (!contiguous || block === undefined || !this.#pool.isShared(block)) return false;
    // A shared contiguous range is kept as a whole: a part of it would be one more copy.
    const end = this.blocks.indexOf(released, index);
    const range = this.blocks.slice(index, end < 0 ? this.blocks.length : end);
    return this.#rangeStart(index) < index || range.some((_, i) => this.#isInCheckpoint(index + i, slidingWindow));
  }

  #isInCheckpoint(index: number, slidingWindow: number): boolean {
    const { blockTokens } = this.#pool.group;
    const [first, end] = [index * blockTokens, (index + 1) * blockTokens];
    const interval = checkpointInterval(slidingWindow);
    const lengths = [Math.ceil(end / interval) * interval, ...this.#checkpoints];
    return lengths.some((length) => first < length && end > length - slidingWindow + 1);
  }

  /** Position of the first block of the range that the block before `end` is in. */
  #rangeStart(end: number): number {
    return end === 0 ? 0 : this.blocks.lastIndexOf(released, end - 1) + 1;
  }
}
