/** A sequence of the WebGPU decoder: its length, and which pages hold its keys and values. */
import { HearthError } from '../../../errors.ts';
import type { Sequence, SequenceShape } from '../../backend.ts';
import { createTables, type DecoderCache } from './cache.ts';
import type { PageTable } from './pages.ts';

/** A page to be copied in every layer of a span before it is written to. */
export interface PageCopy {
  readonly span: number;
  readonly from: number;
  readonly to: number;
}

export class WebgpuSequence implements Sequence {
  length = 0;
  /** One for each span of the cache. */
  readonly tables: readonly PageTable[];
  readonly #owner: Set<WebgpuSequence>;

  /** `owner`: the live sequences of the decoder that made this one. */
  constructor(owner: Set<WebgpuSequence>, tables: readonly PageTable[]) {
    this.#owner = owner;
    this.tables = tables;
    owner.add(this);
  }

  static empty(owner: Set<WebgpuSequence>, cache: DecoderCache): WebgpuSequence {
    return new WebgpuSequence(owner, createTables(cache));
  }

  truncate(length: number): number {
    if (!Number.isInteger(length) || length < 0) throw new RangeError(`a sequence cannot have ${length} tokens`);
    if (length >= this.length) return this.length;
    this.length = this.reachable(length);
    for (const table of this.tables) table.truncate(this.length);
    return this.length;
  }

  reachable(length: number): number {
    let reached = Math.min(length, this.length);
    for (let before = -1; before !== reached; ) {
      before = reached;
      reached = this.tables.reduce((least, table) => table.reachable(least), reached);
    }
    return reached;
  }

  setCheckpoints(lengths: readonly number[]): void {
    for (const table of this.tables) table.setCheckpoints(lengths);
  }

  fork(): WebgpuSequence {
    const fork = new WebgpuSequence(
      this.#owner,
      this.tables.map((table) => table.fork()),
    );
    fork.length = this.length;
    // Pages of tokens that are sampled ahead stay with this sequence.
    for (const table of fork.tables) table.truncate(fork.length);
    return fork;
  }

  /** Takes pages for the tokens of a stored sequence, which are then to be written. */
  hold({ tokens, ranges }: SequenceShape): void {
    for (const [span, table] of this.tables.entries()) table.hold(ranges[span] ?? [], tokens);
    this.length = tokens;
  }

  dispose(): void {
    if (!this.#owner.delete(this)) return;
    for (const table of this.tables) table.truncate(0);
    this.length = 0;
  }

  /** Takes the pages for `tokens` more tokens. */
  prepare(tokens: number): PageCopy[] {
    return this.tables.flatMap((table, span) => {
      const copy = table.prepare(this.length, this.length + tokens);
      return copy ? [{ span, ...copy }] : [];
    });
  }

  /** Pages beyond what was really added are given back, but for those of `ahead` tokens that the device is adding. */
  advance(tokens: number, ahead = 0): void {
    this.length += tokens;
    for (const table of this.tables) {
      table.truncate(this.length + ahead);
      table.slide(this.length);
    }
  }
}

type Demand = { readonly sequence: WebgpuSequence; readonly tokens: number };

/** Whether the pages that all of that needs are free. */
export function hasPages({ spans }: DecoderCache, demands: readonly Demand[]): boolean {
  return spans.every(({ pool }, span) => {
    const needed = demands.reduce((sum, { sequence, tokens }) => {
      const { length, tables } = sequence;
      return sum + (tables[span]?.pagesNeeded(length, length + tokens) ?? 0);
    }, 0);
    return needed <= pool.freePages;
  });
}

/** @throws HearthError `out-of-memory` when the pages that a batch needs are not free; nothing is changed then. */
export function requirePages(cache: DecoderCache, demands: readonly Demand[]): void {
  if (hasPages(cache, demands)) return;
  throw new HearthError(
    'out-of-memory',
    `The conversations that are open fill the GPU's context memory of ${cache.tokens} tokens; nothing was changed. Close one, or load the model with a shorter context.`,
  );
}
