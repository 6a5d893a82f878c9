/**
 * Finds the lines that answer a question. Ranks chunks by their words, then by features of their text, by the class of
 * their file and by the question's vector; returns the best lines of each.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { limits } from '../../limits.ts';
import { areTwins, Evidence, excerptOf, type Stretch, touches, wordsOf } from './evidence.ts';
import { Layout } from './layout.ts';
import type { ReadText } from './map.ts';
import { type NamedPlace, parseQuery, type Query } from './query.ts';
import { type ChunkPlace, type Near, placeOf } from './vectors.ts';
import { partsOfIdentifier, questionTerms, type Term, WordIndex } from './wordIndex.ts';

/** A stretch of a file; lines count from 1, both included. */
export interface Hit extends Stretch {
  readonly path: string;
  /** Greater is better; comparable within one answer. */
  readonly score: number;
  /** Share of the question's words, weighted by rarity, that the chunk and its path contain; 1 for a named place. */
  readonly coverage: number;
  /** First lines of the enclosing definitions, outermost first. */
  readonly within: string;
  readonly text: string;
}

/** Three stretches of a file show where to look; a fourth would displace another file. */
const hitsPerFile = 3;
/** Limits the chunks examined for each hit, because many may be equal, for example a licence. */
const examinedPerHit = 4;
/** Added for a cosine of 1, as a share of the word score's range. */
const cosineWeight = 0.2;
/** Maximum that the other chunks of a file add to one of them. */
const fileWeight = 0.25;
/** Base score, relative to the best, of a chunk that defines or calls a name but is not ranked by words. */
const namedBase = 0.2;
const placeScore = 10;
/** Added to the chunks of a file whose name's words are all in the question. */
const stemWeight = 0.2;
/** Chunks of a file that the question names: their base score, the factor on their score, and their maximum number. */
const ofNamedFile = { base: 0.3, factor: 1.6, most: 60 } as const;
/** Added to a line that defines a name of the question. */
const definitionLine = 500;
/** Most names that are looked up; the rarest are kept. */
const mostNames = 12;
/** Most words that every line or chunk is searched for; the rarest are kept. */
const mostWords = 40;
/** Most frames of a stack trace that are looked up. */
const mostPlaces = 30;
const readmeScore = 20;
/** Most lines of joined stretches. */
const joinedLines = 45;
/** Adds `most` definitions that the best `from` hits use, after the first `after` hits. */
const expansion = { most: 4, from: 3, after: 6 } as const;

interface Scored {
  readonly chunk: ChunkPlace;
  readonly score: number;
  /** The line to show, if the question named one. */
  readonly line?: number;
}

export class ChunkSearch {
  readonly words: WordIndex;
  readonly #layout: Layout;
  readonly #read: ReadText;
  readonly #place: StatementSync;
  readonly #readme: StatementSync;
  readonly #at: StatementSync;
  readonly #exactly: StatementSync;
  readonly #named: StatementSync;
  readonly #chunksOf: StatementSync;
  readonly #enclosing: StatementSync;
  readonly #heading: StatementSync;
  readonly #namedIn: StatementSync;
  readonly #defining: StatementSync;

  constructor(database: DatabaseSync, read: ReadText) {
    this.words = new WordIndex(database);
    this.#layout = new Layout(database);
    this.#read = read;
    const chunks =
      'SELECT chunks.id AS id, path, chunks.first_line AS first_line, chunks.last_line AS last_line FROM chunks JOIN files ON files.id = chunks.file';
    this.#place = database.prepare(`${chunks} WHERE chunks.id = ?`);
    this.#readme = database.prepare(
      `${chunks} WHERE last_part LIKE 'readme%' AND path = last_part ORDER BY path, chunks.first_line LIMIT 1`,
    );
    this.#at = database.prepare(
      `${chunks} WHERE path = ? AND chunks.first_line <= ? AND chunks.last_line >= ? LIMIT 1`,
    );
    this.#exactly = database.prepare('SELECT id FROM files WHERE path = ?');
    this.#named = database.prepare(
      'SELECT path FROM files WHERE last_part = ? COLLATE NOCASE AND last_part = ? LIMIT 50',
    );
    this.#chunksOf = database.prepare(`${chunks} WHERE path = ? ORDER BY chunks.first_line LIMIT ?`);
    this.#enclosing = database.prepare(
      `SELECT DISTINCT first_line FROM symbols WHERE file = ? AND last_line > first_line AND first_line < ? AND last_line >= ?
       ORDER BY first_line`,
    );
    this.#heading = database.prepare(
      'SELECT max(first_line) AS line FROM symbols WHERE file = ? AND first_line BETWEEN ? AND ?',
    );
    this.#namedIn = database.prepare(
      `SELECT name_line FROM symbols WHERE file = ? AND first_line BETWEEN ? AND ?
       AND name IN (SELECT value FROM json_each(?))`,
    );
    this.#defining = database.prepare(
      `SELECT chunks.id AS id, path, chunks.first_line AS first_line, chunks.last_line AS last_line FROM symbols
       JOIN files ON files.id = symbols.file
       JOIN chunks ON chunks.file = symbols.file AND symbols.first_line BETWEEN chunks.first_line AND chunks.last_line
       WHERE symbols.name = ? COLLATE NOCASE AND symbols.name = ? LIMIT ?`,
    );
  }

  /** The best first. `near`: chunks closest in meaning to the question. */
  search(question: string, limit: number, near: readonly Near[] = []): Hit[] {
    this.#layout.refresh();
    return new Search(this, parseQuery(question), near).hits(limit);
  }

  // The lookups of one search in the index.

  terms(text: string): Term[] {
    // The longest words first, because they are rare and each lookup takes time.
    const words = questionTerms(text).sort((a, b) => b.length - a.length);
    return this.words.terms(words.slice(0, limits.repository.questionTerms));
  }

  chunk(id: number): ChunkPlace | undefined {
    return placeOf(this.#place.get(id));
  }

  readme(): ChunkPlace | undefined {
    return placeOf(this.#readme.get());
  }

  chunkAt(path: string, line: number): ChunkPlace | undefined {
    return placeOf(this.#at.get(path, line, line));
  }

  /** Chunks that define the name, with the same case. */
  defining(name: string, limit: number): ChunkPlace[] {
    return this.#defining.all(name, name, limit).flatMap((row) => placeOf(row) ?? []);
  }

  /** The file that an absolute path or the end of a path names. */
  fileOf(path: string): string | undefined {
    const parts = path.replace(/^\.?\//, '').split('/');
    for (let from = 0; from < parts.length; from++) {
      const end = parts.slice(from).join('/');
      if (this.#exactly.get(end)) return end;
    }
    const name = parts.at(-1) ?? '';
    const same = this.#named.all(name, name).map((row) => String(row['path']));
    if (parts.length === 1) return same.length === 1 ? same[0] : undefined;
    // Libraries have files with the same names, so the folder must match too.
    const agreeing = same.map((own) => ({ own, common: commonEnd(own.split('/'), parts) }));
    return agreeing.filter(({ common }) => common > 1).sort((a, b) => b.common - a.common)[0]?.own;
  }

  /** First lines of the definitions around a line, outermost first. */
  enclosing(path: string, line: number): number[] {
    return this.#enclosing.all(this.#idOf(path), line, line).map((row) => Number(row['first_line']));
  }

  /** The last line of a stretch that begins a definition. */
  heading(path: string, { firstLine, lastLine }: Stretch): number | undefined {
    return Number(this.#heading.get(this.#idOf(path), firstLine, lastLine)?.['line'] ?? 0) || undefined;
  }

  /** Lines of a stretch that define one of the names. */
  linesDefining(path: string, { firstLine, lastLine }: Stretch, names: readonly string[]): number[] {
    if (names.length === 0) return [];
    const rows = this.#namedIn.all(this.#idOf(path), firstLine, lastLine, JSON.stringify(names));
    return rows.map((row) => Number(row['name_line']));
  }

  #idOf(path: string): number {
    return Number(this.#exactly.get(path)?.['id']);
  }

  chunksOf(path: string, limit: number): ChunkPlace[] {
    return this.#chunksOf.all(path, limit).flatMap((row) => placeOf(row) ?? []);
  }

  read(path: string): string | undefined {
    return this.#read(path);
  }

  get layout(): Layout {
    return this.#layout;
  }
}

/** Whether two words differ only in their ending. */
const areForms = (a: string, b: string): boolean =>
  Math.abs(a.length - b.length) <= 3 && (a.startsWith(b) || b.startsWith(a));

function commonEnd(a: readonly string[], b: readonly string[]): number {
  let common = 0;
  while (common < Math.min(a.length, b.length) && a.at(-1 - common) === b.at(-1 - common)) common++;
  return common;
}

/** The search for one question. Reads each file once. */
class Search {
  readonly #index: ChunkSearch;
  readonly #query: Query;
  readonly #near: readonly Near[];
  readonly #evidence: Evidence;
  readonly #terms: readonly Term[];
  readonly #telling: readonly Term[];
  readonly #names: readonly string[];
  /** Stems of the question's words. */
  readonly #stems: readonly string[];
  readonly #texts = new Map<string, Text | undefined>();
  #readChars = 0;
  /** Paths that the question names. */
  readonly #named: ReadonlySet<string>;
  /** Names of the question that a chunk defines. */
  readonly #defined = new Map<number, Set<string>>();
  /** By stem: the score that a word too common to search for adds to a chunk that contains it. */
  #common = new Map<string, number>();

  constructor(index: ChunkSearch, query: Query, near: readonly Near[]) {
    this.#index = index;
    this.#query = query;
    this.#near = near;
    this.#terms = index.terms(query.text);
    this.#telling = this.#terms.filter(({ chunks }) => chunks > 0).slice(0, mostWords);
    this.#names = this.#rarest(query.names);
    this.#stems = this.#terms
      .filter(({ chunks }) => chunks > 0)
      .map(({ stem }) => stem)
      .filter((stem) => stem.length > 2);
    this.#evidence = new Evidence(query, this.#names);
    this.#named = new Set(query.files.flatMap((path) => index.fileOf(path) ?? []));
  }

  hits(limit: number): Hit[] {
    const scored = this.#reread(this.#candidates());
    const best = this.#selected([...this.#pinned(), ...scored], limit);
    const wider = limit > expansion.after ? this.#used(best) : [];
    if (wider.length === 0) return best;
    const kept = best.slice(0, limit - wider.length);
    return [...kept.slice(0, expansion.after), ...wider, ...kept.slice(expansion.after)];
  }

  /** The rarest names that the index contains. */
  #rarest(names: readonly string[]): string[] {
    const held = this.#index.words.terms(names.map((name) => name.toLowerCase())).filter(({ chunks }) => chunks > 0);
    const wanted = new Set(held.slice(0, mostNames).map(({ term }) => term));
    return names.filter((name) => wanted.has(name.toLowerCase()));
  }

  /** Scores from 0 to 1 by words, plus those of the question's vector. */
  #candidates(): Map<number, number> {
    const { ranked, left } = this.#index.words.ranking(this.#terms, limits.repository.rereadChunks);
    const top = ranked[0]?.score ?? 1;
    // One occurrence in a chunk of mean length adds about its rarity to BM25.
    this.#common = new Map(left.slice(0, mostWords).map(({ stem, rarity }) => [stem, (rarity - Math.LN2) / top]));
    const scores = new Map(ranked.map(({ chunk, score }) => [chunk, score / top]));
    for (const { chunk, cosine } of this.#near) {
      scores.set(chunk, (scores.get(chunk) ?? 0) + cosineWeight * Math.max(0, cosine));
    }
    for (const name of this.#names) {
      const defining = this.#index.defining(name, 50).map(({ id }) => id);
      for (const id of defining) this.#defined.set(id, (this.#defined.get(id) ?? new Set()).add(name));
      const { relation } = this.#query;
      const mentions = relation === 'callers' || relation === 'tests' ? this.#mentions(name) : [];
      for (const id of [...defining.slice(0, 5), ...mentions]) if (!scores.has(id)) scores.set(id, namedBase);
    }
    for (const path of this.#named) {
      for (const { id } of this.#index.chunksOf(path, ofNamedFile.most)) {
        scores.set(id, Math.max(scores.get(id) ?? 0, ofNamedFile.base));
      }
    }
    return scores;
  }

  #mentions(name: string): number[] {
    return this.#index.words.mentions(name.toLowerCase(), limits.repository.rereadChunks / 2).map(({ chunk }) => chunk);
  }

  #reread(scores: ReadonlyMap<number, number>): Scored[] {
    const found = [...scores].flatMap(([id, base]) => {
      const chunk = this.#index.chunk(id);
      if (chunk === undefined) return [];
      if (this.#readChars > limits.repository.rereadChars && !this.#texts.has(chunk.path))
        return [{ chunk, score: base }];
      const text = this.#text(chunk.path)?.slice(chunk);
      if (text === undefined) return [];
      const isTest = this.#index.layout.classOf(chunk.path) === 'test';
      const lower = text.toLowerCase();
      const evidence = this.#evidence.of({ text, lower, defined: this.#defined.get(id) ?? new Set(), isTest });
      let common = 0;
      for (const [stem, weight] of this.#common) if (lower.includes(stem)) common += weight;
      return [{ chunk, score: base + common + evidence }];
    });
    const files = new Map<string, number>();
    for (const { chunk, score } of found) files.set(chunk.path, (files.get(chunk.path) ?? 0) + score);
    const largest = Math.max(...files.values(), Number.MIN_VALUE);
    return found
      .map(({ chunk, score }) => {
        const ofFile = (fileWeight * (files.get(chunk.path) ?? 0)) / largest;
        const isNamed = this.#named.has(chunk.path);
        const stem = this.#hasStem(chunk.path) ? stemWeight : 0;
        const factor = isNamed ? ofNamedFile.factor : this.#index.layout.factor(chunk.path, this.#query);
        return { chunk, score: (score + ofFile + stem) * factor };
      })
      .sort((a, b) => b.score - a.score);
  }

  #hasStem(path: string): boolean {
    const stem = path.slice(path.lastIndexOf('/') + 1).replace(/\..*$/, '');
    const parts = partsOfIdentifier(stem.replaceAll(/[.-]/g, '_')).map((part) => part.toLowerCase());
    return parts.length > 0 && parts.every((part) => part.length > 2 && this.#stems.some((own) => areForms(own, part)));
  }

  /**
   * Places that the question names by path and line, and the beginning of the README for a question about the whole
   * repository.
   */
  #pinned(): Scored[] {
    const readme = this.#query.whole ? this.#index.readme() : undefined;
    const places = this.#query.places.slice(0, mostPlaces).flatMap((place, at) => this.#scoredPlace(place, at));
    return [...(readme ? [{ chunk: readme, score: readmeScore }] : []), ...places];
  }

  #scoredPlace({ path, line }: NamedPlace, at: number): Scored[] {
    const file = this.#index.fileOf(path);
    const chunk = file === undefined ? undefined : this.#index.chunkAt(file, line);
    return chunk ? [{ chunk, score: placeScore - at / 100, line }] : [];
  }

  #selected(scored: readonly Scored[], limit: number): Hit[] {
    const hits: Hit[] = [];
    const words: ReadonlySet<string>[] = [];
    for (const own of scored.slice(0, examinedPerHit * limit)) {
      const same = hits.filter(({ path }) => path === own.chunk.path);
      if (same.length === hitsPerFile && !same.some((other) => touches(other, own.chunk))) continue;
      const hit = this.#hitOf(own);
      if (hit === undefined) continue;
      const joined = same.find((other) => touches(other, hit) && spanOf(other, hit) <= joinedLines);
      if (joined) {
        hits[hits.indexOf(joined)] = this.#joined(joined, hit);
        continue;
      }
      const ownWords = wordsOf(hit.text);
      const twin = hits.some(({ path }, at) => path !== hit.path && areTwins(words[at] ?? new Set(), ownWords));
      if (same.length === hitsPerFile || twin) continue;
      if (hits.length === limit) break;
      hits.push(hit);
      words.push(ownWords);
    }
    return hits;
  }

  #joined(a: Hit, b: Hit): Hit {
    const stretch = { firstLine: Math.min(a.firstLine, b.firstLine), lastLine: Math.max(a.lastLine, b.lastLine) };
    return { ...this.#shown(a.path, stretch, a.score), coverage: Math.max(a.coverage, b.coverage) };
  }

  #hitOf({ chunk, score, line }: Scored): Hit | undefined {
    const lines = this.#text(chunk.path)?.lines;
    if (lines === undefined || lines.length < chunk.firstLine) return undefined;
    const named = new Set(this.#index.linesDefining(chunk.path, chunk, this.#shownNames));
    const scoreOf = (text: string, number: number): number =>
      this.#ofLine(text) + (named.has(number) ? definitionLine : 0) + (number === line ? 1000 : 0);
    const stretch = excerptOf(lines, chunk, scoreOf, (reach) => this.#index.heading(chunk.path, reach));
    const hit = this.#shown(chunk.path, stretch, score);
    return line === undefined ? hit : { ...hit, coverage: 1 };
  }

  #shown(path: string, stretch: Stretch, score: number): Hit {
    const lines = this.#text(path)?.lines ?? [];
    const lastLine = Math.min(stretch.lastLine, lines.length);
    const text = lines.slice(stretch.firstLine - 1, lastLine).join('\n');
    const enclosing = this.#index.enclosing(path, stretch.firstLine);
    const within = enclosing.map((line) => (lines[line - 1] ?? '').trim().slice(0, 120)).join(' › ');
    return { path, firstLine: stretch.firstLine, lastLine, score, coverage: this.#coverage(path, text), within, text };
  }

  /** Names whose definitions the question asks for. */
  get #shownNames(): readonly string[] {
    const { relation } = this.#query;
    return relation === 'callers' || relation === 'tests' ? [] : this.#names;
  }

  #ofLine(text: string): number {
    const lower = text.toLowerCase();
    let words = 0;
    for (const { stem, rarity } of this.#telling) if (lower.includes(stem)) words += rarity;
    return words + 5 * this.#evidence.ofLine(text);
  }

  #coverage(path: string, text: string): number {
    const lower = `${path}\n${text}`.toLowerCase();
    // Digests, issue numbers and similar are in no source.
    const terms = this.#terms.filter(({ term, chunks }) => chunks > 0 || !/\d/.test(term));
    const all = terms.reduce((sum, { rarity }) => sum + rarity, 0);
    const held = terms.reduce((sum, { stem, rarity }) => sum + (lower.includes(stem) ? rarity : 0), 0);
    return all === 0 ? 0 : held / all;
  }

  /** Definitions that the best hits call and no hit shows yet: the next steps of a call chain. */
  #used(hits: readonly Hit[]): Hit[] {
    const found: Hit[] = [];
    const seen = new Set<string>();
    for (const hit of hits.slice(0, expansion.from)) {
      if (this.#index.layout.classOf(hit.path) !== undefined) continue;
      for (const [, name = ''] of hit.text.matchAll(/([\p{L}_$][\p{L}\p{N}_$]{3,})(?=\s*\()/gu)) {
        if (seen.has(name) || seen.size > 60) continue;
        seen.add(name);
        const places = this.#index.defining(name, 3);
        const [only] = places;
        if (only === undefined || places.length > 2 || this.#index.layout.classOf(only.path) !== undefined) continue;
        if ([...hits, ...found].some((other) => other.path === only.path && touches(other, only))) continue;
        const shown = this.#hitOf({ chunk: only, score: hit.score / 2 });
        if (shown) found.push(shown);
      }
    }
    return found.sort((a, b) => b.coverage - a.coverage).slice(0, expansion.most);
  }

  #text(path: string): Text | undefined {
    if (!this.#texts.has(path)) {
      const text = this.#index.read(path);
      this.#texts.set(path, text === undefined ? undefined : new Text(text));
      this.#readChars += text?.length ?? 0;
    }
    return this.#texts.get(path);
  }
}

/** A file's text. A question reads about a hundred files, and only a few lines of most. */
class Text {
  readonly #text: string;
  #lines: readonly string[] | undefined;
  /** Offsets of line starts, found on demand. */
  readonly #starts = [0];

  constructor(text: string) {
    this.#text = text;
  }

  get lines(): readonly string[] {
    this.#lines ??= this.#text.split('\n');
    return this.#lines;
  }

  /** '' if the file is now shorter. */
  slice({ firstLine, lastLine }: Stretch): string {
    return this.#text.slice(this.#startOf(firstLine - 1), Math.max(0, this.#startOf(lastLine) - 1));
  }

  #startOf(line: number): number {
    while (this.#starts.length <= line) {
      const end = this.#text.indexOf('\n', this.#starts.at(-1));
      if (end < 0) return this.#text.length + 1;
      this.#starts.push(end + 1);
    }
    return this.#starts[line] ?? 0;
  }
}

const spanOf = (a: Stretch, b: Stretch): number =>
  Math.max(a.lastLine, b.lastLine) - Math.min(a.firstLine, b.firstLine) + 1;
