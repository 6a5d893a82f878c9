/** BM25 over paths, names and text (Robertson & Zaragoza, 2009; SQLite's FTS5), within a bound on what is ranked. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { limits } from '../../limits.ts';
import { tokenizer } from './database.ts';

/** Weights of path, names and body. A file named after the question's words is about it; a mention is not. */
const rank = 'bm25(2.0, 3.0, 1.0)';
const rememberedTerms = 50_000;
/** BM25 looks for every word in every chunk that has one of them. */
const rankedTerms = 16;

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

/** Counting stops here; further on the count is estimated by how far in the index that was. */
const countedChunks = 5000;

export class WordIndex {
  readonly #database: DatabaseSync;
  readonly #ranked: StatementSync;
  readonly #unranked: StatementSync;
  readonly #counted: StatementSync;
  readonly #chunkCount: StatementSync;
  readonly #forget: StatementSync;
  readonly #stem: StatementSync;
  readonly #stems: StatementSync;
  readonly #known = new Map<string, Term>();
  #chunks = 0;

  constructor(database: DatabaseSync) {
    this.#database = database;
    database.exec(`
      CREATE VIRTUAL TABLE IF NOT EXISTS temp.stemmed USING fts5(term, tokenize=${tokenizer});
      CREATE VIRTUAL TABLE IF NOT EXISTS temp.stems USING fts5vocab(temp, stemmed, instance)`);
    this.#ranked = database.prepare(
      'SELECT rowid, rank FROM terms WHERE terms MATCH ? AND rank MATCH ? ORDER BY rank LIMIT ?',
    );
    this.#unranked = database.prepare('SELECT rowid FROM terms WHERE terms MATCH ? AND rowid <= ? LIMIT ?');
    this.#counted = database.prepare(
      `SELECT count(*) AS n, max(rowid) AS last FROM (SELECT rowid FROM terms WHERE terms MATCH ? LIMIT ${countedChunks})`,
    );
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

  /**
   * Chunks that hold any of the rarer terms, the best first. `left`: the commoner ones, which would match too many; whoever
   * reads the chunks looks for them there.
   */
  ranking(terms: readonly Term[], limit: number): { readonly ranked: Ranked[]; readonly left: readonly Term[] } {
    const held = terms.filter(({ chunks }) => chunks > 0);
    let kept = 0;
    for (let matched = 0; kept < held.length; kept++) {
      matched += held[kept]?.chunks ?? 0;
      if (matched > limits.repository.matchedChunks) break;
    }
    const left = held.slice(kept);
    if (kept === 0) return { ranked: this.#ofCommon(left, limit), left };
    if (kept > rankedTerms) return { ranked: this.#byRarity(held.slice(0, kept), limit), left };
    const match = held.slice(0, kept).map(({ term }) => `"${term}"`);
    return { ranked: this.#matching(match.join(' OR '), limit), left };
  }

  /** Chunks whose text has the word, the best first; any where it is in too many to rank. */
  mentions(word: string, limit: number): Ranked[] {
    const [term] = this.terms([word]);
    if (term === undefined || term.chunks === 0) return [];
    const match = `body : "${word}"`;
    return term.chunks <= limits.repository.matchedChunks
      ? this.#matching(match, limit)
      : this.#any(match, term, limit);
  }

  /** By the rarities of the words that chunks hold: of many words, how often one occurs tells little. */
  #byRarity(terms: readonly Term[], limit: number): Ranked[] {
    const each = terms.map(
      ({ rarity }) => `SELECT rowid, ${rarity.toFixed(3)} AS rarity FROM terms WHERE terms MATCH ?`,
    );
    const rows = this.#database
      .prepare(
        `SELECT rowid, sum(rarity) AS score FROM (${each.join(' UNION ALL ')}) GROUP BY rowid ORDER BY score DESC LIMIT ?`,
      )
      .all(...terms.map(({ term }) => `"${term}"`), limit);
    return rows.map((row) => ({ chunk: Number(row['rowid']), score: Number(row['score']) }));
  }

  /** Words that are nearly everywhere tell something where they stand together, and where they name something. */
  #ofCommon(terms: readonly Term[], limit: number): Ranked[] {
    const [rarest] = terms;
    if (rarest === undefined) return [];
    const quoted = terms.slice(0, 4).map(({ term }) => `"${term}"`);
    const together = quoted.length > 1 ? this.#any(quoted.join(' AND '), rarest, limit) : [];
    return together.length > 0 ? together : this.#any(`{path names} : ${quoted[0]}`, rarest, limit);
  }

  /** Without a rank, from as much of the index as holds few enough matches: all are equally good. */
  #any(match: string, { chunks }: Term, limit: number): Ranked[] {
    const last = Math.ceil((this.#chunks * 2 * limits.repository.matchedChunks) / chunks);
    return this.#unranked.all(match, last, limit).map((row) => ({ chunk: Number(row['rowid']), score: 1 }));
  }

  /** @param match an expression of FTS5. */
  #matching(match: string, limit: number): Ranked[] {
    const rows = this.#ranked.all(match, rank, limit);
    return rows.map((row) => ({ chunk: Number(row['rowid']), score: -Number(row['rank']) }));
  }

  #learn(words: readonly string[]): void {
    if (words.length === 0) return;
    this.#forget.run();
    for (const [at, word] of words.entries()) this.#stem.run(at + 1, word);
    for (const row of this.#stems.all()) {
      const term = words[Number(row['doc']) - 1] ?? '';
      const chunks = this.#chunksWith(term);
      this.#known.set(term, {
        term,
        stem: commonStart(term, String(row['term'])),
        chunks,
        rarity: Math.log(1 + this.#chunks / (chunks + 0.5)),
      });
    }
  }

  #chunksWith(term: string): number {
    const row = this.#counted.get(`"${term}"`);
    const [n, last] = [Number(row?.['n'] ?? 0), Number(row?.['last'] ?? 0)];
    return n < countedChunks ? n : Math.max(n, Math.round((n * this.#chunks) / last));
  }
}

/** The stem of `policy` is `polici`. */
function commonStart(a: string, b: string): string {
  let end = 0;
  while (end < Math.min(a.length, b.length) && a[end] === b[end]) end++;
  return a.slice(0, end);
}
