/**
 * Gives every chunk its vector, in the background: one chunk after the other, when no file waits to be read. What is done is
 * in the database at once, so that a pause, a restart or a killed process loses the chunk under way at most.
 */

import type { DatabaseSync } from 'node:sqlite';
import { setImmediate as turn } from 'node:timers/promises';
import { HearthError } from '../../errors.ts';
import { limits } from '../../limits.ts';
import type { IndexState } from '../../protocol/indexProtocol.ts';
import { damageMessage, isDamage } from './database.ts';
import { type ChunkPlace, type Near, Vectors } from './vectors.ts';

/** How far the vectors of chunks are. */
type EmbeddingState = NonNullable<IndexState['embeddings']>;

interface EmbeddingsOptions {
  readonly choice: EmbedderChoice;
  /** Text of a file, or undefined where it is gone. */
  readonly read: (path: string) => string | undefined;
  /** Resolves when no file waits to be indexed. */
  readonly indexed: () => Promise<void>;
  readonly onChange: () => void;
  /** The database turned out to be damaged: it must be made anew. */
  readonly onDamage: () => void;
}

export class Embeddings {
  readonly #options: EmbeddingsOptions;
  readonly #vectors: Vectors;
  readonly #closing = new AbortController();
  #embedder: Promise<Embedder> | undefined;
  #ready: Embedder | undefined;
  #phase: EmbeddingState['phase'] = 'idle';
  #problem: string | undefined;
  #paused = false;
  /** Ends the chunk under way. */
  #interrupt = new AbortController();
  #wanted = false;
  #running: Promise<void> | undefined;
  #counts: ReturnType<Vectors['counts']>;
  #toldMs = 0;

  constructor(database: DatabaseSync, options: EmbeddingsOptions) {
    this.#options = options;
    this.#vectors = new Vectors(database);
    this.#counts = this.#count();
  }

  get state(): EmbeddingState {
    const problem = this.#problem === undefined ? {} : { problem: this.#problem };
    return { model: this.#options.choice.model, phase: this.#phase, ...this.#counts, ...problem };
  }

  /** Chunks may have come: they are looked for once what is under way is done. After a failure nothing happens until `resume`. */
  start(): void {
    if (this.#paused || this.#problem !== undefined || this.#closing.signal.aborted) return;
    this.#wanted = true;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      if (this.#wanted) this.start();
    });
  }

  pause(): void {
    this.#paused = true;
    this.#wanted = false;
    this.#interrupt.abort();
    this.#enter('paused');
  }

  resume(): void {
    this.#paused = false;
    this.#problem = undefined;
    this.#enter('idle');
    this.start();
  }

  /** Resolves when nothing is left to do, or it is paused, or it failed. */
  async settled(): Promise<void> {
    while (this.#running) await this.#running;
  }

  async close(): Promise<void> {
    this.#wanted = false;
    this.#closing.abort();
    this.#interrupt.abort();
    await this.settled();
    await this.#embedder?.then(
      (embedder) => embedder.close(),
      () => {},
    );
  }

  /** Resolves when questions have vectors, or the model could not be loaded. */
  async opened(): Promise<void> {
    await this.#open().catch((error: unknown) => this.#fail(error));
  }

  /** Chunks that mean what a question asks, the best first; none where the model is not loaded yet: nobody waits for that. */
  async nearest(question: string, limit: number): Promise<Near[]> {
    if (!this.#ready) return [];
    try {
      return await this.#vectors.nearest(await this.#ready.question(question), limit);
    } catch (error) {
      // Words still find something; the state says why nothing else does.
      this.#fail(error);
      return [];
    }
  }

  async #run(): Promise<void> {
    this.#interrupt = new AbortController();
    try {
      await this.#options.indexed();
      const embedder = await this.#open();
      while (this.#wanted && !this.#interrupt.signal.aborted) {
        this.#wanted = false;
        await this.#pass(embedder, this.#interrupt.signal);
      }
      if (!this.#interrupt.signal.aborted) this.#vectors.tidy();
    } catch (error) {
      if (isDamage(error) || !this.#interrupt.signal.aborted) this.#fail(error);
      // Nothing can be counted.
      if (isDamage(error)) return;
    }
    this.#enter(this.#paused ? 'paused' : this.#problem === undefined ? 'idle' : 'failed');
  }

  /** A failed load is tried anew by the next run. */
  #open(): Promise<Embedder> {
    if (!this.#ready) this.#enter('loading');
    this.#embedder ??= this.#options.choice.open(this.#closing.signal).then(
      (embedder) => {
        // Not before: a model that is not there throws nothing away.
        this.#vectors.belongTo(this.#options.choice.model);
        this.#ready = embedder;
        return embedder;
      },
      (error: unknown) => {
        this.#embedder = undefined;
        throw error;
      },
    );
    return this.#embedder;
  }

  /** Once over all chunks. A new chunk has a larger id than the last, or the indexer says that there are new ones. */
  async #pass(embedder: Embedder, signal: AbortSignal): Promise<void> {
    for (let after = -1; !signal.aborted; ) {
      // Thousands of known vectors in a row must not keep a question waiting.
      await turn();
      await this.#options.indexed();
      const chunk = this.#vectors.missingAfter(after);
      if (!chunk) return;
      after = chunk.id;
      this.#enter('embedding');
      const text = this.#textOf(chunk);
      if (text === undefined || this.#vectors.assignKnown(chunk.id, text, embedder.dimensions)) continue;
      const vector = await embedder.document(text, signal);
      // Meanwhile the file may have been indexed anew, and the id may be another chunk's.
      if (this.#textOf(chunk) === text && this.#isStill(chunk)) this.#vectors.put(chunk.id, text, vector);
    }
  }

  #isStill({ id, path, firstLine, lastLine }: ChunkPlace): boolean {
    const now = this.#vectors.missingAfter(id - 1);
    return now?.id === id && now.path === path && now.firstLine === firstLine && now.lastLine === lastLine;
  }

  /** The path says much of what code is about. */
  #textOf({ path, firstLine, lastLine }: ChunkPlace): string | undefined {
    const lines = this.#options
      .read(path)
      ?.split('\n')
      .slice(firstLine - 1, lastLine);
    return lines === undefined || lines.length === 0 ? undefined : `${path}\n${lines.join('\n')}`;
  }

  #fail(error: unknown): void {
    if (isDamage(error)) {
      this.#problem = damageMessage;
      this.#wanted = false;
      this.#options.onDamage();
      return;
    }
    const reason = error instanceof HearthError ? error.message : `It failed: ${error}`;
    this.#problem = `The index is searched by words only. ${reason} Vectors computed so far are kept.`;
    this.#wanted = false;
    this.#enter('failed');
  }

  #count(): ReturnType<Vectors['counts']> {
    const counts = this.#vectors.counts();
    return this.#vectors.model === this.#options.choice.model ? counts : { ...counts, done: 0 };
  }

  #enter(phase: EmbeddingState['phase']): void {
    const now = performance.now();
    const changed = phase !== this.#phase;
    this.#phase = phase;
    if (!changed && now - this.#toldMs < limits.repository.stateMs) return;
    this.#counts = this.#count();
    this.#toldMs = now;
    this.#options.onChange();
  }
}

/** Computes vectors of texts. Passed in by the caller, because this folder knows no models. */
export interface Embedder {
  /** Values of a vector. */
  readonly dimensions: number;
  /** A unit vector. Cuts a text that is too long for the model. @throws HearthError `cancelled`, and what the model throws. */
  document(text: string, signal: AbortSignal): Promise<Float32Array>;
  /** Goes before the documents that wait. */
  question(text: string): Promise<Float32Array>;
  close(): Promise<void>;
}

export interface EmbedderChoice {
  /** Names the model: the vectors of another one are thrown away. */
  readonly model: string;
  /** Called when there is something to embed. */
  readonly open: (signal: AbortSignal) => Promise<Embedder>;
}
