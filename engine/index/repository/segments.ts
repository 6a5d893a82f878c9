/**
 * Joins the segments of the full-text index, because a search looks up each word in every segment
 * (sqlite.org/fts5.html#the_merge_command).
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';

/** Pages of 4 KB. A smaller index is fast anyway. */
const leastPages = 256;
/** Pages written in one step: about 30 ms on a busy machine, the longest wait of a question. */
const stepPages = 500;

export class Segments {
  readonly #sizes: StatementSync;
  readonly #merge: StatementSync;
  readonly #changes: StatementSync;

  constructor(database: DatabaseSync) {
    // FTS5's index of its pages: the lowest bit of a page's number is a flag.
    this.#sizes = database.prepare('SELECT max(pgno) >> 1 AS pages FROM terms_idx GROUP BY segid');
    this.#merge = database.prepare("INSERT INTO terms(terms, rank) VALUES ('merge', ?)");
    this.#changes = database.prepare('SELECT total_changes() AS n');
  }

  /**
   * Whether joining is worth rewriting all segments: no segment holds half of the index, as after many files were
   * indexed.
   */
  get areScattered(): boolean {
    const sizes = this.#sizes.all().map((row) => Number(row['pages']));
    const all = sizes.reduce((sum, pages) => sum + pages, 0);
    return all >= leastPages && 2 * Math.max(...sizes) < all;
  }

  /**
   * Writes some pages of one segment that replaces all, including segments added in the meantime. Returns whether more
   * is left.
   */
  joinSome(): boolean {
    const before = this.#changed();
    // Negative: joins all current segments.
    this.#merge.run(-stepPages);
    return this.#changed() - before >= 2;
  }

  #changed(): number {
    return Number(this.#changes.get()?.['n']);
  }
}
