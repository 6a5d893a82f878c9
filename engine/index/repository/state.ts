/** What the index is doing, for the user to see. */
import type { DatabaseSync } from 'node:sqlite';

export type IndexPhase = 'idle' | 'scanning' | 'indexing' | 'paused';

export interface IndexState {
  readonly phase: IndexPhase;
  /** Files in the index, and files that are known to wait. */
  readonly files: number;
  readonly pending: number;
  readonly chunks: number;
  readonly symbols: number;
  /** Files whose content is left out, by reason. */
  readonly skipped: Readonly<Record<string, number>>;
  /** What went wrong last, as a sentence. */
  readonly problem?: string;
  /** Absent: no embedding model was chosen. */
  readonly embeddings?: EmbeddingState;
}

/** How far the vectors of chunks are. */
export interface EmbeddingState {
  readonly model: string;
  readonly phase: 'idle' | 'loading' | 'embedding' | 'paused' | 'failed';
  /** Chunks that have a vector, and all. */
  readonly done: number;
  readonly total: number;
  /** Why it failed, as a sentence. */
  readonly problem?: string;
}

export type Counts = Pick<IndexState, 'files' | 'chunks' | 'symbols' | 'skipped'>;

export function countsOf(database: DatabaseSync): Counts {
  const count = (table: string): number => Number(database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.['n']);
  const rows = database.prepare("SELECT skipped, count(*) AS n FROM files WHERE skipped <> '' GROUP BY skipped").all();
  const skipped = Object.fromEntries(rows.map((row) => [String(row['skipped']), Number(row['n'])]));
  return { files: count('files'), chunks: count('chunks'), symbols: count('symbols'), skipped };
}
