/**
 * Turns a text into index terms: whole identifiers and their parts (`parseHttpUrl`, `parse`, `http`, `url`), in lower
 * case, and also without accents. Scripts without blanks between words are cut into pairs of characters, as in search
 * engines. SQLite's tokenizer then only splits at blanks and stems.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { limits } from '../../limits.ts';
import { tokenizer } from './database.ts';

/** Most copies of a word of one text: BM25 hardly counts more, and the index shrinks by a third. */
const maxCopies = 4;
/** Longer words are digests, keys and data. */
const maxWordChars = 64;
const maxNumberChars = 8;
/** Words with cached terms: a large repository has some hundred thousand different words. */
const cachedWords = 50_000;

const cache = new Map<string, string>();

/** Terms separated by blanks, to be stored. */
export function termsOf(text: string): string {
  const copies = new Map<string, number>();
  for (const [word] of text.matchAll(/[\p{L}\p{N}_$]+/gu)) copies.set(word, (copies.get(word) ?? 0) + 1);
  let terms = '';
  for (const [word, count] of copies) {
    const own = termsOfWord(word);
    if (own === '') continue;
    for (let i = 0; i < Math.min(count, maxCopies); i++) terms += `${own} `;
  }
  return terms;
}

/** The distinct terms of a question, without the most common English words unless there are no others. */
export function questionTerms(question: string): string[] {
  const words = question.match(/[\p{L}\p{N}_$]+/gu) ?? [];
  const telling = words.filter((word) => !commonWords.has(word.toLowerCase()));
  const terms = (telling.length > 0 ? telling : words).flatMap((word) => termsOfWord(word).split(' '));
  const different = [...new Set(terms)].filter((term) => term !== '');
  // A single character of such a script says little beside pairs.
  const hasPairs = different.some((term) => unspacedRun.test(term) && [...term].length > 1);
  return different.filter((term) => !hasPairs || !unspacedRun.test(term) || [...term].length > 1);
}

function termsOfWord(word: string): string {
  const known = cache.get(word);
  if (known !== undefined) return known;
  const terms = computeTerms(word);
  if (cache.size >= cachedWords) cache.clear();
  cache.set(word, terms);
  return terms;
}

function computeTerms(word: string): string {
  const runs = word.match(unspacedRuns) ?? [];
  const spaced = word.replaceAll(unspacedRuns, '_');
  return [...new Set([...termsOfSpaced(spaced), ...runs.flatMap(termsOfRun)])].join(' ');
}

function termsOfSpaced(word: string): string[] {
  if (word.length > maxWordChars) return [];
  if (word.length > maxNumberChars && /^\d/.test(word) && !hexadecimal.test(word)) return [];
  const whole = word.toLowerCase();
  const parts = [whole, ...partsOfIdentifier(word), ...(hexadecimal.exec(word)?.slice(1) ?? [])];
  const terms = parts.map((part) => part.toLowerCase()).filter((part) => /[^_$]/.test(part));
  return terms.flatMap((term) => [term, withoutAccents(term)]);
}

/** Addresses and magic numbers are indexed; other numbers that are longer than a year are data. */
const hexadecimal = /^0x([\da-f]{1,16})$/i;

export const withoutAccents = (term: string): string => term.normalize('NFD').replaceAll(/\p{M}+/gu, '');

const unspaced = String.raw`[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}ー\p{sc=Hangul}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmer}\p{sc=Myanmar}]+`;
const unspacedRuns = new RegExp(unspaced, 'gu');
const unspacedRun = new RegExp(`^${unspaced}$`, 'u');

/** Single characters, for a question of one character, and pairs. */
function termsOfRun(run: string): string[] {
  const characters = [...run];
  return characters.flatMap((char, index) => [char, ...(index > 0 ? [`${characters[index - 1]}${char}`] : [])]);
}

/** `parseHTTPUrl_v2` is `parse`, `HTTP`, `Url`, `v2`. */
export function partsOfIdentifier(identifier: string): string[] {
  return identifier
    .split(/[_$]+|(?<=[\p{Ll}\p{N}])(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll})/u)
    .filter((part) => part !== '');
}

const commonWords = new Set(
  `a about all also an and any are as at be been but by can could did do does explain find for from get give had has have
  here how i if in into is it its let like look me my need new no not of on or our please show should so some tell than that
  the their them then there these they this those to up us used uses using want was way we were what when where which who
  why will with work works would you your`.split(/\s+/),
);

// BM25 over paths, names and text (Robertson & Zaragoza, 2009; SQLite's FTS5), with a limit on the ranked chunks.

/**
 * Weights of path, names and body. A file named after the question's words is about them; a mention need not be. The
 * function is nearly twice as fast as FTS5's column `rank`.
 */
const rank = 'bm25(terms, 2.0, 3.0, 1.0)';
const rememberedTerms = 50_000;
/** Most terms ranked together: BM25 looks up every word in every chunk that contains one of them. */
const rankedTerms = 16;

/** Score that a chunk loses for each missing common word; the highest score is 1. */
const commonStep = 0.2;

/** A word of a question as the index knows it. */
export interface Term {
  readonly term: string;
  /** Common prefix of the term and its stem, which most forms of the word contain. */
  readonly stem: string;
  /** Chunks that hold it. */
  readonly chunks: number;
  /** ln(1 + chunks of the index / chunks that hold it). */
  readonly rarity: number;
}

interface Ranked {
  readonly chunk: number;
  readonly score: number;
}

/**
 * Counting stops here; higher counts are extrapolated from the position in the index. The extrapolation is wrong if a
 * subsystem's words are clustered, so whether a word is ranked must not depend on it.
 */
const countedChunks = limits.repository.matchedChunks + 1;

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
      `SELECT rowid, -${rank} AS score FROM terms WHERE terms MATCH ? ORDER BY score DESC LIMIT ?`,
    );
    this.#unranked = database.prepare('SELECT rowid, 1 AS score FROM terms WHERE terms MATCH ? AND rowid <= ? LIMIT ?');
    this.#counted = database.prepare(
      `SELECT count(*) AS n, max(rowid) AS last FROM (SELECT rowid FROM terms WHERE terms MATCH ? LIMIT ${countedChunks})`,
    );
    this.#chunkCount = database.prepare('SELECT max(id) AS n FROM chunks');
    this.#forget = database.prepare('DELETE FROM temp.stemmed');
    this.#stem = database.prepare('INSERT INTO temp.stemmed (rowid, term) VALUES (?, ?)');
    this.#stems = database.prepare('SELECT doc, term FROM temp.stems');
  }

  /** The rarest first; terms that the index doesn't contain last. */
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
   * Chunks that contain any of the rarer terms, best first. `left`: the more common terms, which would match too many
   * chunks; the caller looks for them in the chunks' text.
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
    return { ranked: rankedOf(this.#ranked.all(match.join(' OR '), limit)), left };
  }

  /** Chunks whose text contains the word, best first; in any order if there are too many to rank. */
  mentions(word: string, limit: number): Ranked[] {
    const [term] = this.terms([word]);
    if (term === undefined || term.chunks === 0) return [];
    const match = `body : "${word}"`;
    return term.chunks <= limits.repository.matchedChunks
      ? rankedOf(this.#ranked.all(match, limit))
      : this.#any(match, term, limit);
  }

  /** Scores chunks by the rarities of the words that they contain. With many words, the count of each says little. */
  #byRarity(terms: readonly Term[], limit: number): Ranked[] {
    const each = terms.map(
      ({ rarity }) => `SELECT rowid, ${rarity.toFixed(3)} AS rarity FROM terms WHERE terms MATCH ?`,
    );
    const rows = this.#database
      .prepare(
        `SELECT rowid, sum(rarity) AS score FROM (${each.join(' UNION ALL ')}) GROUP BY rowid ORDER BY score DESC LIMIT ?`,
      )
      .all(...terms.map(({ term }) => `"${term}"`), limit);
    return rankedOf(rows);
  }

  /** For words that occur nearly everywhere: chunks that contain them together, or in names. */
  #ofCommon(terms: readonly Term[], limit: number): Ranked[] {
    const [rarest] = terms;
    if (rarest === undefined) return [];
    const quoted = terms.slice(0, 4).map(({ term }) => `"${term}"`);
    const together = quoted.slice(1).map((_, i) => quoted.slice(0, quoted.length - i).join(' AND '));
    const found = new Map<number, number>();
    for (const [i, match] of [...together, `{path names} : ${quoted[0]}`].entries()) {
      if (found.size >= limit) break;
      for (const { chunk } of this.#any(match, rarest, limit)) {
        if (found.size < limit && !found.has(chunk)) found.set(chunk, 1 - commonStep * i);
      }
    }
    return [...found].map(([chunk, score]) => ({ chunk, score }));
  }

  /** Unranked matches, from a part of the index small enough to search; all score the same. */
  #any(match: string, { chunks }: Term, limit: number): Ranked[] {
    const last = Math.ceil((this.#chunks * 2 * limits.repository.matchedChunks) / chunks);
    return rankedOf(this.#unranked.all(match, last, limit));
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

const rankedOf = (rows: readonly Record<string, unknown>[]): Ranked[] =>
  rows.map((row) => ({ chunk: Number(row['rowid']), score: Number(row['score']) }));

/** The stem of `policy` is `polici`. */
function commonStart(a: string, b: string): string {
  let end = 0;
  while (end < Math.min(a.length, b.length) && a[end] === b[end]) end++;
  return a.slice(0, end);
}
