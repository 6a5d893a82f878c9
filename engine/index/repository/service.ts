/** The indexer as its process offers it: one repository, opened on request. It knows no wire. */
import type { z } from 'zod';
import { HearthError } from '../../errors.ts';
import type { IndexRequests, IndexState, openParams } from '../../protocol/indexProtocol.ts';
import type { Implementation } from '../../protocol/rpc.ts';
import { removeDatabase } from './database.ts';
import type { EmbedderChoice } from './embeddings.ts';
import { Repository } from './repository.ts';

export class IndexService {
  readonly #onState: (state: IndexState) => void;
  readonly #openEmbedder: (model: string, signal: AbortSignal) => ReturnType<EmbedderChoice['open']>;
  #options: z.output<typeof openParams> | undefined;
  #repository: Repository | undefined;

  constructor(
    onState: (state: IndexState) => void,
    openEmbedder: (model: string, signal: AbortSignal) => ReturnType<EmbedderChoice['open']>,
  ) {
    this.#onState = onState;
    this.#openEmbedder = openEmbedder;
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
        meaning ? this.repository.searchByMeaning(question, limit) : this.repository.search(question, limit),
      symbols: ({ name, limit }) => this.repository.symbols(name, limit),
      outline: ({ path }) => this.repository.outline(path),
      map: (params) => this.repository.map(params),
      update: ({ paths }) => act(({ indexer }) => indexer.update(paths))(),
      rescan: act(({ indexer }) => indexer.rescan()),
      pause: act((repository) => repository.pause()),
      resume: act((repository) => repository.resume()),
    };
  }

  async open(options: z.output<typeof openParams>): Promise<IndexState> {
    await this.close();
    this.#options = options;
    const onDamage = () => void this.rebuild().catch(() => undefined);
    this.#repository = await Repository.open({ ...options, onState: this.#onState, onDamage });
    this.#repository.indexer.rescan();
    const model = options.embeddings?.model;
    if (model !== undefined) {
      this.#repository.useEmbeddings({ model, open: (signal) => this.#openEmbedder(model, signal) });
    }
    return this.#repository.state;
  }

  async rebuild(): Promise<IndexState> {
    if (!this.#options) return this.repository.state;
    await this.close();
    removeDatabase(this.#options.database);
    return this.open(this.#options);
  }

  async close(): Promise<void> {
    const repository = this.#repository;
    this.#repository = undefined;
    await repository?.close();
  }
}
