/** BM25 over paths, names and text (Robertson & Zaragoza, 2009; SQLite's FTS5), within a bound on what is ranked. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { limits } from '../../limits.ts';
import { tokenizer } from './database.ts';

/** Weights of path, names and body. A file named after the question's words is about it; a mention is not. */
const rank = 'bm25(2.0, 3.0, 1.0)';
const rememberedTerms = 50_000;

/** A word of a question as the index knows it. */
export interface Term {
  readonly term: string;
  /** What the term and its stem begin with: text that has it has most forms of the word. */
  readonly stem: string;
  /** Chunks that hold it. */
  readonly chunks: number;
  /** ln(1 + chunks of the index / chunks that hold it). */
  readonly rarity: number;
}

export interface Ranked {
  readonly chunk: number;
  readonly score: number;
}

export class WordIndex {
  readonly #match: StatementSync;
  readonly #frequency: StatementSync;
  readonly #chunkCount: StatementSync;
  readonly #forget: StatementSync;
  readonly #stem: StatementSync;
  readonly #stems: StatementSync;
  readonly #known = new Map<string, Term>();
  #chunks = 0;

  constructor(database: DatabaseSync) {
    database.exec(`
      CREATE VIRTUAL TABLE IF NOT EXISTS temp.stemmed USING fts5(term, tokenize=${tokenizer});
      CREATE VIRTUAL TABLE IF NOT EXISTS temp.stems USING fts5vocab(temp, stemmed, instance)`);
    this.#match = database.prepare(
      'SELECT rowid, rank FROM terms WHERE terms MATCH ? AND rank MATCH ? ORDER BY rank LIMIT ?',
    );
    this.#frequency = database.prepare('SELECT doc FROM vocabulary WHERE term = ?');
    this.#chunkCount = database.prepare('SELECT max(id) AS n FROM chunks');
    this.#forget = database.prepare('DELETE FROM temp.stemmed');
    this.#stem = database.prepare('INSERT INTO temp.stemmed (rowid, term) VALUES (?, ?)');
    this.#stems = database.prepare('SELECT doc, term FROM temp.stems');
  }

  /** The rarest first; those that the index doesn't hold last. */
  terms(words: readonly string[]): Term[] {
    const chunks = Number(this.#chunkCount.get()?.['n'] ?? 0);
    if (Math.abs(chunks - this.#chunks) > this.#chunks / 10 || this.#known.size > rememberedTerms) {
      this.#known.clear();
      this.#chunks = chunks;
    }
    this.#learn(words.filter((word) => !this.#known.has(word)));
    const terms = words.flatMap((word) => this.#known.get(word) ?? []);
    return terms.sort((a, b) => Number(a.chunks === 0) - Number(b.chunks === 0) || a.chunks - b.chunks);
  }

  /** Chunks that hold any of the terms, the best first. Once the rarer ones match enough, the commonest are left out. */
  ranking(terms: readonly Term[], limit: number): Ranked[] {
    const kept: string[] = [];
    let matched = 0;
    for (const { term, chunks } of terms.slice(0, limits.repository.questionTerms)) {
      if (chunks === 0) break;
      matched += chunks;
      if (matched <= limits.repository.matchedChunks) kept.push(`"${term}"`);
      // A word that is nearly everywhere tells something where it names something.
      else if (kept.length === 0) return this.matching(`{path names} : "${term}"`, limit);
    }
    return kept.length === 0 ? [] : this.matching(kept.join(' OR '), limit);
  }

  /** @param match an expression of FTS5. */
  matching(match: string, limit: number): Ranked[] {
    const rows = this.#match.all(match, rank, limit);
    return rows.map((row) => ({ chunk: Number(row['rowid']), score: -Number(row['rank']) }));
  }

  #learn(words: readonly string[]): void {
    if (words.length === 0) return;
    this.#forget.run();
    for (const [at, word] of words.entries()) this.#stem.run(at + 1, word);
    for (const row of this.#stems.all()) {
      const term = words[Number(row['doc']) - 1] ?? '';
      const stem = String(row['term']);
      const chunks = Number(this.#frequency.get(stem)?.['doc'] ?? 0);
      this.#known.set(term, {
        term,
        stem: commonStart(term, stem),
        chunks,
        rarity: Math.log(1 + this.#chunks / (chunks + 0.5)),
      });
    }
  }
}

/** The stem of `policy` is `polici`. */
function commonStart(a: string, b: string): string {
  let end = 0;
  while (end < Math.min(a.length, b.length) && a[end] === b[end]) end++;
  return a.slice(0, end);
}
