/** Puts files into the index and takes them out. The caller opens the transaction. */
import { createHash } from 'node:crypto';
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { isDeepStrictEqual } from 'node:util';
import type { Definition, SourceParts } from '../syntax/source.ts';
import { type Counts, countsOf } from './database.ts';
import type { FoundFile } from './ignored.ts';
import { modulesOf } from './imports.ts';
import { type ContentKind, contentKindOf } from './layout.ts';
import { termsOf } from './wordIndex.ts';

/** Why a file's content is not in the index. */
export type Skipped = 'too-large' | 'binary' | 'generated' | 'unreadable';

interface KnownFile {
  readonly id: number;
  readonly bytes: number;
  readonly modifiedMs: number;
  readonly digest: string;
}

export class IndexWriter {
  readonly #find: StatementSync;
  readonly #insertFile: StatementSync;
  readonly #touch: StatementSync;
  readonly #insertChunk: StatementSync;
  readonly #insertTerms: StatementSync;
  readonly #insertSymbol: StatementSync;
  readonly #insertImport: StatementSync;
  readonly #renew: StatementSync;
  readonly #chunksOf: StatementSync;
  readonly #moveChunk: StatementSync;
  readonly #chunkDeletions: readonly StatementSync[];
  readonly #symbolsOf: StatementSync;
  readonly #moveSymbols: StatementSync;
  readonly #deleteSymbol: StatementSync;
  readonly #importsOf: StatementSync;
  readonly #within: StatementSync;
  readonly #deletions: Readonly<
    Record<'terms' | 'embedded' | 'chunks' | 'symbols' | 'imports' | 'files', StatementSync>
  >;
  readonly #skippedOf: StatementSync;
  readonly #database: DatabaseSync;
  /** Cached, because counting the rows of a large index takes longer than a save. */
  #counts: Counts;

  constructor(database: DatabaseSync) {
    this.#database = database;
    this.#counts = countsOf(database);
    const prepare = (sql: string): StatementSync => database.prepare(sql);
    this.#find = prepare('SELECT id, bytes, modified_ms, digest FROM files WHERE path = ?');
    this.#insertFile = prepare(
      'INSERT INTO files (path, last_part, bytes, modified_ms, digest, skipped, content) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id',
    );
    this.#touch = prepare('UPDATE files SET bytes = ?, modified_ms = ? WHERE id = ?');
    this.#renew = prepare(
      "UPDATE files SET bytes = ?, modified_ms = ?, digest = ?, content = ?, skipped = '' WHERE id = ?",
    );
    this.#insertChunk = prepare(
      'INSERT INTO chunks (file, first_line, last_line, digest) VALUES (?, ?, ?, ?) RETURNING id',
    );
    this.#chunksOf = prepare('SELECT id, first_line, digest FROM chunks WHERE file = ? ORDER BY first_line');
    this.#moveChunk = prepare('UPDATE chunks SET first_line = ?, last_line = ? WHERE id = ?');
    this.#chunkDeletions = [
      prepare('DELETE FROM terms WHERE rowid = ?'),
      prepare('DELETE FROM embedded WHERE chunk = ?'),
      prepare('DELETE FROM chunks WHERE id = ?'),
    ];
    this.#insertTerms = prepare('INSERT INTO terms (rowid, path, names, body) VALUES (?, ?, ?, ?)');
    this.#insertSymbol = prepare(
      'INSERT INTO symbols (file, name, kind, container, first_line, last_line, name_line) VALUES (?, ?, ?, ?, ?, ?, ?)',
    );
    this.#symbolsOf = prepare('SELECT * FROM symbols WHERE file = ? ORDER BY first_line, id');
    this.#moveSymbols = prepare(
      `UPDATE symbols SET first_line = first_line + ?, last_line = last_line + ?, name_line = name_line + ?
       WHERE id IN (SELECT value FROM json_each(?))`,
    );
    this.#deleteSymbol = prepare('DELETE FROM symbols WHERE id = ?');
    this.#importsOf = prepare('SELECT target FROM imports WHERE file = ? ORDER BY rowid');
    this.#insertImport = prepare('INSERT INTO imports (file, target) VALUES (?, ?)');
    this.#skippedOf = prepare('SELECT skipped FROM files WHERE id = ?');
    // Everything between `folder/` and the character after the slash.
    this.#within = prepare('SELECT id FROM files WHERE path >= ? AND path < ?');
    this.#deletions = {
      terms: prepare('DELETE FROM terms WHERE rowid IN (SELECT id FROM chunks WHERE file = ?)'),
      embedded: prepare('DELETE FROM embedded WHERE chunk IN (SELECT id FROM chunks WHERE file = ?)'),
      chunks: prepare('DELETE FROM chunks WHERE file = ?'),
      symbols: prepare('DELETE FROM symbols WHERE file = ?'),
      imports: prepare('DELETE FROM imports WHERE file = ?'),
      files: prepare('DELETE FROM files WHERE id = ?'),
    };
  }

  get counts(): Counts {
    return { ...this.#counts, skipped: { ...this.#counts.skipped } };
  }

  /** Call after a transaction was rolled back. */
  recount(): void {
    this.#counts = countsOf(this.#database);
  }

  find(path: string): KnownFile | undefined {
    const row = this.#find.get(path);
    return (
      row && {
        id: Number(row['id']),
        bytes: Number(row['bytes']),
        modifiedMs: Number(row['modified_ms']),
        digest: String(row['digest']),
      }
    );
  }

  /** The content is unchanged; only the file's date changed. */
  touch(id: number, { bytes, modifiedMs }: FoundFile): void {
    this.#touch.run(bytes, modifiedMs, id);
  }

  /** Of a known file, writes only the rows that differ, because most of a saved file is unchanged. */
  put(file: FoundFile, digest: string, text: string, parts: SourceParts): void {
    const id = this.#fileRow(file, digest, contentKindOf(file.path, text));
    this.#putChunks(id, file.path, text.split('\n'), parts);
    this.#putSymbols(id, parts.definitions);
    this.#putImports(id, [...parts.imports, ...modulesOf(file.path, text)]);
  }

  /** Records a skipped file, so that it is not read again until it changes. */
  putSkipped(file: FoundFile, why: Skipped): void {
    const known = this.find(file.path);
    if (known) this.remove(known.id);
    this.#insert(file, '', why, '');
  }

  remove(id: number): void {
    const why = String(this.#skippedOf.get(id)?.['skipped'] ?? '');
    const { terms, embedded, chunks, symbols, imports, files } = this.#deletions;
    // These run first: the first two need the file's chunks.
    for (const own of [terms, embedded, imports]) own.run(id);
    const removed = (own: StatementSync): number => Number(own.run(id).changes);
    this.#count({ files: -removed(files), chunks: -removed(chunks), symbols: -removed(symbols), why });
  }

  /** Removes a file, or everything in a folder. Returns whether there was anything. */
  removePath(path: string): boolean {
    const file = this.find(path);
    const ids = this.#within.all(`${path}/`, `${path}0`).map((row) => Number(row['id']));
    if (file) ids.push(file.id);
    for (const id of ids) this.remove(id);
    return ids.length > 0;
  }

  #count({ files = 0, chunks = 0, symbols = 0, why = '' }: Partial<Counts> & { why?: string }): void {
    const skipped = { ...this.#counts.skipped };
    if (why !== '') skipped[why] = (skipped[why] ?? 0) + files;
    if (skipped[why] === 0) delete skipped[why];
    this.#counts = {
      files: this.#counts.files + files,
      chunks: this.#counts.chunks + chunks,
      symbols: this.#counts.symbols + symbols,
      skipped,
    };
  }

  #fileRow(file: FoundFile, digest: string, kind: ContentKind): number {
    const known = this.find(file.path);
    if (known === undefined) return this.#insert(file, digest, '', kind);
    this.#count({ files: -1, why: String(this.#skippedOf.get(known.id)?.['skipped'] ?? '') });
    this.#count({ files: 1 });
    this.#renew.run(file.bytes, file.modifiedMs, digest, kind, known.id);
    return known.id;
  }

  #insert({ path, bytes, modifiedMs }: FoundFile, digest: string, skipped: Skipped | '', kind: ContentKind): number {
    const name = path.slice(path.lastIndexOf('/') + 1);
    this.#count({ files: 1, why: skipped });
    return Number(this.#insertFile.get(path, name, bytes, modifiedMs, digest, skipped, kind)?.['id']);
  }

  /** A chunk with the same text keeps its row, even if its lines moved. */
  #putChunks(file: number, path: string, lines: readonly string[], parts: SourceParts): void {
    const before = this.#chunksByDigest(file);
    const pathTerms = termsOf(path);
    const names = namesIn(parts);
    for (const [at, { firstLine, lastLine }] of parts.chunks.entries()) {
      const text = lines.slice(firstLine - 1, lastLine).join('\n');
      const own = names[at]?.join(' ') ?? '';
      const digest = digestOf(`${own}\n${text}`);
      const same = before.get(digest)?.shift();
      if (same === undefined) {
        const chunk = Number(this.#insertChunk.get(file, firstLine, lastLine, digest)?.['id']);
        this.#insertTerms.run(chunk, pathTerms, termsOf(own), termsOf(text));
        this.#count({ chunks: 1 });
      } else if (same.firstLine !== firstLine) this.#moveChunk.run(firstLine, lastLine, same.id);
    }
    for (const { id } of [...before.values()].flat()) {
      for (const own of this.#chunkDeletions) own.run(id);
      this.#count({ chunks: -1 });
    }
  }

  #chunksByDigest(file: number): Map<number, { id: number; firstLine: number }[]> {
    const rows = this.#chunksOf.all(file).map(({ id, first_line: firstLine, digest }) => ({
      ...{ id: Number(id), firstLine: Number(firstLine), digest: Number(digest) },
    }));
    return Map.groupBy(rows, ({ digest }) => digest);
  }

  /** Symbols before the first and after the last difference keep their rows; the latter move by some lines. */
  #putSymbols(file: number, now: readonly Definition[]): void {
    const before = this.#symbolsOf.all(file).map(rowOfSymbol);
    const most = Math.min(before.length, now.length);
    let start = 0;
    while (start < most && areSame(before[start], now[start], 0)) start++;
    const moved = (now.at(-1)?.firstLine ?? 0) - (before.at(-1)?.firstLine ?? 0);
    let end = 0;
    while (end < most - start && areSame(before.at(-1 - end), now.at(-1 - end), moved)) end++;
    for (const { id } of before.slice(start, before.length - end)) this.#deleteSymbol.run(id);
    for (const own of now.slice(start, now.length - end)) {
      const { name, kind, container, firstLine, lastLine, nameLine } = own;
      this.#insertSymbol.run(file, name, kind, container, firstLine, lastLine, nameLine);
    }
    const last = before.slice(before.length - end);
    if (moved !== 0) this.#moveSymbols.run(moved, moved, moved, JSON.stringify(last.map(({ id }) => id)));
    this.#count({ symbols: now.length - before.length });
  }

  #putImports(file: number, targets: readonly string[]): void {
    const before = this.#importsOf.all(file).map((row) => String(row['target']));
    if (isDeepStrictEqual(before, targets)) return;
    this.#deletions.imports.run(file);
    for (const target of targets) this.#insertImport.run(file, target);
  }
}

interface SymbolRow extends Omit<Definition, 'kind'> {
  readonly id: number;
  readonly kind: string;
}

const rowOfSymbol = (row: Readonly<Record<string, unknown>>): SymbolRow => ({
  id: Number(row['id']),
  name: String(row['name']),
  kind: String(row['kind']),
  container: String(row['container']),
  firstLine: Number(row['first_line']),
  lastLine: Number(row['last_line']),
  nameLine: Number(row['name_line']),
});

/** @param moved offset in lines between the two. */
const areSame = (before: SymbolRow | undefined, now: Definition | undefined, moved: number): boolean =>
  before !== undefined &&
  now !== undefined &&
  before.name === now.name &&
  before.kind === now.kind &&
  before.container === now.container &&
  before.firstLine + moved === now.firstLine &&
  before.lastLine + moved === now.lastLine &&
  before.nameLine + moved === now.nameLine;

/** 48 bits of the SHA-1, an integer for SQLite and JavaScript. */
const digestOf = (text: string): number => createHash('sha1').update(text).digest().readUIntBE(0, 6);

/** For each chunk, the names of the definitions that overlap it. Both inputs are sorted by line. */
function namesIn({ chunks, definitions }: SourceParts): string[][] {
  const names: string[][] = chunks.map(() => []);
  let first = 0;
  for (const { name, firstLine, lastLine } of definitions) {
    while ((chunks[first]?.lastLine ?? firstLine) < firstLine) first++;
    for (let at = first; (chunks[at]?.firstLine ?? Number.POSITIVE_INFINITY) <= lastLine; at++) names[at]?.push(name);
  }
  return names;
}
