/**
 * How much memory the caches in the thread take, known on this side without asking: a fork shares its parent's blocks until
 * one of both is written, which then has blocks of its own.
 */
import { type CacheExtent, roomFor } from './cacheExtent.ts';
import { bytesOf, type LayerCachePlan } from './layerPlan.ts';

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
