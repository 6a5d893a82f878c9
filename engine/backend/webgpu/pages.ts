/**
 * Which pages of the key-value cache belong to whom. Pages are shared by forks and counted; a page that is written while
 * shared is copied first. Bookkeeping only: the bytes are in the GPU's buffers.
 */
import { HearthError } from '../../errors.ts';
import { pageTokens } from './kernels/cacheCode.ts';

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

/** Pages of one sequence, in order. */
export class PageTable {
  readonly pages: number[];
  readonly #pool: PagePool;

  constructor(pool: PagePool, pages: readonly number[] = []) {
    this.#pool = pool;
    this.pages = [...pages];
  }

  /** Pages that `prepare` would take. */
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

  truncate(length: number): void {
    for (const page of this.pages.splice(Math.ceil(length / pageTokens))) this.#pool.release(page);
  }

  fork(): PageTable {
    for (const page of this.pages) this.#pool.share(page);
    return new PageTable(this.#pool, this.pages);
  }
}
