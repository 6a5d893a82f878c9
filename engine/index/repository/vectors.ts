/**
 * The vectors of chunks in the database: 8 bits a value and one scale a vector. The key is a digest of the embedded
 * text, so that switching branches and back computes nothing twice. A search reads all vectors; for some ten thousand
 * chunks, that takes less time than embedding the question. Each vector is sealed with its model and digest, so that
 * damage is noticed when it is read, and `salvage.ts` can recover it.
 */
import { createHash } from 'node:crypto';
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { setImmediate as turn } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import { Damaged } from './database.ts';

/** Rows read before other work may run. */
const pageRows = 2000;
const scaleBytes = 4;
/** Unused vectors are deleted only when they outnumber those in use and are more than this. */
const sparedVectors = 1000;

export interface ChunkPlace {
  readonly id: number;
  readonly path: string;
  readonly firstLine: number;
  readonly lastLine: number;
}

export function placeOf(row: Record<string, unknown> | undefined): ChunkPlace | undefined {
  return (
    row && {
      id: Number(row['id']),
      path: String(row['path']),
      firstLine: Number(row['first_line']),
      lastLine: Number(row['last_line']),
    }
  );
}

export interface Near {
  readonly chunk: number;
  readonly cosine: number;
}

export class Vectors {
  readonly #database: DatabaseSync;
  readonly #missing: StatementSync;
  readonly #known: StatementSync;
  readonly #insert: StatementSync;
  readonly #model: StatementSync;
  readonly #assign: StatementSync;
  readonly #page: StatementSync;
  #isProved = false;

  constructor(database: DatabaseSync) {
    const prepare = (sql: string): StatementSync => database.prepare(sql);
    this.#database = database;
    this.#missing = prepare(
      `SELECT chunks.id, path, first_line, last_line FROM chunks JOIN files ON files.id = chunks.file
       WHERE chunks.id > ? AND NOT EXISTS (SELECT 1 FROM embedded WHERE chunk = chunks.id) ORDER BY chunks.id LIMIT 1`,
    );
    this.#known = prepare('SELECT id, vector FROM vectors WHERE digest = ?');
    // Another process may have inserted it first.
    this.#insert = prepare(
      `INSERT INTO vectors (digest, vector) VALUES (?, ?)
       ON CONFLICT (digest) DO UPDATE SET vector = excluded.vector RETURNING id`,
    );
    this.#model = prepare('SELECT model FROM embedder');
    this.#assign = prepare('INSERT OR REPLACE INTO embedded (chunk, vector, proof) VALUES (?, ?, ?)');
    this.#page = prepare(
      `SELECT chunk, vectors.vector FROM embedded JOIN vectors ON vectors.id = embedded.vector
       WHERE chunk > ? ORDER BY chunk LIMIT ${pageRows}`,
    );
  }

  /** The model of the vectors; undefined if there are none. @throws Damaged if its name can't be read. */
  get model(): string | undefined {
    const sealed = this.#model.get()?.['model'];
    if (sealed === undefined) return undefined;
    const name = sealed instanceof Uint8Array ? modelIn(sealed) : undefined;
    if (name === undefined) throw new Damaged("The embedding model's name is damaged.");
    return name;
  }

  /** Keeps the vectors if they are this model's, else deletes them. Undefined: no model is chosen any more. */
  belongTo(model: string | undefined): void {
    if (this.model === model) return;
    // Overwrites deleted vectors, so that `salvage.ts` doesn't recover them.
    this.#database.exec('PRAGMA secure_delete = ON');
    this.#database.exec('DELETE FROM embedder; DELETE FROM embedded; DELETE FROM vectors');
    this.#database.exec('PRAGMA secure_delete = OFF');
    if (model === undefined) return;
    this.#database.prepare('INSERT INTO embedder (model) VALUES (?)').run(sealedModel(model));
  }

  /** The first chunk after `chunk` that has no vector. */
  missingAfter(chunk: number): ChunkPlace | undefined {
    return placeOf(this.#missing.get(chunk));
  }

  /**
   * Assigns the known vector of this text to the chunk. @returns whether it is known and has `dimensions` values.
   * @throws Damaged
   */
  assignKnown(chunk: number, text: string, dimensions: number): boolean {
    const digest = digestOf(text);
    const row = this.#known.get(digest);
    const vector = row && soundVector(row['vector'], this.#seed, digest);
    const isKnown = vector?.byteLength === scaleBytes + dimensions;
    if (isKnown) this.#assign.run(chunk, Number(row?.['id']), proofOf(digest, chunk));
    return isKnown;
  }

  put(chunk: number, text: string, vector: Float32Array): void {
    const digest = digestOf(text);
    const row = this.#insert.get(digest, seal('HEV1', seedOf(this.#seed, digest), packed(vector)));
    this.#assign.run(chunk, Number(row?.['id']), proofOf(digest, chunk));
  }

  /**
   * Stores the vector in `found`, which follows a digest, if it belongs to that digest and this model. @returns the
   * digest.
   */
  keep(found: Uint8Array): Uint8Array | undefined {
    const digest = found.subarray(0, digestBytes);
    const vector = vectorIn(found.subarray(digestBytes), this.#seed, digest);
    if (vector) this.#insert.get(digest, seal('HEV1', seedOf(this.#seed, digest), vector));
    return vector && digest;
  }

  /** Number of chunks with a vector, and of all chunks. */
  counts(): { readonly done: number; readonly total: number } {
    const count = (table: string): number =>
      Number(this.#database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.['n']);
    return { done: count('embedded'), total: count('chunks') };
  }

  /** Deletes unused vectors once they are the larger part. */
  tidy(): void {
    const { done } = this.counts();
    const all = Number(this.#database.prepare('SELECT count(*) AS n FROM vectors').get()?.['n']);
    if (all > 2 * done + sparedVectors) {
      this.#database.exec('DELETE FROM vectors WHERE id NOT IN (SELECT vector FROM embedded)');
    }
  }

  /** The chunks with the largest cosine similarity to `vector`, largest first. @throws Damaged */
  async nearest(vector: Float32Array, limit: number): Promise<Near[]> {
    if (!this.#isProved) await this.#prove();
    const best: Near[] = [];
    for (let after = -1; ; await turn()) {
      const rows = this.#page.all(after);
      for (const row of rows) {
        after = Number(row['chunk']);
        const { vector: sealed } = row;
        if (sealed instanceof Uint8Array)
          insertInOrder(best, { chunk: after, cosine: dot(vector, sealedValue(sealed)) }, limit);
      }
      if (rows.length < pageRows) return best;
    }
  }

  /** Checks all vectors, once per process, because it takes longer than a search. @throws Damaged */
  async #prove(): Promise<void> {
    const page = this.#database.prepare(
      `SELECT chunk, proof, digest, vectors.vector FROM embedded LEFT JOIN vectors ON vectors.id = embedded.vector
       WHERE chunk > ? ORDER BY chunk LIMIT ${pageRows}`,
    );
    for (let after = -1; ; await turn()) {
      const rows = page.all(after);
      const seed = this.#seed;
      for (const row of rows) {
        after = Number(row['chunk']);
        const { digest, proof } = row;
        if (!(digest instanceof Uint8Array) || proof !== proofOf(digest, after))
          throw new Damaged("A chunk's vector is missing, or another one's.");
        soundVector(row['vector'], seed, digest);
      }
      if (rows.length < pageRows) break;
    }
    this.#isProved = true;
  }

  /** The seed of all vectors' checksums. */
  get #seed(): number {
    return crc32(this.model ?? '');
  }
}

const digestOf = (text: string): Uint8Array => createHash('sha1').update(text).digest();
export const digestBytes = 20;

const sealedModel = (model: string): Uint8Array => seal('HEM1', 0, Buffer.from(model));

/** The model's name at the start of `bytes`. */
export function modelIn(bytes: Uint8Array): string | undefined {
  const name = unseal('HEM1', 0, bytes);
  return name && Buffer.from(name).toString();
}

/** Proves that a vector belongs to this chunk. */
const proofOf = (digest: Uint8Array, chunk: number): number => crc32(digest, chunk);

const seedOf = (model: number, digest: Uint8Array): number => crc32(digest, model);

/** The packed vector at the start of `bytes`, if it belongs to this model and text. */
function vectorIn(bytes: Uint8Array, model: number, digest: Uint8Array): Uint8Array | undefined {
  const vector = unseal('HEV1', seedOf(model, digest), bytes);
  return vector && Number.isFinite(scaleOf(vector)) ? vector : undefined;
}

function soundVector(stored: unknown, model: number, digest: Uint8Array): Uint8Array {
  const vector = stored instanceof Uint8Array ? vectorIn(stored, model, digest) : undefined;
  if (!vector) throw new Damaged('A vector does not fit its checksum.');
  return vector;
}

const scaleOf = (stored: Uint8Array): number => new DataView(stored.buffer, stored.byteOffset).getFloat32(0, true);

/** The scale as f32, then the values as 8-bit integers. */
export function packed(vector: Float32Array): Uint8Array {
  const largest = vector.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
  const scale = largest / 127 || 1;
  const bytes = new Uint8Array(scaleBytes + vector.length);
  new DataView(bytes.buffer).setFloat32(0, scale, true);
  new Int8Array(bytes.buffer, scaleBytes).set(vector.map((value) => Math.round(value / scale)));
  return bytes;
}

/** Dot product of a vector and a packed one. */
export function dot(vector: Float32Array, stored: Uint8Array): number {
  const values = new Int8Array(stored.buffer, stored.byteOffset + scaleBytes, stored.byteLength - scaleBytes);
  if (values.length !== vector.length) return Number.NEGATIVE_INFINITY;
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += (vector[i] as number) * (values[i] as number);
  return scaleOf(stored) * sum;
}

function insertInOrder<Item extends { cosine: number }>(best: Item[], item: Item, limit: number): void {
  if (best.length === limit && item.cosine <= (best.at(-1)?.cosine ?? Number.NEGATIVE_INFINITY)) return;
  const at = best.findIndex(({ cosine }) => cosine < item.cosine);
  best.splice(at < 0 ? best.length : at, 0, item);
  if (best.length > limit) best.pop();
}

// Sealed values can be found in a damaged file and prove that they are complete and in their place:
//
//     marker, 4 bytes · bytes of the value u32 · CRC-32 of the seed and the value u32 · value
//
// The seed identifies what the value belongs to, so that it is never taken for another's. The checksum guards against
// accidents only. CRC-32 detects every burst error of up to 32 bits and all but one in 2^32 of others.

/** Another format of the value needs another marker. */
export type Marker = 'HEM1' | 'HEV1';

const headBytes = 12;

export function seal(marker: Marker, seed: number, value: Uint8Array): Uint8Array {
  const sealed = Buffer.alloc(headBytes + value.byteLength);
  sealed.write(marker, 'latin1');
  sealed.writeUInt32LE(value.byteLength, 4);
  sealed.writeUInt32LE(crc32(value, seed), 8);
  sealed.set(value, headBytes);
  return sealed;
}

/** The value at the start of `bytes`, sharing their memory; undefined if it is incomplete or has another seed. */
export function unseal(marker: Marker, seed: number, bytes: Uint8Array): Uint8Array | undefined {
  const sealed = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (sealed.byteLength < headBytes || sealed.toString('latin1', 0, marker.length) !== marker) return undefined;
  const end = headBytes + sealed.readUInt32LE(4);
  if (end > sealed.byteLength) return undefined;
  const value = sealed.subarray(headBytes, end);
  return crc32(value, seed) === sealed.readUInt32LE(8) ? value : undefined;
}

/** The value of sealed bytes that were checked before. */
export const sealedValue = (sealed: Uint8Array): Uint8Array => sealed.subarray(headBytes);
