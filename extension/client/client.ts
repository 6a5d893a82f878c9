import type { CancellationToken } from 'vscode-jsonrpc/node';
import {
  type ChatParams,
  type ChatResult,
  type ClearedCache,
  type CompleteParams,
  type CompleteResult,
  clientNotices,
  type Delta,
  type EngineRequests,
  engineRequests,
  type NextEditParams,
  type NextEditResult,
  type Progress,
  type ServerAddress,
  type StartServerParams,
  type Statistics,
  type SummariseParams,
  type SummariseResult,
  type WarmParams,
} from '../../engine/protocol/engineProtocol.ts';
import type { HubOffer, ModelCard, ModelEntry, RemoteModel, RemoteServerParams } from '../../engine/protocol/models.ts';
import { type Client, Streams } from '../../engine/protocol/rpc.ts';
import { tickStep } from '../models/choose.ts';
import type { Log } from '../parts.ts';
import { hubAddress } from '../servers.ts';
import { type Launch, sparing } from './connection.ts';
import { EngineFailure, isCancelled, sentence } from './failure.ts';
import { downloading, type EngineState, type EngineView, stateOf, ViewKeeper } from './host.ts';
import { ModelLoader, type TokenFor } from './modelLoader.ts';
import { EngineProcess, type ProcessState } from './process.ts';

/** Parameters of a streaming request without the stream's name, which the client chooses. */
export type Unnamed<Params> = Omit<Params, 'stream'>;

export interface StreamHandlers {
  onDelta(piece: Delta): void;
  onProgress?(step: Progress): void;
}

/**
 * The engine as the rest of the extension sees it: requests that find a model loaded, and one view of what it is doing.
 * `ModelLoader` decides which model is loaded.
 */
export class EngineClient {
  readonly #process: EngineProcess;
  readonly #engine: Client<EngineRequests, CancellationToken>;
  readonly #log: Log;
  readonly #tokenFor: TokenFor;
  readonly #shown = new ViewKeeper();
  readonly onView = this.#shown.onView;
  readonly #streams = new Streams<StreamHandlers>();
  readonly #completing = new Map<string, (text: string) => void>();
  #completions = 0;
  readonly #models: ModelLoader;
  readonly ready: ModelLoader['ready'];
  readonly #downloads = new Map<string, (step: Progress) => void>();
  constructor(launch: () => Launch, log: Log, tokenFor: TokenFor = () => Promise.resolve(undefined)) {
    this.#log = log;
    this.#tokenFor = tokenFor;
    this.#process = new EngineProcess(() => sparing(launch()), log);
    this.#engine = this.#process.client(engineRequests);
    const parts = { process: this.#process, engine: this.#engine, shown: this.#shown, log, tokenFor };
    this.#models = new ModelLoader(parts);
    this.ready = this.#models.ready;
    this.#process.listen(clientNotices, {
      delta: (piece) => {
        this.#streams.receiver(piece.stream)?.onDelta(piece);
        this.#completing.get(piece.stream)?.(piece.text);
      },
      progress: (step) => this.#onProgress(step),
      modelChange: (change) => this.#models.changed(change),
      modelsChanged: () => this.#onModelsChanged(),
      log: ({ line }) => log.warn(line),
    });
    this.#process.onState((state) => this.#onProcess(state));
  }

  get view(): EngineView {
    return this.#shown.view;
  }

  get #state(): EngineState {
    return this.view.state;
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  /** The loaded model, if any. */
  get warmModel(): ModelCard | undefined {
    return this.#models.warmModel;
  }

  /** The loaded model for completions: a separate one, or the chat model. */
  get completionModel(): ModelCard | undefined {
    return this.#models.completionModel;
  }

  /** The model for completions, which may be loaded before the chat model. Fails as `ready` does. */
  readyToComplete(): Promise<ModelCard> {
    return this.#models.readyToComplete();
  }

  /** Loads a model chosen elsewhere in VS Code, which answers all requests from then on. */
  use(model: string): Promise<ModelCard> {
    return this.#models.use(model);
  }

  /** Loads the model of changed settings if one was requested before. */
  async reload(): Promise<void> {
    if (this.#state.kind !== 'idle') await this.ready();
  }

  /** After a changed address or token. */
  async reconnect(): Promise<void> {
    this.#models.forget();
    await this.ready();
  }

  remoteModels(server: RemoteServerParams): Promise<RemoteModel[]> {
    return this.#engine.remoteModels(server);
  }

  /** Serves other programs on this computer. */
  startServer(params: StartServerParams): Promise<ServerAddress> {
    return this.#engine.startServer(params);
  }

  async stopServer(): Promise<void> {
    await this.#engine.stopServer();
  }

  /** @param onText gets the model's text piece by piece, before it is cut. */
  async complete(
    params: CompleteParams,
    token: CancellationToken,
    onText: (text: string) => void = () => {},
  ): Promise<CompleteResult> {
    await this.#models.readyToComplete();
    const stream = `completion-${++this.#completions}`;
    this.#completing.set(stream, onText);
    try {
      return await this.#counting(() => this.#engine.complete({ ...params, stream }, token), this.completionModel);
    } finally {
      this.#completing.delete(stream);
    }
  }

  /** Does nothing while no model is loaded; waits while another request runs. @returns undefined if the model is not sure enough */
  async nextEdit(params: NextEditParams, token: CancellationToken): Promise<NextEditResult['edit']> {
    if (this.completionModel === undefined) return undefined;
    const { edit } = await this.#engine.nextEdit(params, token);
    return edit;
  }

  /** Does nothing while no model is loaded: a warm-up is no reason to load one. @returns whether the whole prompt was prefilled. */
  async warm(params: WarmParams, token: CancellationToken): Promise<boolean> {
    const model = params.kind === 'completion' ? this.completionModel : this.warmModel;
    if (model === undefined || this.view.running > 0) return false;
    const { promptTokens, cachedTokens, finish } = await this.#engine.warm(params, token);
    this.#log.debug(`Warm-up: ${promptTokens} tokens, ${cachedTokens} cached, ${finish}.`);
    return finish === 'length';
  }

  async chat(params: Unnamed<ChatParams>, handlers: StreamHandlers, token: CancellationToken): Promise<ChatResult> {
    const answer = await this.#streaming(handlers, (stream) => this.#engine.chat({ ...params, stream }, token));
    if (answer.finish !== 'cancelled') tickStep('hasAsked');
    return answer;
  }

  async summarise(
    params: Unnamed<SummariseParams>,
    handlers: StreamHandlers,
    token: CancellationToken,
  ): Promise<SummariseResult> {
    const summary = await this.#streaming(handlers, (stream) => this.#engine.summarise({ ...params, stream }, token));
    tickStep('hasSummarised');
    return summary;
  }

  /** Ends the thinking of running answers. False if none is running. */
  answerNow(): boolean {
    const { names } = this.#streams;
    for (const stream of names) this.#process.notify('answerNow', { stream });
    return names.length > 0;
  }

  /** Counts the tokens of each text with the loaded model's tokenizer. */
  countTokens(texts: string[]): Promise<number[]> {
    return this.#engine.countTokens({ texts });
  }

  models(): Promise<ModelEntry[]> {
    return this.#engine.listModels();
  }

  /** The models of a repository on Hugging Face. */
  async hubOffers(repository: string): Promise<HubOffer[]> {
    return this.#engine.hubOffers({ repository, ...(await this.#hubToken()) });
  }

  async #hubToken(): Promise<{ token?: string }> {
    const token = await this.#tokenFor(hubAddress);
    return token === undefined ? {} : { token };
  }

  /** Downloads or resumes; `onStep` gets the progress. */
  async pull(entry: ModelEntry, onStep: (step: Progress) => void, token: CancellationToken): Promise<ModelEntry> {
    const before = this.#state;
    this.#downloads.set(entry.id, (step) => {
      onStep(step);
      if (this.warmModel === undefined) this.#shown.show(downloading(entry, step));
    });
    let after: EngineState = before;
    try {
      const pulled = await this.#engine.pullModel({ model: entry.id, ...(await this.#hubToken()) }, token);
      after = { kind: 'idle' };
      return pulled;
    } catch (error) {
      const offers = before.kind === 'no-model' ? before.offers : [];
      const failed = offers.find((offer) => offer.entry.id === entry.id) ?? { entry };
      const others = offers.filter((offer) => offer !== failed);
      if (!isCancelled(error)) after = { kind: 'no-model', offers: [failed, ...others], problem: sentence(error) };
      throw error;
    } finally {
      this.#downloads.delete(entry.id);
      if (this.warmModel === undefined && isAboutDownload(this.#state)) this.#shown.show(after);
    }
  }

  async verify(entry: ModelEntry, onStep: (step: Progress) => void, token: CancellationToken): Promise<ModelEntry> {
    this.#downloads.set(entry.id, onStep);
    try {
      return await this.#engine.verifyModel({ model: entry.id }, token);
    } finally {
      this.#downloads.delete(entry.id);
    }
  }

  async remove(entry: ModelEntry): Promise<ModelEntry> {
    if (this.warmModel?.id === entry.id || this.completionModel?.id === entry.id) {
      await this.#engine.unload({});
      this.#shown.showCompletion(undefined);
      this.#models.forget();
      this.#shown.show({ kind: 'idle' });
    }
    return this.#engine.removeModel({ model: entry.id });
  }

  /** Clears the prefix cache in memory and on disk. @returns the files and bytes removed from disk. */
  clearCache(): Promise<ClearedCache> {
    return this.#engine.clearCache();
  }

  /** Lines that explain a model, or compare several. */
  inspect(models: string[]): Promise<string> {
    return this.#engine.inspectModels({ models });
  }

  /** A fresh process, with the model loaded again. */
  async restart(): Promise<void> {
    this.#models.forget();
    await this.#process.restart();
    await this.ready();
  }

  async stop(): Promise<void> {
    this.#models.forget();
    await this.#process.stop();
  }

  dispose(): void {
    this.#process.dispose();
    this.#shown.dispose();
  }

  /** Shows statistics only for the model that answers questions. */
  async #counting<T extends { statistics: Statistics }>(run: () => Promise<T>, card = this.warmModel): Promise<T> {
    this.#shown.count(1);
    let last: Statistics | undefined;
    try {
      const result = await run();
      if (card?.id === this.warmModel?.id && result.statistics.generatedTokens > 0) last = result.statistics;
      if (card?.host !== undefined) this.#shown.showAway(undefined);
      return result;
    } catch (error) {
      const isAway = error instanceof EngineFailure && error.code === 'unavailable';
      if (isAway && card?.host !== undefined) this.#shown.showAway(sentence(error));
      if (!isCancelled(error)) this.#log.warn(`A request failed: ${sentence(error)}`);
      throw error;
    } finally {
      this.#shown.count(-1, last);
    }
  }

  async #streaming<T extends { statistics: Statistics }>(
    handlers: StreamHandlers,
    run: (stream: string) => Promise<T>,
  ): Promise<T> {
    const stream = this.#streams.open(handlers);
    try {
      await this.ready();
      return await this.#counting(() => run(stream));
    } finally {
      this.#streams.close(stream);
    }
  }

  #onProgress(step: Progress): void {
    if (step.task === 'summarise') this.#streams.receiver(step.subject)?.onProgress?.(step);
    else if (step.task === 'load') this.#models.loadStep(step);
    else (this.#downloads.get(step.subject) ?? this.#showOthersDownload)(step);
  }

  /** Another window's download, shown while this one waits for a model too. */
  readonly #showOthersDownload = (step: Progress): void => {
    const state = this.#state;
    if (state.kind !== 'no-model' && !(state.kind === 'downloading' && this.#downloads.size === 0)) return;
    const offered = state.kind === 'no-model' ? state.offers.find(({ entry }) => entry.id === step.subject) : undefined;
    const name = state.kind === 'downloading' ? state.name : (offered?.entry.name ?? step.subject);
    this.#shown.show({ kind: 'downloading', name, done: step.done, total: step.total });
  };

  /** A window that waits for a model looks again, whichever window downloaded one. */
  #onModelsChanged(): void {
    const { kind } = this.#state;
    if (this.#downloads.size > 0 || (kind !== 'no-model' && kind !== 'downloading')) return;
    this.#models.forget();
    this.ready().catch((error: unknown) => this.#log.debug(`Another window's download: ${sentence(error)}`));
  }

  #onProcess(state: ProcessState): void {
    const shown = stateOf(state, this.#state);
    if (shown) this.#shown.show(shown);
    if (state.kind === 'waiting') this.#models.loadAgain();
    if (state.kind === 'starting' || state.kind === 'running') return;
    this.#models.forget();
    this.#shown.showCompletion(undefined);
  }
}

/** A download that fails at once was never shown. */
const isAboutDownload = ({ kind }: EngineState): boolean =>
  kind === 'downloading' || kind === 'no-model' || kind === 'idle';
