/** The index of a workspace: keeps it up to date and searches it for chunks, symbols and a map. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import type { z } from 'zod';
import { HearthError } from '../../errors.ts';
import { limits } from '../../limits.ts';
import type { IndexRequests, IndexState, openParams } from '../../protocol/indexProtocol.ts';
import type { Implementation } from '../../protocol/rpc.ts';
import { damageMessage, isDamage, isDamageAtOpening, openDatabase, removeDatabase, setAside } from './database.ts';
import { type EmbedderChoice, Embeddings } from './embeddings.ts';
import { type Folder, Roots } from './ignored.ts';
import { Indexer, textOf } from './indexer.ts';
import { type MapRequest, Names, type Reference, type RepositoryMap, repositoryMap, type SymbolPlace } from './map.ts';
import { salvageVectors } from './salvage.ts';
import { ChunkSearch, type Hit } from './search.ts';
import { Vectors } from './vectors.ts';

export interface RepositoryOptions {
  /** The database's file. */
  readonly database: string;
  readonly folders: readonly Folder[];
  /** Globs as in VS Code's `files.exclude`. */
  readonly excludes?: readonly string[];
  readonly onState?: (state: IndexState) => void;
  /** The database is damaged and must be rebuilt. */
  readonly onDamage?: () => void;
  /** The model of the vectors in a damaged database, if its own record of the model is lost. */
  readonly embeddingModel?: string | undefined;
  /** Called with the number of vectors recovered from a damaged database. */
  readonly onSalvage?: (vectors: number) => void;
}

/** A hit with its current text on disk. */
export type Passage = Hit;

export class Repository {
  readonly indexer: Indexer;
  readonly #database: DatabaseSync;
  readonly #roots: Roots;
  readonly #search: ChunkSearch;
  readonly #names: Names;
  readonly #onState: (state: IndexState) => void;
  readonly #onDamage: () => void;
  #embeddings: Embeddings | undefined;
  #closed: Promise<void> | undefined;

  /** @throws HearthError `unsupported` if Node.js has no SQLite; `unavailable` if the file cannot be opened now. */
  static async open(options: RepositoryOptions): Promise<Repository> {
    try {
      return await Repository.#opened(options);
    } catch (error) {
      if (!isDamageAtOpening(error)) throw error;
      setAside(options.database);
      return Repository.#opened(options);
    }
  }

  static async #opened(options: RepositoryOptions): Promise<Repository> {
    const database = await openDatabase(options.database);
    try {
      const kept = await salvageVectors(database, options.database, options.embeddingModel);
      if (kept !== undefined) options.onSalvage?.(kept);
      const repository = new Repository(database, options);
      // Reading the model's name detects damage to it.
      void repository.embeddingModel;
      return repository;
    } catch (error) {
      database.close();
      throw error;
    }
  }

  private constructor(
    database: DatabaseSync,
    { folders, excludes = [], onState = () => {}, onDamage = () => {} }: RepositoryOptions,
  ) {
    this.#database = database;
    this.#roots = new Roots(folders, excludes);
    this.#onState = onState;
    this.#onDamage = onDamage;
    this.indexer = new Indexer(
      database,
      this.#roots,
      ({ phase }) => {
        onState(this.state);
        if (phase === 'idle') this.#embeddings?.start();
      },
      onDamage,
    );
    this.#search = new ChunkSearch(database, (path) => this.#read(path));
    this.#names = new Names(database, (path) => this.#read(path));
  }

  get state(): IndexState {
    return { ...this.indexer.state, ...(this.#embeddings && { embeddings: this.#embeddings.state }) };
  }

  /** The model of the stored vectors. */
  get embeddingModel(): string | undefined {
    return new Vectors(this.#database).model;
  }

  /** Embeds chunks with this model from now on. Deletes the vectors of another model. */
  useEmbeddings(choice: EmbedderChoice): void {
    if (this.#embeddings) throw new Error('An embedding model was chosen already.');
    this.#embeddings = new Embeddings(this.#database, {
      choice,
      read: (path) => this.#read(path),
      indexed: () => this.indexer.settled(),
      onChange: () => this.#onState(this.state),
      onDamage: this.#onDamage,
    });
    this.#embeddings.start();
  }

  /** Resolves when embedding search works, or has failed. Chunks may still be waiting for their vectors. */
  async embeddingsOpened(): Promise<void> {
    await this.#embeddings?.opened();
  }

  /** Deletes all vectors. */
  forgetEmbeddings(): void {
    new Vectors(this.#database).belongTo(undefined);
  }

  pause(): void {
    this.indexer.pause();
    this.#embeddings?.pause();
  }

  resume(): void {
    this.indexer.resume();
    this.#embeddings?.resume();
  }

  /** Resolves when everything is done, or it is paused. */
  async settled(): Promise<void> {
    await this.indexer.settled();
    await this.#embeddings?.settled();
  }

  /** Keyword search. The best first; at most three of one file. Omits files that are gone from disk. */
  search(question: string, limit: number): Passage[] {
    return this.#search.search(question, limit);
  }

  /** Keyword and embedding search if there are vectors; else like `search`. */
  async searchByMeaning(question: string, limit: number): Promise<Passage[]> {
    const near = (await this.#embeddings?.nearest(question, limits.repository.rereadChunks)) ?? [];
    return this.#search.search(question, limit, near);
  }

  symbols(text: string, limit: number): SymbolPlace[] {
    return this.#names.symbols(text, limit);
  }

  definitions(name: string, limit: number): SymbolPlace[] {
    return this.#names.definitions(name, limit);
  }

  outline(path: string): SymbolPlace[] {
    return this.#names.outline(path);
  }

  references(name: string, limit: number): Promise<Reference[]> {
    return this.#names.references(name, limit);
  }

  map(request: MapRequest): RepositoryMap {
    return repositoryMap(this.#database, this.#names, request);
  }

  close(): Promise<void> {
    this.#closed ??= this.#end();
    return this.#closed;
  }

  async #end(): Promise<void> {
    await this.#embeddings?.close();
    await this.indexer.close();
    this.#database.close();
  }

  #read(path: string): string | undefined {
    const place = this.#roots.locate(path);
    if (!place) return undefined;
    try {
      return textOf(readFileSync(join(place.root.directory, place.inside)));
    } catch {
      // Deleted since; the indexer will be notified.
      return undefined;
    }
  }
}

// The indexer that its process serves: one repository, opened on request. Independent of the transport.

export class IndexService {
  readonly #onState: (state: IndexState) => void;
  readonly #openEmbedder: (model: string, signal: AbortSignal) => ReturnType<EmbedderChoice['open']>;
  readonly #onSalvage: (vectors: number) => void;
  #options: z.output<typeof openParams> | undefined;
  #repository: Repository | undefined;
  #rebuilding: Promise<IndexState> | undefined;

  constructor(
    onState: (state: IndexState) => void,
    openEmbedder: (model: string, signal: AbortSignal) => ReturnType<EmbedderChoice['open']>,
    onSalvage: (vectors: number) => void = () => {},
  ) {
    this.#onState = onState;
    this.#openEmbedder = openEmbedder;
    this.#onSalvage = onSalvage;
  }

  get repository(): Repository {
    if (this.#repository) return this.#repository;
    throw new HearthError('unavailable', 'No folder is indexed yet; open one first.');
  }

  /** Answers to the requests of `indexProtocol.ts`. */
  implementation(): Implementation<IndexRequests> {
    const act = (run: (repository: Repository) => void) => (): null => {
      run(this.repository);
      return null;
    };
    return {
      open: (params) => this.open(params),
      state: () => this.repository.state,
      rebuild: () => this.rebuild(),
      search: ({ question, limit, meaning }) =>
        this.#ask((index) => (meaning ? index.searchByMeaning(question, limit) : index.search(question, limit))),
      symbols: ({ name, limit }) => this.#ask((index) => index.symbols(name, limit)),
      outline: ({ path }) => this.#ask((index) => index.outline(path)),
      map: (params) => this.#ask((index) => index.map(params)),
      update: ({ paths }) => act(({ indexer }) => indexer.update(paths))(),
      rescan: act(({ indexer }) => indexer.rescan()),
      pause: act((repository) => repository.pause()),
      resume: act((repository) => repository.resume()),
    };
  }

  async open(options: z.output<typeof openParams>): Promise<IndexState> {
    await this.close();
    this.#options = options;
    const model = options.embeddings?.model;
    this.#repository = await Repository.open({
      ...options,
      embeddingModel: model,
      onState: this.#onState,
      onDamage: () => this.#rebuildDamaged(),
      onSalvage: this.#onSalvage,
    });
    this.#repository.indexer.rescan();
    if (model !== undefined) {
      try {
        this.#repository.useEmbeddings({ model, open: (signal) => this.#openEmbedder(model, signal) });
      } catch (error) {
        if (!isDamage(error)) throw error;
        return this.#makeAnew(setAside);
      }
    }
    return this.#repository.state;
  }

  /** @throws HearthError `unavailable` if damage is found; the index is then rebuilt. */
  async #ask<Answer>(question: (repository: Repository) => Answer | Promise<Answer>): Promise<Answer> {
    const { repository } = this;
    try {
      return await question(repository);
    } catch (error) {
      if (!isDamage(error)) throw error;
      if (repository === this.#repository) this.#rebuildDamaged();
      throw new HearthError('unavailable', `${damageMessage} Ask again in a moment.`, { cause: error });
    }
  }

  #rebuildDamaged(): void {
    this.#rebuild(setAside).catch(() => undefined);
  }

  /** Recomputes everything, including vectors. Calls during a rebuild share its result. */
  rebuild(): Promise<IndexState> {
    return this.#rebuild(removeDatabase);
  }

  #rebuild(remove: (database: string) => void): Promise<IndexState> {
    this.#rebuilding ??= this.#makeAnew(remove).finally(() => {
      this.#rebuilding = undefined;
    });
    return this.#rebuilding;
  }

  async #makeAnew(remove: (database: string) => void): Promise<IndexState> {
    if (!this.#options) return this.repository.state;
    await this.close();
    remove(this.#options.database);
    return this.open(this.#options);
  }

  async close(): Promise<void> {
    const repository = this.#repository;
    this.#repository = undefined;
    await repository?.close();
  }
}
