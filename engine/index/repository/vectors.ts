/**
 * The vectors of chunks in the database: 8 bits a value and one scale a vector, named by what was embedded, so that a switch
 * of branches and back computes nothing twice. A search reads them all: at some ten thousand chunks that takes less time than
 * the question's own vector.
 */
import { createHash } from 'node:crypto';
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { setImmediate as turn } from 'node:timers/promises';

/** Read between two looks at who else waits. */
const pageRows = 2000;
const scaleBytes = 4;
/** Vectors of chunks that are gone are kept until they are more than those in use, and so many. */
const sparedVectors = 1000;

export interface ChunkPlace {
  readonly id: number;
  readonly path: string;
  readonly firstLine: number;
  readonly lastLine: number;
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
  readonly #assign: StatementSync;
  readonly #page: StatementSync;

  constructor(database: DatabaseSync) {
    const prepare = (sql: string): StatementSync => database.prepare(sql);
    this.#database = database;
    this.#missing = prepare(
      `SELECT chunks.id, path, first_line, last_line FROM chunks JOIN files ON files.id = chunks.file
       WHERE chunks.id > ? AND NOT EXISTS (SELECT 1 FROM embedded WHERE chunk = chunks.id) ORDER BY chunks.id LIMIT 1`,
    );
    this.#known = prepare('SELECT id FROM vectors WHERE digest = ?');
    this.#insert = prepare('INSERT INTO vectors (digest, vector) VALUES (?, ?) RETURNING id');
    this.#assign = prepare('INSERT OR REPLACE INTO embedded (chunk, vector) VALUES (?, ?)');
    this.#page = prepare(
      `SELECT chunk, vectors.vector FROM embedded JOIN vectors ON vectors.id = embedded.vector
       WHERE chunk > ? ORDER BY chunk LIMIT ${pageRows}`,
    );
  }

  /** Whose vectors these are; undefined where none were ever made. */
  get model(): string | undefined {
    const row = this.#database.prepare('SELECT model FROM embedder').get();
    return row && String(row['model']);
  }

  /** Keeps the vectors if they are this model's, else begins anew; undefined: there is no model any more. */
  belongTo(model: string | undefined): void {
    if (this.model === model) return;
    this.#database.exec('DELETE FROM embedder; DELETE FROM embedded; DELETE FROM vectors');
    if (model !== undefined) this.#database.prepare('INSERT INTO embedder (model) VALUES (?)').run(model);
  }

  /** The first chunk after `chunk` that has no vector. */
  missingAfter(chunk: number): ChunkPlace | undefined {
    const row = this.#missing.get(chunk);
    return (
      row && {
        id: Number(row['id']),
        path: String(row['path']),
        firstLine: Number(row['first_line']),
        lastLine: Number(row['last_line']),
      }
    );
  }

  /** Whether the vector of this text is known; the chunk has it then. */
  assignKnown(chunk: number, text: string): boolean {
    const row = this.#known.get(digestOf(text));
    if (row) this.#assign.run(chunk, Number(row['id']));
    return row !== undefined;
  }

  put(chunk: number, text: string, vector: Float32Array): void {
    const row = this.#insert.get(digestOf(text), packed(vector));
    this.#assign.run(chunk, Number(row?.['id']));
  }

  /** Chunks that have a vector, and all. */
  counts(): { readonly done: number; readonly total: number } {
    const count = (table: string): number =>
      Number(this.#database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.['n']);
    return { done: count('embedded'), total: count('chunks') };
  }

  /** Throws away what no chunk has any more, once that is the larger part. */
  tidy(): void {
    const { done } = this.counts();
    const all = Number(this.#database.prepare('SELECT count(*) AS n FROM vectors').get()?.['n']);
    if (all > 2 * done + sparedVectors) {
      this.#database.exec('DELETE FROM vectors WHERE id NOT IN (SELECT vector FROM embedded)');
    }
  }

  /** The chunks whose vectors have the largest cosine with this one, the largest first. */
  async nearest(vector: Float32Array, limit: number): Promise<Near[]> {
    const best: Near[] = [];
    for (let after = -1; ; await turn()) {
      const rows = this.#page.all(after);
      for (const row of rows) {
        after = Number(row['chunk']);
        const stored = row['vector'];
        if (stored instanceof Uint8Array) insertInOrder(best, { chunk: after, cosine: dot(vector, stored) }, limit);
      }
      if (rows.length < pageRows) return best;
    }
  }
}

const digestOf = (text: string): Uint8Array => createHash('sha1').update(text).digest();

/** The scale as f32, then the values as 8-bit integers. */
export function packed(vector: Float32Array): Uint8Array {
  const largest = vector.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
  const scale = largest / 127 || 1;
  const bytes = new Uint8Array(scaleBytes + vector.length);
  new DataView(bytes.buffer).setFloat32(0, scale, true);
  new Int8Array(bytes.buffer, scaleBytes).set(vector.map((value) => Math.round(value / scale)));
  return bytes;
}

/** Of a vector and a packed one. */
export function dot(vector: Float32Array, stored: Uint8Array): number {
  const scale = new DataView(stored.buffer, stored.byteOffset).getFloat32(0, true);
  const values = new Int8Array(stored.buffer, stored.byteOffset + scaleBytes, stored.byteLength - scaleBytes);
  if (values.length !== vector.length) return Number.NEGATIVE_INFINITY;
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += (vector[i] as number) * (values[i] as number);
  return scale * sum;
}

function insertInOrder<Item extends { cosine: number }>(best: Item[], item: Item, limit: number): void {
  if (best.length === limit && item.cosine <= (best.at(-1)?.cosine ?? Number.NEGATIVE_INFINITY)) return;
  const at = best.findIndex(({ cosine }) => cosine < item.cosine);
  best.splice(at < 0 ? best.length : at, 0, item);
  if (best.length > limit) best.pop();
}
