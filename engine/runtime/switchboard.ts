/**
 * Sends requests to the local chat model or to the remote server, whichever was loaded or connected last; completions to
 * the local completion model if there is one.
 */
import type { z } from 'zod';
import { cancelled } from '../errors.ts';
import type {
  connectParams,
  EngineStatus,
  loadParams,
  ModelCard,
  RemoteModel,
  RemoteServerParams,
  unloadParams,
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
    if (params.role === 'chat') this.#forgetRemote();
    return this.engine.load(params, signal);
  }

  /** Unloads the local chat model first. After a failed connection no model is available. */
  async connect(params: z.output<typeof connectParams>, signal?: AbortSignal): Promise<ModelCard> {
    const turn = this.#forgetRemote();
    await this.engine.unload({ role: 'chat' });
    // Loaded on demand, because most users never connect.
    const { RemoteEngine } = await import('./remote/remoteEngine.ts');
    const remote = await RemoteEngine.connect(params, this.#options, signal);
    if (turn !== this.#turn) throw cancelled('Another model was requested in the meantime.');
    this.#remote = remote;
    return remote.card;
  }

  async unload(params: z.output<typeof unloadParams> = {}): Promise<void> {
    if (params.role !== 'completion') this.#forgetRemote();
    await this.engine.unload(params);
  }

  #forgetRemote(): number {
    this.#remote = undefined;
    return ++this.#turn;
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
    const isRemote = params.kind === 'completion' ? this.completer !== this.engine : this.#remote !== undefined;
    if (isRemote) return { promptTokens: 0, cachedTokens: 0, finish: 'stop' };
    return this.engine.warm(params, signal);
  }

  /** The engine for requests that both can answer. */
  get answerer(): Pick<Engine, 'chat' | 'summarise' | 'countTokens'> {
    return this.#remote ?? this.engine;
  }

  get completer(): Pick<Engine, 'complete'> {
    return this.engine.hasRole('completion') ? this.engine : (this.#remote ?? this.engine);
  }
}
