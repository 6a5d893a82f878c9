/**
 * Which positions of a sequence the KV cache holds: all of them, or with a sliding window the last ones plus
 * checkpoints of the window at a few earlier lengths. The decoder and the graph thread each keep a copy and reach the
 * same results independently.
 */
import { checkpointInterval, rewindTokens, selectCheckpoints } from '../backend.ts';
import { bytesOf, type LayerCacheSpec, type WindowGroup } from './graphInputs.ts';
import type { CachedRangesState } from './messages.ts';

/** Allocation granularity. Columns beyond the cached tokens are masked: at most one page or an eighth of the tokens. */
const pageTokens = 64;
/** FusedMatMul doesn't write its output if the summed dimension is empty. */
const emptyColumns = pageTokens;

/** Columns allocated for so many tokens. */
export function columnsFor(tokens: number): number {
  return tokens === 0 ? emptyColumns : Math.ceil((tokens + tokens / 8) / pageTokens) * pageTokens;
}

export class CachedRanges {
  readonly windowGroups: readonly WindowGroup[];
  length = 0;
  /** First cached position, for each window group. */
  readonly starts: number[];
  /** For each window group the lengths that have a checkpoint, because the cached range starts after their window. */
  readonly checkpoints: number[][];
  requested: readonly number[] = [];

  constructor(windowGroups: readonly WindowGroup[]) {
    this.windowGroups = windowGroups;
    this.starts = windowGroups.map(() => 0);
    this.checkpoints = windowGroups.map(() => []);
  }

  /** Appends tokens and drops positions that no later token attends to. */
  append(tokens: number): void {
    const before = this.length;
    this.length += tokens;
    for (const [group, { slidingWindow }] of this.windowGroups.entries()) {
      if (slidingWindow === undefined) continue;
      const keepTokens = slidingWindow - 1 + rewindTokens;
      // Drops in steps: moving the remaining columns costs more than reading some unneeded ones.
      if (this.cachedTokens(group) <= keepTokens + rewindTokens) continue;
      const cached = this.#missingCheckpoints(group, before).filter((at) => this.covers(group, at));
      this.starts[group] = this.length - keepTokens;
      this.checkpoints[group]?.push(...cached.filter((at) => !this.covers(group, at)));
    }
  }

  /** See `Sequence.setCheckpoints`. Drops checkpoints at lengths that are no longer requested. */
  setCheckpoints(lengths: readonly number[]): void {
    this.requested = selectCheckpoints(lengths);
    for (const [group, checkpoints] of this.checkpoints.entries()) {
      const wanted = this.#wantedCheckpoints(group, this.length);
      this.checkpoints[group] = checkpoints.filter((length) => wanted.has(length));
    }
  }

  truncate(length: number): number {
    const reached = this.reachable(length);
    for (const group of this.windowGroups.keys()) {
      if (!this.covers(group, reached)) this.starts[group] = this.#windowStart(group, reached);
      this.checkpoints[group] = (this.checkpoints[group] ?? []).filter((at) => at <= reached);
    }
    this.length = reached;
    return reached;
  }

  /** The largest length up to `length` for which every window group is cached or has a checkpoint. */
  reachable(length: number): number {
    if (length >= this.length) return this.length;
    const candidates = [length, ...this.checkpoints.flat()].filter((at) => at <= length).sort((a, b) => b - a);
    const isReachable = (at: number) =>
      this.windowGroups.every((_, group) => this.covers(group, at) || this.checkpoints[group]?.includes(at) === true);
    return candidates.find(isReachable) ?? 0;
  }

  /** Whether the cached range has everything that the token at this position attends to. */
  covers(group: number, length: number): boolean {
    return length <= this.length && this.start(group) <= this.#windowStart(group, length);
  }

  /** Tokens in a checkpoint at this length. */
  windowTokens(group: number, length: number): number {
    return length - this.#windowStart(group, length);
  }

  start(group: number): number {
    return this.starts[group] ?? 0;
  }

  /** Most tokens that a group's block holds while `tokens` are appended. */
  maxCachedTokens(group: number, tokens: number): number {
    const window = this.windowGroups[group]?.slidingWindow ?? Number.POSITIVE_INFINITY;
    return Math.min(this.cachedTokens(group), window - 1 + 2 * rewindTokens) + tokens;
  }

  /** Lengths at which appending `tokens` may create checkpoints. */
  newCheckpoints(group: number, tokens: number): number[] {
    const last = this.length + tokens - rewindTokens;
    return this.#missingCheckpoints(group, last).filter((at) => at > this.length || this.covers(group, at));
  }

  cachedTokens(group: number): number {
    return this.length - this.start(group);
  }

  state(): CachedRangesState {
    return {
      length: this.length,
      starts: [...this.starts],
      checkpoints: this.checkpoints.map((lengths) => [...lengths]),
    };
  }

  restore({ length, starts, checkpoints }: CachedRangesState): void {
    this.length = length;
    for (const [index, start] of starts.entries()) this.starts[index] = start;
    for (const [index, lengths] of checkpoints.entries()) this.checkpoints[index] = [...lengths];
  }

  copy(): CachedRanges {
    const copy = new CachedRanges(this.windowGroups);
    copy.restore(this);
    copy.requested = this.requested;
    return copy;
  }

  #windowStart(group: number, length: number): number {
    const window = this.windowGroups[group]?.slidingWindow;
    return window === undefined ? 0 : Math.max(0, length - window + 1);
  }

  /** Wanted lengths without a checkpoint, ascending. */
  #missingCheckpoints(group: number, last: number): number[] {
    const checkpoints = new Set(this.checkpoints[group]);
    return [...this.#wantedCheckpoints(group, last)].filter((at) => !checkpoints.has(at)).sort((a, b) => a - b);
  }

  /** Lengths up to `last` that should have a checkpoint. */
  #wantedCheckpoints(group: number, last: number): Set<number> {
    const window = this.windowGroups[group]?.slidingWindow;
    if (window === undefined) return new Set();
    const step = checkpointInterval(window);
    const wanted = new Set(this.requested.filter((length) => length <= last));
    for (let length = step; length <= last; length += step) wanted.add(length);
    return wanted;
  }
}

// Accounts for the thread's cache memory without asking the thread. A fork blocks its parent's blocks until one of the
// two sequences writes; the writer then gets a copy.

/** The blocks of all layers of one window group. */
interface SharedBlock {
  readonly columns: number;
  refCount: number;
}

export class CacheBudget {
  usedBytes = 0;
  readonly capacityBytes: number;
  /** Bytes of one token in all layers of a window group. */
  readonly columnBytes: readonly number[];

  constructor(windowGroups: number, layers: readonly LayerCacheSpec[], capacityBytes: number) {
    this.capacityBytes = capacityBytes;
    this.columnBytes = Array.from({ length: windowGroups }, (_, group) =>
      layers.reduce((sum, layer) => sum + (layer.group === group ? bytesOf(layer) : 0), 0),
    );
  }

  newSequence(): SequenceBlocks {
    return new SequenceBlocks(
      this,
      this.columnBytes.map((bytes) => {
        this.usedBytes += bytes * columnsFor(0);
        return { columns: columnsFor(0), refCount: 1 };
      }),
    );
  }
}

/** The blocks that one sequence uses, alone or shared with forks. */
export class SequenceBlocks {
  readonly #budget: CacheBudget;
  #blocks: SharedBlock[];
  /** Checkpoint blocks by length, for each window group. */
  readonly #checkpoints: Map<number, SharedBlock>[];

  constructor(
    budget: CacheBudget,
    blocks: SharedBlock[],
    checkpoints: Map<number, SharedBlock>[] = blocks.map(() => new Map()),
  ) {
    this.#budget = budget;
    this.#blocks = blocks;
    this.#checkpoints = checkpoints;
  }

  fork(): SequenceBlocks {
    const checkpoints = this.#checkpoints.map((blocks) => new Map(blocks));
    for (const block of [...this.#blocks, ...checkpoints.flatMap((blocks) => [...blocks.values()])]) block.refCount++;
    return new SequenceBlocks(this.#budget, [...this.#blocks], checkpoints);
  }

  /** After a forward pass or a restore: the sequence has new blocks of its own and possibly more checkpoints. */
  replace(columns: readonly number[], ranges: CachedRanges): void {
    const own = columns.map((count, group) => this.#allocate(group, count));
    for (const [group, block] of this.#blocks.entries()) this.#release(group, block);
    this.#blocks = own;
    for (const [group, lengths] of ranges.checkpoints.entries()) {
      for (const length of lengths) {
        if (this.#checkpoints[group]?.has(length)) continue;
        this.#checkpoints[group]?.set(length, this.#allocate(group, columnsFor(ranges.windowTokens(group, length))));
      }
    }
  }

  /** Call before truncating to a reachable length: restores windows from checkpoints. */
  rewind(ranges: CachedRanges, length: number): void {
    for (const [group, block] of this.#blocks.entries()) {
      const checkpoint = this.#checkpoints[group]?.get(length);
      if (!checkpoint || ranges.covers(group, length)) continue;
      checkpoint.refCount++;
      this.#blocks[group] = checkpoint;
      this.#release(group, block);
    }
  }

  /** Frees checkpoints at other lengths. */
  retainCheckpoints(checkpoints: readonly (readonly number[])[]): void {
    for (const [group, blocks] of this.#checkpoints.entries()) {
      for (const [length, block] of blocks) {
        if (checkpoints[group]?.includes(length)) continue;
        blocks.delete(length);
        this.#release(group, block);
      }
    }
  }

  /** Most bytes that a forward pass over so many tokens allocates. */
  bytesFor(ranges: CachedRanges, tokens: number): number {
    return this.#blocks.reduce((sum, { columns, refCount }, group) => {
      const cached = ranges.maxCachedTokens(group, tokens);
      const checkpoints = ranges
        .newCheckpoints(group, tokens)
        .reduce((sum, at) => sum + columnsFor(ranges.windowTokens(group, at)), 0);
      const grows = refCount > 1 || cached > columns;
      const own = grows ? columnsFor(cached) - (refCount === 1 ? columns : 0) : 0;
      return sum + this.#bytes(group, own + checkpoints);
    }, 0);
  }

  dispose(): void {
    for (const [group, block] of this.#blocks.entries()) this.#release(group, block);
    this.#blocks = [];
    this.retainCheckpoints([]);
  }

  #allocate(group: number, columns: number): SharedBlock {
    this.#budget.usedBytes += this.#bytes(group, columns);
    return { columns, refCount: 1 };
  }

  #release(group: number, block: SharedBlock): void {
    block.refCount--;
    if (block.refCount === 0) this.#budget.usedBytes -= this.#bytes(group, block.columns);
  }

  #bytes(group: number, columns: number): number {
    return columns * (this.#budget.columnBytes[group] ?? 0);
  }
}
