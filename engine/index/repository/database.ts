/** The index on disk: one SQLite file. All of its content can be recomputed from the sources. */
import { chmodSync, closeSync, existsSync, mkdirSync, openSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { HearthError } from '../../errors.ts';
import type { IndexState } from '../../protocol/indexProtocol.ts';

/** Error codes (sqlite.org/rescode.html). */
const sqliteError = 1;
const sqliteCorrupt = 11;
const sqliteNotADatabase = 26;

/** Tokenizer setting of FTS5. */
export const tokenizer = `"porter ascii tokenchars '_$'"`;

/** A database with another version is rebuilt. */
const schemaVersion = 8;

const schema = `
  CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    -- Of the path: a trace of another machine agrees in little more.
    last_part TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    modified_ms REAL NOT NULL,
    -- Of the content; equal after a switch of branches and back.
    digest TEXT NOT NULL,
    -- Why its content is not in the index; '' when it is.
    skipped TEXT NOT NULL,
    -- What its text says it is: a test, generated, a table.
    content TEXT NOT NULL
  );
  CREATE INDEX files_last_part ON files(last_part COLLATE NOCASE);
  CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,
    file INTEGER NOT NULL,
    first_line INTEGER NOT NULL,
    last_line INTEGER NOT NULL,
    -- Of its words: an equal chunk of a file that is saved keeps its row.
    digest INTEGER NOT NULL
  );
  CREATE INDEX chunks_file ON chunks(file);
  CREATE TABLE symbols (
    id INTEGER PRIMARY KEY,
    file INTEGER NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    container TEXT NOT NULL,
    first_line INTEGER NOT NULL,
    last_line INTEGER NOT NULL,
    name_line INTEGER NOT NULL
  );
  CREATE INDEX symbols_file ON symbols(file, first_line);
  -- A header may hold 50,000 macros of one line; few definitions enclose others.
  CREATE INDEX symbols_long ON symbols(file, first_line, last_line) WHERE last_line > first_line;
  CREATE INDEX symbols_name ON symbols(name COLLATE NOCASE);
  CREATE TABLE imports (file INTEGER NOT NULL, target TEXT NOT NULL);
  CREATE INDEX imports_file ON imports(file);
  -- Of one embedding model, once one was chosen. Sealed, as the vectors are.
  CREATE TABLE embedder (model BLOB NOT NULL);
  -- By the digest of what was embedded, also for a while after its chunk is gone. A salvage finds the digest before the vector:
  -- values of a row follow one another in the file (sqlite.org/fileformat2.html#record_format).
  CREATE TABLE vectors (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, vector BLOB NOT NULL);
  -- \`proof\`: CRC-32 of the vector's digest and the chunk.
  CREATE TABLE embedded (chunk INTEGER PRIMARY KEY, vector INTEGER NOT NULL, proof INTEGER NOT NULL);
  -- One row a chunk, by its id. The text itself stays in its file.
  CREATE VIRTUAL TABLE terms USING fts5(
    path, names, body,
    content='', contentless_delete=1, tokenize=${tokenizer}
  );
  PRAGMA user_version = ${schemaVersion};
`;

/** The index was written by another release. */
class OtherVersion extends Error {}

/** SQLite can read the database, but it contains data that Hearth did not write. */
export class Damaged extends Error {
  readonly errcode = sqliteCorrupt;
}

/**
 * @throws HearthError `unsupported` if Node.js has no SQLite; `unavailable` if the file cannot be opened now (locked,
 * disk full, no permission), although its content may be intact.
 */
export async function openDatabase(path: string): Promise<DatabaseSync> {
  const sqlite = await import('node:sqlite').catch(() => {
    throw new HearthError(
      'unsupported',
      `The repository index needs SQLite, which Node.js has from version 22.13 on; this is ${process.version}. Everything else works without it.`,
    );
  });
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const open = (): DatabaseSync => {
    keepPrivate(path);
    return prepared(new sqlite.DatabaseSync(path));
  };
  try {
    // SQLite would delete a log whose database is empty. It writes the database before the log, so the database is
    // lost, not new.
    if (!isEmpty(`${path}-wal`) && isEmpty(path)) setAside(path);
    return open();
  } catch (error) {
    if (!(error instanceof OtherVersion) && !isDamageAtOpening(error)) throw cannotOpen(error);
    setAside(path);
    return open();
  }
}

export function cannotOpen(error: unknown): HearthError {
  const reason = error instanceof Error ? error.message : String(error);
  const message = `The repository index could not be opened (${reason}). It is kept as it is; reload the window to try again.`;
  return new HearthError('unavailable', message, { cause: error });
}

/** Whether the file is missing or empty. */
function isEmpty(path: string): boolean {
  const found = statSync(path, { throwIfNoEntry: false });
  return found === undefined || (found.isFile() && found.size === 0);
}

/**
 * Makes the database readable for its owner only, because it contains words of all sources. SQLite gives the files
 * beside it the same mode.
 */
function keepPrivate(path: string): void {
  if (path === ':memory:') return;
  // Includes files of earlier versions, and files that their owner may not read.
  const files = [...filesOf(path), ...remainsOf(path)];
  for (const file of files.filter((one) => statSync(one, { throwIfNoEntry: false })?.isFile())) chmodSync(file, 0o600);
  closeSync(openSync(path, 'a', 0o600));
  // With a folder in place of the log, SQLite would open the database and fail at the first write.
  for (const file of filesOf(path).slice(1))
    if (statSync(file, { throwIfNoEntry: false })?.isDirectory()) rmSync(file, { recursive: true });
}

/** The database and the files that SQLite keeps beside it. */
const filesOf = (path: string): readonly string[] => [path, `${path}-wal`, `${path}-shm`];

/** Includes extended codes. */
export function isDamage(error: unknown): boolean {
  const code = codeOf(error);
  return code === sqliteCorrupt || code === sqliteNotADatabase;
}

export const damageMessage = 'The repository index was damaged and is being rebuilt from the sources.';

/** While an index is opened, an SQL error means that the tables or the FTS5 settings are not those of Hearth. */
export const isDamageAtOpening = (error: unknown): boolean => isDamage(error) || codeOf(error) === sqliteError;

const codeOf = (error: unknown): number =>
  error instanceof Error && 'errcode' in error ? Number(error.errcode) & 0xff : 0;

/** If the disk is full or fails, SQLite has already ended the transaction (sqlite.org/lang_transaction.html). */
export function rollBack(database: DatabaseSync): void {
  try {
    database.exec('ROLLBACK');
  } catch (error) {
    if (!(error instanceof Error && /no transaction is active/.test(error.message))) throw error;
  }
}

/** Moves an unusable database to the path from which `salvage.ts` recovers vectors. */
export function setAside(path: string): void {
  const [database, log] = remainsOf(path);
  // If remains exist, the current database was being filled from them, so keep the older remains.
  if (!existsSync(database) && !existsSync(log)) {
    // Moves the log first, because SQLite would delete a log without its database.
    if (existsSync(`${path}-wal`)) renameSync(`${path}-wal`, log);
    if (existsSync(path)) renameSync(path, database);
  }
  for (const file of filesOf(path)) rmSync(file, { force: true, recursive: true });
}

/** Paths of a database that was set aside and of its log. Either may be missing. */
export const remainsOf = (path: string): readonly [database: string, log: string] => [
  `${path}.damaged`,
  `${path}.damaged-wal`,
];

export function removeDatabase(path: string): void {
  for (const file of [...filesOf(path), ...remainsOf(path)]) rmSync(file, { force: true, recursive: true });
}

function prepared(database: DatabaseSync): DatabaseSync {
  try {
    // With WAL, a killed process loses no finished transaction; with NORMAL, only a power cut could lose the last ones.
    database.exec('PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL');
    database.exec('PRAGMA cache_size = -32000; PRAGMA temp_store = MEMORY');
    if (versionOf(database) === 0) createTables(database);
    const version = versionOf(database);
    if (version !== schemaVersion) throw new OtherVersion(`The index has version ${version}.`);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

export type Counts = Pick<IndexState, 'files' | 'chunks' | 'symbols' | 'skipped'>;

export function countsOf(database: DatabaseSync): Counts {
  const count = (table: string): number => Number(database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.['n']);
  const rows = database.prepare("SELECT skipped, count(*) AS n FROM files WHERE skipped <> '' GROUP BY skipped").all();
  const skipped = Object.fromEntries(rows.map((row) => [String(row['skipped']), Number(row['n'])]));
  return { files: count('files'), chunks: count('chunks'), symbols: count('symbols'), skipped };
}

const versionOf = (database: DatabaseSync): unknown => database.prepare('PRAGMA user_version').get()?.['user_version'];

/** Another window may be opening the same index; the second one to get the lock finds the tables already there. */
function createTables(database: DatabaseSync): void {
  database.exec('BEGIN IMMEDIATE');
  if (versionOf(database) === 0) database.exec(schema);
  database.exec('COMMIT');
}
