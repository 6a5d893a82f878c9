/** Sends requests to the local model or to the remote server, whichever was loaded or connected last. */
import type { z } from 'zod';
import { cancelled } from '../errors.ts';
import type {
  connectParams,
  EngineStatus,
  loadParams,
  ModelCard,
  RemoteModel,
  RemoteServerParams,
  WarmResult,
  warmParams,
} from '../protocol/engineProtocol.ts';
import type { RemoteEngine, RemoteOptions } from './remote/remoteEngine.ts';
import type { Engine } from './service.ts';

export class Switchboard {
  readonly engine: Engine;
  readonly #options: RemoteOptions;
  #remote: RemoteEngine | undefined;
  /** Numbers loads and connections; the latest one wins. */
  #turn = 0;

  constructor(engine: Engine, options: RemoteOptions) {
    this.engine = engine;
    this.#options = options;
  }

  async load(params: z.output<typeof loadParams>, signal?: AbortSignal): Promise<ModelCard> {
    this.#turn++;
    this.#remote = undefined;
    return this.engine.load(params, signal);
  }

  /** Unloads the local model first. After a failed connection no model is available. */
  async connect(params: z.output<typeof connectParams>, signal?: AbortSignal): Promise<ModelCard> {
    const turn = ++this.#turn;
    this.#remote = undefined;
    await this.engine.unload();
    // Loaded on demand, because most users never connect.
    const { RemoteEngine } = await import('./remote/remoteEngine.ts');
    const remote = await RemoteEngine.connect(params, this.#options, signal);
    if (turn !== this.#turn) throw cancelled('Another model was requested in the meantime.');
    this.#remote = remote;
    return remote.card;
  }

  async unload(): Promise<void> {
    this.#turn++;
    this.#remote = undefined;
    await this.engine.unload();
  }

  async remoteModels(server: RemoteServerParams, signal?: AbortSignal): Promise<RemoteModel[]> {
    const { RemoteServer } = await import('./remote/server.ts');
    const models = await new RemoteServer(server).models(signal);
    return models.map(({ id, contextTokens }) => ({ id, ...(contextTokens !== undefined && { contextTokens }) }));
  }

  status(): EngineStatus {
    const status = this.engine.status();
    return this.#remote === undefined ? status : { ...status, state: 'ready', model: this.#remote.card };
  }

  /** A remote server manages its own cache, so there is no warm-up. */
  async warm(params: z.output<typeof warmParams>, signal?: AbortSignal): Promise<WarmResult> {
    if (this.#remote) return { promptTokens: 0, cachedTokens: 0, finish: 'stop' };
    return this.engine.warm(params, signal);
  }

  /** The engine for requests that both can answer. */
  get answerer(): Pick<Engine, 'chat' | 'complete' | 'summarise' | 'countTokens'> {
    return this.#remote ?? this.engine;
  }
}
