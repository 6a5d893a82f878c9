/**
 * Recovers embedding vectors from a database that was set aside, because computing them on a CPU takes hours. It
 * doesn't use SQLite's structure, which may be damaged anywhere: each vector and the model's name have a marker and a
 * checksum (`seal`), and lie within one page. Vectors of over 4,000 dimensions span several pages and are computed
 * again.
 */
import { existsSync, rmSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import type { DatabaseSync } from 'node:sqlite';
import { cannotOpen, isDamage, remainsOf } from './database.ts';
import { digestBytes, type Marker, modelIn, Vectors } from './vectors.ts';

const pageBytes = 4096;
/** About 300 vectors; between two blocks, other work may run. */
const blockBytes = 64 * pageBytes;

/**
 * Adds the recovered vectors to a new database, then removes the remains; a process that is killed before that starts
 * again. `model`: the vectors' model, if their own record of it is lost.
 * @returns number of vectors; undefined if no database was set aside.
 */
export async function salvageVectors(
  database: DatabaseSync,
  path: string,
  model?: string,
): Promise<number | undefined> {
  if (!remainsOf(path).some((file) => existsSync(file))) return undefined;
  const kept = await keptFrom(path, database, model).catch((error: unknown) => {
    throw isDamage(error) ? error : cannotOpen(error);
  });
  for (const file of remainsOf(path)) rmSync(file, { force: true, recursive: true });
  return kept;
}

async function keptFrom(path: string, database: DatabaseSync, chosen: string | undefined): Promise<number> {
  const remains = (await Promise.all(remainsOf(path).map(openIfPossible))).filter((file) => file !== undefined);
  try {
    const models = await modelsOf(remains);
    const model = chosen !== undefined && models.has(chosen) ? chosen : ([...models].at(-1) ?? chosen);
    return model === undefined ? 0 : await copied(remains, database, model);
  } finally {
    for (const file of remains) await file.close();
  }
}

/** More than one if a log has pages from before the model was changed. */
async function modelsOf(remains: readonly FileHandle[]): Promise<ReadonlySet<string>> {
  const models = new Set<string>();
  for (const file of remains) {
    for await (const block of blocks(file)) {
      for (const bytes of places(block, 'HEM1', 0)) {
        const model = modelIn(bytes);
        if (model !== undefined) models.add(model);
      }
    }
  }
  return models;
}

async function copied(remains: readonly FileHandle[], database: DatabaseSync, model: string): Promise<number> {
  const vectors = new Vectors(database);
  vectors.belongTo(model);
  // The log repeats pages of the database.
  const kept = new Set<string>();
  for (const file of remains) {
    for await (const block of blocks(file)) {
      // After a failure, the caller closes the database, which rolls this back.
      database.exec('BEGIN IMMEDIATE');
      for (const bytes of places(block, 'HEV1', digestBytes)) {
        const digest = vectors.keep(bytes);
        if (digest) kept.add(Buffer.from(digest).toString('latin1'));
      }
      database.exec('COMMIT');
    }
  }
  return kept.size;
}

/**
 * Yields the whole file. Each block includes the beginning of the next one, because a row may continue there. The
 * buffer is reused.
 */
async function* blocks(file: FileHandle): AsyncGenerator<Buffer> {
  const { size } = await file.stat();
  const block = Buffer.alloc(blockBytes + pageBytes);
  for (let start = 0; start < size; start += blockBytes) {
    // Vectors in unreadable parts are computed again.
    const bytesRead = await file.read(block, 0, block.length, start).then(
      (result) => result.bytesRead,
      () => 0,
    );
    yield block.subarray(0, bytesRead);
  }
}

/** Yields the bytes from `before` bytes before each marker. */
function* places(block: Buffer, marker: Marker, before: number): Generator<Uint8Array> {
  for (let at = block.indexOf(marker, before); at >= 0; at = block.indexOf(marker, at + 1))
    yield block.subarray(at - before);
}

/** Undefined if the file is missing or not readable. */
const openIfPossible = (path: string): Promise<FileHandle | undefined> => open(path).catch(() => undefined);
