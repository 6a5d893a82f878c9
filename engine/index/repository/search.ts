/** Which chunks answer a question: BM25 over paths, names and text (Robertson & Zaragoza, 2009; SQLite's FTS5). */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { limits } from '../../limits.ts';
import { questionTerms } from './terms.ts';

/** A stretch of a file; lines count from 1, both included. */
export interface Hit {
  readonly path: string;
  readonly firstLine: number;
  readonly lastLine: number;
  /** Greater is better; comparable within one answer. */
  readonly score: number;
}

/** Weights of path, names and body. A file named after the question's words is about it; a mention is not. */
const rank = 'bm25(2.0, 3.0, 1.0)';
/** Two stretches of a file tell where to look; a third would push another file out. */
const hitsPerFile = 2;

/** Asks about the whole, which the README's beginning tells and no chunk that shares the question's words. */
const aboutTheWhole =
  /\b(?:this|the|my|our) (?:project|repo(?:sitory)?|code ?base|workspace|program|app(?:lication)?|package|library|extension)\b/i;

/** How many chunks a ranking has for `limit` hits, of which a file has two at most. */
export const candidates = (limit: number): number => limit * 4 + 20;
/** The constant of the paper: how little the first ranks differ. */
const fusionRank = 60;

interface Ranked {
  readonly chunk: number;
  readonly score: number;
}

export class ChunkSearch {
  readonly #match: StatementSync;
  readonly #place: StatementSync;
  readonly #readme: StatementSync;
  readonly #frequency: StatementSync;
  readonly #chunkCount: StatementSync;
  /** Of terms, when the index held `#chunks`. */
  readonly #frequencies = new Map<string, number>();
  #chunks = 0;

  constructor(database: DatabaseSync) {
    this.#match = database.prepare(
      'SELECT rowid, rank FROM terms WHERE terms MATCH ? AND rank MATCH ? ORDER BY rank LIMIT ?',
    );
    this.#place = database.prepare(
      'SELECT path, first_line, last_line FROM chunks JOIN files ON files.id = chunks.file WHERE chunks.id = ?',
    );
    this.#readme = database.prepare(
      "SELECT chunks.id FROM chunks JOIN files ON files.id = chunks.file WHERE path LIKE 'readme%' AND path NOT LIKE '%/%' ORDER BY path, first_line LIMIT 1",
    );
    this.#frequency = database.prepare('SELECT doc FROM vocabulary WHERE term = ?');
    this.#chunkCount = database.prepare('SELECT max(id) AS n FROM chunks');
  }

  search(question: string, limit: number): Hit[] {
    return this.#hits(this.ranking(question, candidates(limit)), limit);
  }

  /** What several rankings of chunks place well (reciprocal rank fusion: Cormack, Clarke and Büttcher, 2009). */
  fused(rankings: readonly (readonly number[])[], limit: number): Hit[] {
    const scores = new Map<number, number>();
    for (const ranking of rankings) {
      for (const [rank, chunk] of ranking.entries()) {
        scores.set(chunk, (scores.get(chunk) ?? 0) + 1 / (fusionRank + rank + 1));
      }
    }
    const ranked = [...scores].map(([chunk, score]) => ({ chunk, score })).sort((a, b) => b.score - a.score);
    return this.#hits(ranked, limit);
  }

  /** Chunks by BM25, the best first; before them the README's beginning for a question about the whole. */
  ranking(question: string, limit: number): Ranked[] {
    const ranked = this.#byWords(question, limit);
    const readme = aboutTheWhole.test(question) ? this.#readme.get() : undefined;
    if (!readme) return ranked;
    const first = { chunk: Number(readme['id']), score: (ranked[0]?.score ?? 0) + 1 };
    return [first, ...ranked.filter(({ chunk }) => chunk !== first.chunk)].slice(0, limit);
  }

  #byWords(question: string, limit: number): Ranked[] {
    const terms = this.#telling(questionTerms(question).slice(0, limits.repository.questionTerms));
    if (terms.length === 0) return [];
    const match = terms.map((term) => `"${term}"`).join(' OR ');
    const rows = this.#match.all(match, rank, limit);
    return rows.map((row) => ({ chunk: Number(row['rowid']), score: -Number(row['rank']) }));
  }

  #hits(ranked: readonly Ranked[], limit: number): Hit[] {
    const hits: Hit[] = [];
    const perFile = new Map<string, number>();
    for (const { chunk, score } of ranked) {
      const place = this.#place.get(chunk);
      if (!place) continue;
      const path = String(place['path']);
      const earlier = perFile.get(path) ?? 0;
      if (earlier === hitsPerFile) continue;
      perFile.set(path, earlier + 1);
      hits.push({ path, firstLine: Number(place['first_line']), lastLine: Number(place['last_line']), score });
      if (hits.length === limit) break;
    }
    return hits;
  }

  /** Without the terms that so many chunks hold that looking through them tells nothing and takes longest. */
  #telling(terms: readonly string[]): readonly string[] {
    const chunks = Number(this.#chunkCount.get()?.['n'] ?? 0);
    if (chunks < limits.repository.chunksBeforeCommon) return terms;
    if (Math.abs(chunks - this.#chunks) > this.#chunks / 10) {
      this.#frequencies.clear();
      this.#chunks = chunks;
    }
    const rare = terms.filter((term) => this.#frequencyOf(term) <= limits.repository.commonShare * chunks);
    return rare.length > 0 ? rare : terms;
  }

  /** In how many chunks; 0 as well for a term that is stored under its stem only. */
  #frequencyOf(term: string): number {
    const known = this.#frequencies.get(term);
    if (known !== undefined) return known;
    const frequency = Number(this.#frequency.get(term)?.['doc'] ?? 0);
    this.#frequencies.set(term, frequency);
    return frequency;
  }
}
