/**
 * Which tokens of a sequence the caches hold: all of them, or for layers with a sliding window the last ones, and beside those
 * what is seen from a few earlier lengths. Both the sequence and the thread that holds its caches keep one, and reach the
 * same answers without asking each other.
 */
import { chosenMarks, rewindTokens, snapshotTokens } from '../backend.ts';
import { bytesOf, type LayerCachePlan, type SpanPlan } from './layerPlan.ts';
import type { ExtentState } from './messages.ts';

/** What lies beyond the length is masked: an eighth of the room or one page. */
const pageTokens = 64;
/** FusedMatMul leaves its output unwritten when there is nothing to sum over. */
const emptyRoom = 1;

/** Columns of a block that holds as many tokens. */
export function roomFor(tokens: number): number {
  return tokens === 0 ? emptyRoom : Math.ceil((tokens + tokens / 8) / pageTokens) * pageTokens;
}

export class CacheExtent {
  readonly spans: readonly SpanPlan[];
  length = 0;
  /** First position held, for each span. */
  readonly starts: number[];
  /** For each span the lengths whose window is kept aside, since what is held begins after it. */
  readonly kept: number[][];
  marks: readonly number[] = [];

  constructor(spans: readonly SpanPlan[]) {
    this.spans = spans;
    this.starts = spans.map(() => 0);
    this.kept = spans.map(() => []);
  }

  /** Appends tokens, and lets go of what no later token of a window sees. */
  append(tokens: number): void {
    const before = this.length;
    this.length += tokens;
    for (const [span, { slidingWindow }] of this.spans.entries()) {
      if (slidingWindow === undefined) continue;
      const stays = slidingWindow - 1 + rewindTokens;
      // Dropped in steps: moving what stays costs more than reading some of what goes.
      if (this.held(span) <= stays + rewindTokens) continue;
      const held = this.#toKeep(span, before).filter((at) => this.holds(span, at));
      this.starts[span] = this.length - stays;
      this.kept[span]?.push(...held.filter((at) => !this.holds(span, at)));
    }
  }

  /** See `Sequence.mark`. What earlier marks kept is let go. */
  mark(lengths: readonly number[]): void {
    this.marks = chosenMarks(lengths);
    for (const [span, kept] of this.kept.entries()) {
      const wanted = this.#wanted(span, this.length);
      this.kept[span] = kept.filter((length) => wanted.has(length));
    }
  }

  truncate(length: number): number {
    const reached = this.reachable(length);
    for (const span of this.spans.keys()) {
      if (!this.holds(span, reached)) this.starts[span] = this.#firstSeen(span, reached);
      this.kept[span] = (this.kept[span] ?? []).filter((at) => at <= reached);
    }
    this.length = reached;
    return reached;
  }

  /** The largest length up to `length` at which every window is held, or kept aside. */
  reachable(length: number): number {
    if (length >= this.length) return this.length;
    const candidates = [length, ...this.kept.flat()].filter((at) => at <= length).sort((a, b) => b - a);
    const canGoOn = (at: number) =>
      this.spans.every((_, span) => this.holds(span, at) || this.kept[span]?.includes(at) === true);
    return candidates.find(canGoOn) ?? 0;
  }

  /** Whether what a span holds has all that the token at this position sees. */
  holds(span: number, length: number): boolean {
    return length <= this.length && this.start(span) <= this.#firstSeen(span, length);
  }

  /** Tokens that a block kept aside holds. */
  seen(span: number, length: number): number {
    return length - this.#firstSeen(span, length);
  }

  start(span: number): number {
    return this.starts[span] ?? 0;
  }

  /** Most tokens that a span's block holds while `tokens` are added. */
  mostHeld(span: number, tokens: number): number {
    const window = this.spans[span]?.slidingWindow ?? Number.POSITIVE_INFINITY;
    return Math.min(this.held(span), window - 1 + 2 * rewindTokens) + tokens;
  }

  /** Lengths that are kept aside at most while `tokens` are added. */
  mostKept(span: number, tokens: number): number[] {
    const last = this.length + tokens - rewindTokens;
    return this.#toKeep(span, last).filter((at) => at > this.length || this.holds(span, at));
  }

  held(span: number): number {
    return this.length - this.start(span);
  }

  state(): ExtentState {
    return { length: this.length, starts: [...this.starts], kept: this.kept.map((lengths) => [...lengths]) };
  }

  restore({ length, starts, kept }: ExtentState): void {
    this.length = length;
    for (const [index, start] of starts.entries()) this.starts[index] = start;
    for (const [index, lengths] of kept.entries()) this.kept[index] = [...lengths];
  }

  copy(): CacheExtent {
    const copy = new CacheExtent(this.spans);
    copy.restore(this);
    copy.marks = this.marks;
    return copy;
  }

  #firstSeen(span: number, length: number): number {
    const window = this.spans[span]?.slidingWindow;
    return window === undefined ? 0 : Math.max(0, length - window + 1);
  }

  /** Those of the lengths wanted that are not kept aside yet, ascending. */
  #toKeep(span: number, last: number): number[] {
    const kept = new Set(this.kept[span]);
    return [...this.#wanted(span, last)].filter((at) => !kept.has(at)).sort((a, b) => a - b);
  }

  /** Lengths up to `last` whose windows are to be kept. */
  #wanted(span: number, last: number): Set<number> {
    const window = this.spans[span]?.slidingWindow;
    if (window === undefined) return new Set();
    const step = snapshotTokens(window);
    const wanted = new Set(this.marks.filter((length) => length <= last));
    for (let length = step; length <= last; length += step) wanted.add(length);
    return wanted;
  }
}

// How much memory the caches in the thread take, known on this side without asking: a fork shares its parent's blocks until
// one of both is written, which then has blocks of its own.

/** The blocks of all layers of one span. */
interface Share {
  readonly columns: number;
  owners: number;
}

export class CacheLedger {
  usedBytes = 0;
  readonly capacityBytes: number;
  /** Of one token in all layers of a span. */
  readonly columnBytes: readonly number[];

  constructor(spans: number, layers: readonly LayerCachePlan[], capacityBytes: number) {
    this.capacityBytes = capacityBytes;
    this.columnBytes = Array.from({ length: spans }, (_, span) =>
      layers.reduce((sum, layer) => sum + (layer.span === span ? bytesOf(layer) : 0), 0),
    );
  }

  open(): CacheShares {
    return new CacheShares(
      this,
      this.columnBytes.map((bytes) => {
        this.usedBytes += bytes * roomFor(0);
        return { columns: roomFor(0), owners: 1 };
      }),
    );
  }
}

/** The blocks that one sequence holds, alone or with its forks. */
export class CacheShares {
  readonly #ledger: CacheLedger;
  #shares: Share[];
  /** For each span the blocks of windows that are kept aside, by length. */
  readonly #kept: Map<number, Share>[];

  constructor(ledger: CacheLedger, shares: Share[], kept: Map<number, Share>[] = shares.map(() => new Map())) {
    this.#ledger = ledger;
    this.#shares = shares;
    this.#kept = kept;
  }

  fork(): CacheShares {
    const kept = this.#kept.map((shares) => new Map(shares));
    for (const share of [...this.#shares, ...kept.flatMap((shares) => [...shares.values()])]) share.owners++;
    return new CacheShares(this.#ledger, [...this.#shares], kept);
  }

  /** After a run, or its beginning: the sequence has blocks of its own, and more windows are kept aside. */
  written(columns: readonly number[], extent: CacheExtent): void {
    const own = columns.map((count, span) => this.#taken(span, count));
    for (const [span, share] of this.#shares.entries()) this.#release(span, share);
    this.#shares = own;
    for (const [span, lengths] of extent.kept.entries()) {
      for (const length of lengths) {
        if (this.#kept[span]?.has(length)) continue;
        this.#kept[span]?.set(length, this.#taken(span, roomFor(extent.seen(span, length))));
      }
    }
  }

  /** Before the extent is truncated to a length that is reachable: windows come back from where they are kept. */
  rewound(extent: CacheExtent, length: number): void {
    for (const [span, share] of this.#shares.entries()) {
      const aside = this.#kept[span]?.get(length);
      if (!aside || extent.holds(span, length)) continue;
      aside.owners++;
      this.#shares[span] = aside;
      this.#release(span, share);
    }
  }

  /** Lets go of the windows that the extent no longer names. */
  keepOnly(kept: readonly (readonly number[])[]): void {
    for (const [span, shares] of this.#kept.entries()) {
      for (const [length, share] of shares) {
        if (kept[span]?.includes(length)) continue;
        shares.delete(length);
        this.#release(span, share);
      }
    }
  }

  /** Most bytes that a run of so many tokens adds. */
  bytesFor(extent: CacheExtent, tokens: number): number {
    return this.#shares.reduce((sum, { columns, owners }, span) => {
      const held = extent.mostHeld(span, tokens);
      const kept = extent.mostKept(span, tokens).reduce((room, at) => room + roomFor(extent.seen(span, at)), 0);
      const grows = owners > 1 || held > columns;
      const own = grows ? roomFor(held) - (owners === 1 ? columns : 0) : 0;
      return sum + this.#bytes(span, own + kept);
    }, 0);
  }

  dispose(): void {
    for (const [span, share] of this.#shares.entries()) this.#release(span, share);
    this.#shares = [];
    this.keepOnly([]);
  }

  #taken(span: number, columns: number): Share {
    this.#ledger.usedBytes += this.#bytes(span, columns);
    return { columns, owners: 1 };
  }

  #release(span: number, share: Share): void {
    share.owners--;
    if (share.owners === 0) this.#ledger.usedBytes -= this.#bytes(span, share.columns);
  }

  #bytes(span: number, columns: number): number {
    return columns * (this.#ledger.columnBytes[span] ?? 0);
  }
}
