/** Puts files into the index and takes them out. The caller opens the transaction. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import type { SourceParts } from '../syntax/source.ts';
import { modulesOf } from './imports.ts';
import { type ContentKind, contentKindOf } from './layout.ts';
import { type Counts, countsOf } from './state.ts';
import { termsOf } from './terms.ts';
import type { FoundFile } from './walk.ts';

/** Why a file's content is not in the index. */
export type Skipped = 'too-large' | 'binary' | 'generated' | 'unreadable';

export interface KnownFile {
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
  readonly #within: StatementSync;
  readonly #deletions: Readonly<
    Record<'terms' | 'embedded' | 'chunks' | 'symbols' | 'imports' | 'files', StatementSync>
  >;
  readonly #skippedOf: StatementSync;
  readonly #database: DatabaseSync;
  /** Kept, because counting the rows of a large index takes longer than a save. */
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
    this.#insertChunk = prepare('INSERT INTO chunks (file, first_line, last_line) VALUES (?, ?, ?) RETURNING id');
    this.#insertTerms = prepare('INSERT INTO terms (rowid, path, names, body) VALUES (?, ?, ?, ?)');
    this.#insertSymbol = prepare(
      'INSERT INTO symbols (file, name, kind, container, first_line, last_line, name_line) VALUES (?, ?, ?, ?, ?, ?, ?)',
    );
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

  /** After a transaction that was rolled back. */
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

  /** The content is as before, only its date is not. */
  touch(id: number, { bytes, modifiedMs }: FoundFile): void {
    this.#touch.run(bytes, modifiedMs, id);
  }

  put(file: FoundFile, digest: string, text: string, parts: SourceParts): void {
    const id = this.#replace(file, digest, '', contentKindOf(file.path, text));
    const lines = text.split('\n');
    const pathTerms = termsOf(file.path);
    for (const { firstLine, lastLine } of parts.chunks) {
      const chunk = Number(this.#insertChunk.get(id, firstLine, lastLine)?.['id']);
      const inside = parts.definitions.filter((own) => own.firstLine <= lastLine && own.lastLine >= firstLine);
      const names = termsOf(inside.map(({ name }) => name).join(' '));
      this.#insertTerms.run(chunk, pathTerms, names, termsOf(lines.slice(firstLine - 1, lastLine).join('\n')));
    }
    for (const { name, kind, container, firstLine, lastLine, nameLine } of parts.definitions) {
      this.#insertSymbol.run(id, name, kind, container, firstLine, lastLine, nameLine);
    }
    for (const target of [...parts.imports, ...modulesOf(file.path, text)]) this.#insertImport.run(id, target);
    this.#count({ files: 1, chunks: parts.chunks.length, symbols: parts.definitions.length });
  }

  /** Remembered, so that it is not read again until it changes. */
  putSkipped(file: FoundFile, why: Skipped): void {
    this.#replace(file, '', why, '');
    this.#count({ files: 1, why });
  }

  remove(id: number): void {
    const why = String(this.#skippedOf.get(id)?.['skipped'] ?? '');
    const { terms, embedded, chunks, symbols, imports, files } = this.#deletions;
    // The first two look for the file's chunks.
    for (const own of [terms, embedded, imports]) own.run(id);
    const removed = (own: StatementSync): number => Number(own.run(id).changes);
    this.#count({ files: -removed(files), chunks: -removed(chunks), symbols: -removed(symbols), why });
  }

  /** A file, or everything in a folder. Returns whether there was anything. */
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

  #replace({ path, bytes, modifiedMs }: FoundFile, digest: string, skipped: Skipped | '', kind: ContentKind): number {
    const known = this.find(path);
    if (known) this.remove(known.id);
    const name = path.slice(path.lastIndexOf('/') + 1);
    return Number(this.#insertFile.get(path, name, bytes, modifiedMs, digest, skipped, kind)?.['id']);
  }
}
