/**
 * How much memory the caches in the thread take, known on this side without asking: a fork shares its parent's blocks until
 * one of both is written, which then has blocks of its own.
 */
import { type CacheExtent, roomFor } from './cacheExtent.ts';
import { bytesOf, type LayerCachePlan } from './plan.ts';

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

  constructor(ledger: CacheLedger, shares: Share[]) {
    this.#ledger = ledger;
    this.#shares = shares;
  }

  fork(): CacheShares {
    for (const share of this.#shares) share.owners++;
    return new CacheShares(this.#ledger, [...this.#shares]);
  }

  /** After a run, or its beginning: the sequence has blocks of its own. */
  written(columns: readonly number[]): void {
    const own = columns.map((count) => ({ columns: count, owners: 1 }));
    this.dispose();
    this.#shares = own;
    for (const [span, { columns: count }] of own.entries()) this.#ledger.usedBytes += this.#bytes(span, count);
  }

  /** Most bytes that a run of so many tokens adds. */
  bytesFor(extent: CacheExtent, tokens: number): number {
    return this.#shares.reduce((sum, { columns, owners }, span) => {
      const held = extent.mostHeld(span, tokens);
      if (owners === 1 && held <= columns) return sum;
      return sum + this.#bytes(span, roomFor(held) - (owners === 1 ? columns : 0));
    }, 0);
  }

  dispose(): void {
    for (const [span, share] of this.#shares.entries()) {
      share.owners--;
      if (share.owners === 0) this.#ledger.usedBytes -= this.#bytes(span, share.columns);
    }
    this.#shares = [];
  }

  #bytes(span: number, columns: number): number {
    return columns * (this.#ledger.columnBytes[span] ?? 0);
  }
}
