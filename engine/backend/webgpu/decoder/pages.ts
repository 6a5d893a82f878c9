/**
 * Which pages of the key-value cache belong to whom. Pages are shared by forks and counted; a page that is written while
 * shared is copied first. Bookkeeping only: the bytes are in the GPU's buffers.
 */
import { HearthError } from '../../../errors.ts';
import { checkpointInterval, maxCheckpoints, rewindTokens, selectCheckpoints } from '../../backend.ts';
import { pageTokens } from '../kernels/cacheCode.ts';

export class PagePool {
  readonly pages: number;
  readonly #users: Uint16Array;
  readonly #free: number[];

  constructor(pages: number) {
    this.pages = pages;
    this.#users = new Uint16Array(pages);
    this.#free = Array.from({ length: pages }, (_, page) => pages - 1 - page);
  }

  get freePages(): number {
    return this.#free.length;
  }

  /** @throws HearthError `out-of-memory` when every page is in use; nothing is changed then. */
  take(): number {
    const page = this.#free.pop();
    if (page === undefined) {
      throw new HearthError(
        'out-of-memory',
        `All ${this.pages * pageTokens} tokens of the GPU's context memory are in use. Close a conversation, or load the model with a longer context.`,
      );
    }
    this.#users[page] = 1;
    return page;
  }

  share(page: number): void {
    this.#users[page] = (this.#users[page] ?? 0) + 1;
  }

  release(page: number): void {
    const users = (this.#users[page] ?? 0) - 1;
    if (users < 0) throw new Error(`page ${page} is released more often than it is taken`);
    this.#users[page] = users;
    if (users === 0) this.#free.push(page);
  }

  isShared(page: number): boolean {
    return (this.#users[page] ?? 0) > 1;
  }
}

/** A page that left its window. */
const released = -1;

/** Most pages that one sequence of `tokens` holds while up to `runTokens` are added. */
export function mostPages(tokens: number, runTokens: number, slidingWindow: number | undefined): number {
  const all = Math.ceil(tokens / pageTokens);
  if (slidingWindow === undefined) return all;
  const kept = Math.floor(tokens / checkpointInterval(slidingWindow)) + maxCheckpoints;
  const recent = slidingWindow + rewindTokens + runTokens;
  const windowPages = Math.ceil(slidingWindow / pageTokens) + 1;
  return Math.min(all, kept * windowPages + Math.ceil(recent / pageTokens) + 2);
}

/** Places of the pages that hold these stretches of tokens. */
export function heldPages(held: readonly number[]): Set<number> {
  const pages = new Set<number>();
  for (let i = 0; i < held.length; i += 2) {
    const [first = 0, end = 0] = held.slice(i, i + 2);
    for (let index = Math.floor(first / pageTokens); index * pageTokens < end; index++) pages.add(index);
  }
  return pages;
}

/** Pages of one sequence, in order. */
export class PageTable {
  readonly pages: number[];
  readonly #pool: PagePool;
  readonly #slidingWindow: number | undefined;
  /** Pages before this one were looked at by `slide`. */
  #slidTo = 0;
  #marks: readonly number[] = [];

  constructor(pool: PagePool, slidingWindow: number | undefined, pages: readonly number[] = []) {
    this.#pool = pool;
    this.#slidingWindow = slidingWindow;
    this.pages = [...pages];
  }

  /** Most pages that `prepare` would take. */
  pagesNeeded(length: number, end: number): number {
    const last = this.pages[Math.floor(length / pageTokens)];
    const copies = length % pageTokens > 0 && last !== undefined && this.#pool.isShared(last) ? 1 : 0;
    return Math.max(0, Math.ceil(end / pageTokens) - this.pages.length) + copies;
  }

  /**
   * Makes tokens `[length, end)` writable.
   * @returns the copy to do first, when the partly filled last page was shared.
   */
  prepare(length: number, end: number): { readonly from: number; readonly to: number } | undefined {
    const index = Math.floor(length / pageTokens);
    const last = this.pages[index];
    let copy: { from: number; to: number } | undefined;
    if (length % pageTokens > 0 && last !== undefined && this.#pool.isShared(last)) {
      copy = { from: last, to: this.#pool.take() };
      this.pages[index] = copy.to;
      this.#pool.release(last);
    }
    while (this.pages.length * pageTokens < end) this.pages.push(this.#pool.take());
    return copy;
  }

  /** See `Sequence.mark`. */
  setCheckpoints(lengths: readonly number[]): void {
    if (this.#slidingWindow === undefined) return;
    this.#marks = selectCheckpoints(lengths);
    // What earlier marks kept is looked at again.
    this.#slidTo = 0;
  }

  /** Releases the pages that no token sees at or near `length`, at a snapshot or at a mark. */
  slide(length: number): void {
    const window = this.#slidingWindow;
    if (window === undefined) return;
    const end = Math.floor(Math.max(0, length - window - rewindTokens) / pageTokens);
    for (; this.#slidTo < end; this.#slidTo++) {
      if (this.#isKept(this.#slidTo, window)) continue;
      this.#release(this.#slidTo);
      this.pages[this.#slidTo] = released;
    }
  }

  /** The largest length up to `length` whose next token finds all that it sees. */
  reachable(length: number): number {
    const window = this.#slidingWindow;
    if (window === undefined) return length;
    for (let end = length; end > 0; ) {
      const first = Math.floor(Math.max(0, end - window + 1) / pageTokens);
      const seen = this.pages.slice(first, Math.ceil(end / pageTokens));
      const hole = seen.lastIndexOf(released);
      if (hole < 0) return end;
      // Every longer length would see the hole, up to the one that ends where it starts.
      end = (first + hole) * pageTokens;
    }
    return 0;
  }

  truncate(length: number): void {
    const kept = Math.ceil(length / pageTokens);
    for (let index = kept; index < this.pages.length; index++) this.#release(index);
    this.pages.length = Math.min(this.pages.length, kept);
    this.#slidTo = Math.min(this.#slidTo, kept);
  }

  /** First and end of each stretch of tokens that is held, within `length`. */
  held(length: number): number[] {
    const held: number[] = [];
    for (const [index, page] of this.pages.entries()) {
      if (page === released) continue;
      const first = index * pageTokens;
      if (held.at(-1) === first) held.pop();
      else held.push(first);
      held.push(Math.min(length, first + pageTokens));
    }
    return held;
  }

  /** Takes pages for such stretches, and for nothing between them. */
  hold(held: readonly number[], length: number): void {
    const wanted = heldPages(held);
    for (let index = 0; index * pageTokens < length; index++) {
      this.pages.push(wanted.has(index) ? this.#pool.take() : released);
    }
  }

  fork(): PageTable {
    for (const page of this.pages) if (page !== released) this.#pool.share(page);
    const fork = new PageTable(this.#pool, this.#slidingWindow, this.pages);
    fork.#slidTo = this.#slidTo;
    fork.#marks = this.#marks;
    return fork;
  }

  #isKept(index: number, window: number): boolean {
    const [first, end] = [index * pageTokens, (index + 1) * pageTokens];
    const nextSnapshot = Math.ceil(end / checkpointInterval(window)) * checkpointInterval(window);
    return [nextSnapshot, ...this.#marks].some((length) => first < length && end > length - window + 1);
  }

  #release(index: number): void {
    const page = this.pages[index];
    if (page !== undefined && page !== released) this.#pool.release(page);
  }
}
