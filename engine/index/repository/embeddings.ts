/**
 * Embeds every chunk in the background, one after the other, while no file waits to be indexed. Each vector is stored
 * at once, so a pause, a restart or a killed process loses at most the current chunk.
 */

import type { DatabaseSync } from 'node:sqlite';
import { setImmediate as turn } from 'node:timers/promises';
import { HearthError } from '../../errors.ts';
import { limits } from '../../limits.ts';
import type { IndexState } from '../../protocol/indexProtocol.ts';
import { damageMessage, isDamage } from './database.ts';
import { type ChunkPlace, type Near, Vectors } from './vectors.ts';

/** Progress of the embeddings. */
type EmbeddingState = NonNullable<IndexState['embeddings']>;

interface EmbeddingsOptions {
  readonly choice: EmbedderChoice;
  /** Text of a file; undefined if it is gone. */
  readonly read: (path: string) => string | undefined;
  /** Resolves when no file waits to be indexed. */
  readonly indexed: () => Promise<void>;
  readonly onChange: () => void;
  /** The database is damaged and must be rebuilt. */
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
  /** Aborts the current chunk. */
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

  /**
   * Call when there may be new chunks. They are embedded after the current pass. After a failure, does nothing until
   * `resume`.
   */
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

  /** Resolves when everything is done, paused or failed. */
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

  /** Resolves when questions can be embedded, or the model could not be loaded. */
  async opened(): Promise<void> {
    await this.#open().catch((error: unknown) => this.#fail(error));
  }

  /**
   * The chunks closest in meaning to a question, best first. None while the model is loading: a search doesn't wait for
   * it.
   */
  async nearest(question: string, limit: number): Promise<Near[]> {
    if (!this.#ready) return [];
    try {
      return await this.#vectors.nearest(await this.#ready.question(question), limit);
    } catch (error) {
      // Keyword search still works; the state says why embedding search doesn't.
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
      // A damaged database can't be counted.
      if (isDamage(error)) return;
    }
    this.#enter(this.#paused ? 'paused' : this.#problem === undefined ? 'idle' : 'failed');
  }

  /** The next run retries a failed load. */
  #open(): Promise<Embedder> {
    if (!this.#ready) this.#enter('loading');
    this.#embedder ??= this.#options.choice.open(this.#closing.signal).then(
      (embedder) => {
        // Only after the load: a missing model must not delete the vectors of another one.
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

  /** One pass over all chunks. A new chunk has a larger id than the last one, or the indexer starts another pass. */
  async #pass(embedder: Embedder, signal: AbortSignal): Promise<void> {
    for (let after = -1; !signal.aborted; ) {
      // Thousands of known vectors in a row must not delay a question.
      await turn();
      await this.#options.indexed();
      const chunk = this.#vectors.missingAfter(after);
      if (!chunk) return;
      after = chunk.id;
      this.#enter('embedding');
      const text = this.#textOf(chunk);
      if (text === undefined || this.#vectors.assignKnown(chunk.id, text, embedder.dimensions)) continue;
      const vector = await embedder.document(text, signal);
      // In the meantime the file may have been indexed again, and the id may belong to another chunk.
      if (this.#textOf(chunk) === text && this.#isStill(chunk)) this.#vectors.put(chunk.id, text, vector);
    }
  }

  #isStill({ id, path, firstLine, lastLine }: ChunkPlace): boolean {
    const now = this.#vectors.missingAfter(id - 1);
    return now?.id === id && now.path === path && now.firstLine === firstLine && now.lastLine === lastLine;
  }

  /** Text to embed: with the path, which says much about the code. */
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

/** Computes vectors of texts. Passed in by the caller, because this folder doesn't depend on models. */
export interface Embedder {
  /** Length of a vector. */
  readonly dimensions: number;
  /**
   * A unit vector. Cuts a text that is too long for the model. @throws HearthError `cancelled`, and errors of the
   * model.
   */
  document(text: string, signal: AbortSignal): Promise<Float32Array>;
  /** Runs before waiting documents. */
  question(text: string): Promise<Float32Array>;
  close(): Promise<void>;
}

export interface EmbedderChoice {
  /** Identifies the model: vectors of another model are deleted. */
  readonly model: string;
  /** Called when there is something to embed. */
  readonly open: (signal: AbortSignal) => Promise<Embedder>;
}
