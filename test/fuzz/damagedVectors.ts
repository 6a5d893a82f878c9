/**
 * An index with embedding vectors whose database is damaged between two processes. Afterwards every chunk has its own vector
 * again: those whose row is unbroken in the damaged files are kept, exactly the others are embedded.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { HearthError } from '../../engine/errors.ts';
import type { Embedder } from '../../engine/index/repository/embeddings.ts';
import { IndexService } from '../../engine/index/repository/repository.ts';
import { packed } from '../../engine/index/repository/vectors.ts';
import { below, pick, type Random, seededRandom } from './mutants.ts';

export const pageBytes = 4096;
const dimensions = 768;
const files = 60;
/** Until the index is whole again, however busy the machine. */
const patienceMs = 30_000;

/** Another one for each text: bytes of a stream that its digest seeds. */
function vectorOf(text: string): Float32Array {
  const bytes = createHash('shake256', { outputLength: dimensions }).update(text).digest();
  const vector = Float32Array.from(bytes, (byte) => byte - 127.5);
  const length = Math.hypot(...vector);
  return vector.map((value) => value / length);
}

interface Row {
  readonly text: string;
  readonly digest: Uint8Array;
  readonly vector: Uint8Array;
}

export interface Repair {
  /** Rows that are unbroken in the damaged files. */
  readonly intact: number;
  /** As the service tells; undefined where it found no damage that SQLite could not read over. */
  readonly kept: number | undefined;
  readonly embedded: number;
  /** Chunks whose vector is another text's, or none. */
  readonly wrong: number;
}

export interface Page {
  /** In bytes. */
  readonly at: number;
  readonly rows: number;
}

/** A folder of sources, and its index with all vectors. */
export class EmbeddedIndex {
  readonly root: string;
  readonly database: string;
  /** Of each chunk, as they were before any damage. */
  rows: readonly Row[] = [];
  /** The database's files, by what follows its name. */
  readonly #sound = new Map<string, Buffer>();

  private constructor(root: string) {
    this.root = root;
    this.database = join(root, 'index', 'index.db');
  }

  /** Closed at its end; `killed`: as a process leaves it that ends without closing, with the last rows in the log. */
  static async make(end: 'closed' | 'killed' = 'closed'): Promise<EmbeddedIndex> {
    const index = new EmbeddedIndex(mkdtempSync(join(tmpdir(), 'hearth-vectors-')));
    mkdirSync(join(index.root, 'workspace'));
    for (let file = 0; file < files; file++) {
      const code = `export function thing${file}() { return ${file}; }\n`.repeat(20);
      writeFileSync(join(index.root, 'workspace', `f${file}.ts`), code);
    }
    const { service } = await index.#open();
    await index.#whole(service);
    if (end === 'killed') index.#remember();
    await service.close();
    if (end === 'closed') index.#remember();
    index.rows = index.#read();
    return index;
  }

  /** Damages the sound files, and lets a process find everything again; `ask` is asked of it before. */
  async repair(
    damage: (database: string) => void,
    ask: (service: IndexService) => Promise<unknown> = async () => {},
  ): Promise<Repair> {
    rmSync(join(this.root, 'index'), { recursive: true });
    mkdirSync(join(this.root, 'index'));
    for (const [suffix, bytes] of this.#sound) writeFileSync(this.database + suffix, bytes);
    damage(this.database);
    const left = ['', '-wal', '.damaged', '.damaged-wal'].map((suffix) => this.database + suffix).filter(existsSync);
    const bytes = left.map((path) => readFileSync(path));
    const intact = this.rows.filter(({ digest, vector }) =>
      bytes.some((file) => file.includes(Buffer.concat([digest, vector]))),
    ).length;
    const { service, counts } = await this.#open();
    try {
      await this.#whole(service);
      await ask(service);
      // The first reads all vectors, the others all chunks; if one finds damage, the index is rebuilt.
      for (let file = 0; file < files; file++) {
        const search = { question: `thing${file}`, limit: 1, meaning: file === 0 };
        try {
          await service.implementation().search(search, new AbortController().signal);
        } catch (error) {
          if (!(error instanceof HearthError && error.code === 'unavailable')) throw error;
        }
      }
      await this.#whole(service);
    } finally {
      await service.close();
    }
    const texts = new Set(this.rows.map(({ text }) => text));
    const right = this.#read().filter(
      ({ text, vector }) =>
        texts.has(text) && Buffer.from(packed(vectorOf(text))).equals(vector.subarray(-dimensions - 4)),
    );
    return { intact, ...counts, wrong: texts.size - right.length };
  }

  /** Pages of these tables, as SQLite says. Call it before any damage. */
  pagesOf(...tables: readonly string[]): Page[] {
    const database = new DatabaseSync(this.database, { readOnly: true });
    const pages = database.prepare('SELECT name, pageno, pagetype, ncell FROM dbstat ORDER BY pageno').all();
    database.close();
    return pages
      .filter(({ name }) => tables.includes(String(name)))
      .map(({ pageno, pagetype, ncell }) => ({
        at: (Number(pageno) - 1) * pageBytes,
        rows: pagetype === 'leaf' ? Number(ncell) : 0,
      }));
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true });
  }

  async #open(): Promise<{ service: IndexService; counts: { kept: number | undefined; embedded: number } }> {
    const counts: { kept: number | undefined; embedded: number } = { kept: undefined, embedded: 0 };
    const embedder: Embedder = {
      dimensions,
      document: async (text) => {
        counts.embedded++;
        return vectorOf(text);
      },
      question: async (text) => vectorOf(text),
      close: async () => {},
    };
    const service = new IndexService(
      () => undefined,
      async () => embedder,
      (kept) => {
        counts.kept = kept;
      },
    );
    const folders = [{ name: '', directory: join(this.root, 'workspace') }];
    await service.open({ database: this.database, folders, excludes: [], embeddings: { model: 'scripted' } });
    return { service, counts };
  }

  /** Resolves when every file is indexed and every chunk has a vector. */
  async #whole(service: IndexService): Promise<void> {
    let state = '';
    for (const end = performance.now() + patienceMs; performance.now() < end; await sleep(10)) {
      try {
        await service.repository.settled();
        const { phase, files: count, chunks, embeddings } = service.repository.state;
        state = JSON.stringify({ phase, count, chunks, embeddings });
        if (phase !== 'idle' || count !== files || embeddings?.phase !== 'idle') continue;
        // A flipped bit links a vector to a chunk that is not there, until a search meets it.
        if (embeddings.done >= chunks) return;
      } catch (error) {
        // It is being rebuilt.
        state = String(error);
      }
    }
    throw new Error(`The index is not whole after ${patienceMs} ms: ${state}`);
  }

  #remember(): void {
    for (const suffix of ['', '-wal'])
      if (existsSync(this.database + suffix)) this.#sound.set(suffix, readFileSync(this.database + suffix));
  }

  #read(): Row[] {
    const database = new DatabaseSync(this.database, { readOnly: true });
    const rows = database
      .prepare(
        `SELECT path, first_line, last_line, vectors.digest, vectors.vector FROM embedded JOIN vectors ON vectors.id = embedded.vector
         JOIN chunks ON chunks.id = chunk JOIN files ON files.id = chunks.file`,
      )
      .all();
    database.close();
    return rows.map((row) => {
      const lines = readFileSync(join(this.root, 'workspace', String(row['path'])), 'utf8').split('\n');
      const text = lines.slice(Number(row['first_line']) - 1, Number(row['last_line'])).join('\n');
      return {
        text: `${row['path']}\n${text}`,
        digest: row['digest'] as Uint8Array,
        vector: row['vector'] as Uint8Array,
      };
    });
  }
}

/** Changes the bytes of a database. `pages`: where its vectors are, and what leads to them; elsewhere nothing proves a byte. */
type Mutation = (bytes: Buffer, random: Random, pages: readonly number[]) => Buffer;

const mutations: Readonly<Record<string, Mutation>> = {
  bits: (bytes, random, pages) => {
    // From one bit of all pages to one in a hundred bytes.
    const flips = pages.length * pageBytes * 10 ** (-5 + 3 * random());
    for (let flip = 0; flip < flips; flip++) {
      const at = pick(random, pages) + below(random, pageBytes);
      bytes.writeUInt8(bytes.readUInt8(at) ^ (1 << below(random, 8)), at);
    }
    return bytes;
  },
  exchange: (bytes, random, pages) => {
    const [one, other] = [pick(random, pages), pick(random, pages)];
    const kept = Buffer.from(bytes.subarray(one, one + pageBytes));
    bytes.copy(bytes, one, other, other + pageBytes);
    kept.copy(bytes, other);
    return bytes;
  },
  cut: (bytes, random) => bytes.subarray(0, below(random, bytes.length)),
  zeros: (bytes, random) => {
    const from = below(random, bytes.length);
    return bytes.fill(0, from, Math.min(bytes.length, from + below(random, bytes.length / 4)));
  },
  shift: (bytes, random) => {
    const at = below(random, bytes.length);
    return Buffer.concat([bytes.subarray(0, at), Buffer.alloc(1 + below(random, 5000)), bytes.subarray(at)]);
  },
};

export interface SalvageFigures {
  readonly mutants: number;
  /** Mutants whose database was rebuilt. */
  readonly salvaged: number;
  /** Over all mutants: vectors with an intact row, and vectors that were embedded again. */
  readonly vectors: number;
  readonly intact: number;
  readonly embedded: number;
  readonly problems: readonly string[];
}

export async function damageVectors(mutants: number): Promise<SalvageFigures> {
  const index = await EmbeddedIndex.make();
  const pages = index.pagesOf('vectors', 'sqlite_autoindex_vectors_1', 'embedded', 'embedder').map(({ at }) => at);
  const problems: string[] = [];
  let [salvaged, intact, embedded] = [0, 0, 0];
  try {
    for (let mutant = 0; mutant < mutants; mutant++) {
      const random = seededRandom(mutant);
      const [name, mutate] = pick(random, Object.entries(mutations));
      try {
        const repair = await index.repair((path) => writeFileSync(path, mutate(readFileSync(path), random, pages)));
        if (!isRight(repair, index.rows.length)) problems.push(`mutant ${mutant} (${name}): ${JSON.stringify(repair)}`);
        if (repair.kept !== undefined) salvaged++;
        intact += repair.intact;
        embedded += repair.embedded;
      } catch (error) {
        problems.push(`mutant ${mutant} (${name}): ${error instanceof Error ? error.stack : error}`);
      }
    }
  } finally {
    index.remove();
  }
  return { mutants, salvaged, vectors: mutants * index.rows.length, intact, embedded, problems };
}

function isRight({ intact, kept, embedded, wrong }: Repair, rows: number): boolean {
  const rest = rows - intact;
  if (wrong > 0 || embedded < rest) return false;
  // Not rebuilt: no damage was found. Otherwise one vector, whose write found the damage, may be computed twice.
  return kept === undefined ? embedded === 0 : kept >= intact && embedded <= rest + 1;
}
