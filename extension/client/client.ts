import * as vscode from 'vscode';
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
  engineNodeOptions,
  engineRequests,
  type HubOffer,
  type LoadParams,
  type ModelCard,
  type ModelChange,
  type ModelEntry,
  type Progress,
  type RemoteModel,
  type RemoteServerParams,
  type ServerAddress,
  type StartServerParams,
  type Statistics,
  type SummariseParams,
  type SummariseResult,
  type WarmParams,
} from '../../engine/protocol/engineProtocol.ts';
import { type Client, Streams } from '../../engine/protocol/rpc.ts';
import type { Log } from '../log.ts';
import { chooseCompletionModel, chooseModel } from '../models/choose.ts';
import { hostOf, hubAddress } from '../remote.ts';
import { type EngineSettings, engineSettings, type RemoteSettings, remoteSettings } from '../settings.ts';
import { done } from '../walkthrough.ts';
import type { Launch } from './connection.ts';
import { EngineFailure, isCancelled, sentence } from './failure.ts';
import { EngineProcess, type ProcessState } from './process.ts';
import { downloading, type EngineState, type EngineView, stateOf, ViewKeeper } from './view.ts';

/** Parameters of a streaming request without the stream's name, which the client chooses. */
export type Unnamed<Params> = Omit<Params, 'stream'>;

export interface StreamHandlers {
  onDelta(piece: Delta): void;
  onProgress?(step: Progress): void;
}

/** The stored token of a remote server, if any. */
export type TokenFor = (url: string) => Promise<string | undefined>;

/** Id prefix of a remote server's model. */
const remoteId = 'remote:';

interface Wanted {
  settings: EngineSettings;
  remote: RemoteSettings | undefined;
}

const wanted = (): Wanted => ({ settings: engineSettings(), remote: remoteSettings() });

/** Identifies the model that the settings choose. */
const choiceOf = ({ settings, remote }: Wanted): string => JSON.stringify([settings.model, remote]);

interface LocalModel {
  readonly load: LoadParams;
  readonly name: string;
}

interface Plan {
  readonly chat: LocalModel | RemoteSettings;
  /** The chat model's, if it is listed. */
  readonly entry: ModelEntry | undefined;
  readonly entries: readonly ModelEntry[];
  readonly completion: ReturnType<typeof chooseCompletionModel>;
}

interface Loading {
  readonly key: string;
  readonly card: Promise<ModelCard>;
  /** Resolves once completions can be asked for, which may be before the chat model is loaded. Never rejects. */
  readonly completion: Promise<ModelCard | undefined>;
}

/**
 * The engine as the rest of the extension sees it: requests that find a model loaded, and one view of what it is doing.
 * It decides which model is loaded (settings, what is on disk) and loads it again after a restart.
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
  readonly #downloads = new Map<string, (step: Progress) => void>();
  /** A local model requested by name. It overrides `choice` until the settings change. */
  #named: { model: string; choice: string } | undefined;
  /** The current or completed load and its key. */
  #loading: Loading | undefined;

  constructor(launch: () => Launch, log: Log, tokenFor: TokenFor = () => Promise.resolve(undefined)) {
    this.#log = log;
    this.#tokenFor = tokenFor;
    this.#process = new EngineProcess(
      () => ({ ...launch(), nodeOptions: [...inspectOptions(), ...engineNodeOptions] }),
      log,
    );
    this.#engine = this.#process.client(engineRequests);
    this.#process.listen(clientNotices, {
      delta: (piece) => {
        this.#streams.receiver(piece.stream)?.onDelta(piece);
        this.#completing.get(piece.stream)?.(piece.text);
      },
      progress: (step) => this.#onProgress(step),
      modelChange: (change) => this.#onModelChange(change),
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
    return this.#state.kind === 'ready' ? this.#state.card : undefined;
  }

  /** The loaded model that completes: its own, or the chat model. */
  get completionModel(): ModelCard | undefined {
    const { completion } = this.view;
    return completion && 'card' in completion ? completion.card : this.warmModel;
  }

  /**
   * Makes sure that the chosen model is loaded. Fails with code `no-model` when there is none on this machine, and with
   * the engine's own failure when it cannot be loaded. Calls that ask for the same share one load.
   */
  ready(): Promise<ModelCard> {
    const now = wanted();
    if (this.#named?.choice !== choiceOf(now)) this.#named = undefined;
    const key = JSON.stringify([now, this.#named?.model]);
    if (this.#loading?.key === key) return this.#loading.card;
    const plan = this.#plan();
    const completion = plan.then(
      (found) => this.#loadCompletion(found.completion),
      () => undefined,
    );
    // The model that completes comes first: it is small, and the chat model takes what memory is left.
    const card = completion.then(async () => this.#load(await plan));
    this.#loading = { key, card, completion };
    card.catch(() => {
      if (this.#loading?.card === card) this.#loading = undefined;
    });
    return card;
  }

  /** The model that completes: its own, or the chat model. @throws EngineFailure as `ready` */
  async #readyToComplete(): Promise<ModelCard> {
    const card = this.ready();
    // Its failure is reported below if there is no other model.
    card.catch(() => {});
    return (await this.#loading?.completion) ?? card;
  }

  /** Loads a model chosen elsewhere in VS Code, which answers all requests from then on. */
  async use(model: string): Promise<ModelCard> {
    if (model.startsWith(remoteId)) return this.#useRemote(model);
    if (this.warmModel?.id === model) return this.ready();
    this.#named = { model, choice: choiceOf(wanted()) };
    try {
      return await this.ready();
    } catch (error) {
      this.#named = undefined;
      throw error;
    }
  }

  /** Loads the model of changed settings if one was requested before. */
  async reload(): Promise<void> {
    if (this.#state.kind !== 'idle') await this.ready();
  }

  /** After a changed address or token. */
  async reconnect(): Promise<void> {
    this.#loading = undefined;
    await this.ready();
  }

  remoteModels(server: RemoteServerParams): Promise<RemoteModel[]> {
    return this.#engine.remoteModels(server);
  }

  /** For other programs of this computer. */
  startServer(params: StartServerParams): Promise<ServerAddress> {
    return this.#engine.startServer(params);
  }

  async stopServer(): Promise<void> {
    await this.#engine.stopServer();
  }

  /** @param onText is called with pieces of the model's text, before it is cut. */
  async complete(
    params: CompleteParams,
    token: CancellationToken,
    onText: (text: string) => void = () => {},
  ): Promise<CompleteResult> {
    await this.#readyToComplete();
    const own = this.completionModel?.id === this.warmModel?.id;
    const stream = `completion-${++this.#completions}`;
    this.#completing.set(stream, onText);
    try {
      return await this.#counting(() => this.#engine.complete({ ...params, stream }, token), own);
    } finally {
      this.#completing.delete(stream);
    }
  }

  /** Does nothing while no model is loaded: a warm-up is not worth loading one. @returns whether all was read. */
  async warm(params: WarmParams, token: CancellationToken): Promise<boolean> {
    const model = params.kind === 'completion' ? this.completionModel : this.warmModel;
    if (model === undefined || this.view.running > 0) return false;
    const { promptTokens, cachedTokens, finish } = await this.#engine.warm(params, token);
    this.#log.debug(`Warm-up: ${promptTokens} tokens, ${cachedTokens} cached, ${finish}.`);
    return finish === 'length';
  }

  async chat(params: Unnamed<ChatParams>, handlers: StreamHandlers, token: CancellationToken): Promise<ChatResult> {
    const answer = await this.#streaming(handlers, (stream) => this.#engine.chat({ ...params, stream }, token));
    if (answer.finish !== 'cancelled') done('hasAsked');
    return answer;
  }

  async summarise(
    params: Unnamed<SummariseParams>,
    handlers: StreamHandlers,
    token: CancellationToken,
  ): Promise<SummariseResult> {
    const summary = await this.#streaming(handlers, (stream) => this.#engine.summarise({ ...params, stream }, token));
    done('hasSummarised');
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

  /** Downloads, or resumes; `onStep` gets the progress. */
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
      const offers = before.kind === 'no-model' ? before.offers.filter(({ id }) => id !== entry.id) : [];
      if (!isCancelled(error)) after = { kind: 'no-model', offers: [entry, ...offers], problem: sentence(error) };
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
      this.#loading = undefined;
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
    this.#loading = undefined;
    await this.#process.restart();
    await this.ready();
  }

  async stop(): Promise<void> {
    this.#loading = undefined;
    await this.#process.stop();
  }

  dispose(): void {
    this.#process.dispose();
    this.#shown.dispose();
  }

  /** What to load. @throws EngineFailure `no-model`, `not-found` */
  async #plan(): Promise<Plan> {
    const remote = this.#named === undefined ? remoteSettings() : undefined;
    try {
      const entries = await this.models();
      const chat = remote ?? this.#chosenModel(entries);
      const entry = 'load' in chat ? entries.find(({ id }) => id === chat.load.model) : undefined;
      return {
        chat,
        entry,
        entries,
        completion: chooseCompletionModel(engineSettings().completionModel, entry, entries),
      };
    } catch (error) {
      this.#showLoadFailure(error);
      throw error;
    }
  }

  async #load(plan: Plan): Promise<ModelCard> {
    const { chat, entry, entries, completion } = plan;
    try {
      const card = 'load' in chat ? await this.#loadHere(chat) : await this.#connect(chat);
      this.#logCard(card);
      this.#shown.show({ kind: 'ready', card });
      // Whether a file or a server's model fills in is known only now.
      if (completion === undefined && entry === undefined)
        await this.#loadCompletion(chooseCompletionModel(engineSettings().completionModel, card, entries));
      return card;
    } catch (error) {
      this.#showLoadFailure(error);
      throw error;
    }
  }

  async #loadHere({ load, name }: LocalModel): Promise<ModelCard> {
    // Another model replaces the one that answers now.
    await this.#shown.untilIdle();
    this.#shown.show({ kind: 'loading', name, done: 0, total: 0 });
    return this.#engine.load(load);
  }

  /** Without one, or if it fails, the chat model completes. */
  async #loadCompletion(choice: ReturnType<typeof chooseCompletionModel>): Promise<ModelCard | undefined> {
    const before = this.view.completion;
    if (choice === undefined) {
      if (before && 'card' in before) await this.#engine.unload({ role: 'completion' });
      this.#shown.showCompletion(undefined);
      return undefined;
    }
    try {
      if (choice.kind === 'unknown') throw notFound('hearth.completion.model', choice.model);
      if (choice.kind === 'download') throw notDownloaded(choice.offers);
      const card = await this.#engine.load({ ...loadParams(choice.model), role: 'completion' });
      this.#logCard(card);
      this.#shown.showCompletion({ card });
      return card;
    } catch (error) {
      this.#log.error(`Loading the model for completions: ${sentence(error)}`);
      this.#shown.showCompletion({ problem: sentence(error) });
      return undefined;
    }
  }

  async #connect({ url, model }: RemoteSettings): Promise<ModelCard> {
    const { contextTokens } = engineSettings();
    const token = await this.#tokenFor(url);
    await this.#process.start();
    await this.#shown.untilIdle();
    this.#shown.show({ kind: 'connecting', host: hostOf(url) });
    const params = {
      ...{ url, ...(model !== undefined && { model }) },
      ...(token !== undefined && { token }),
      ...(contextTokens !== undefined && { contextTokens }),
    };
    return this.#engine.connect(params);
  }

  /** @throws EngineFailure `not-found` when the settings name another server by now. */
  async #useRemote(model: string): Promise<ModelCard> {
    this.#named = undefined;
    const card = await this.ready();
    if (card.id === model) return card;
    throw new EngineFailure('not-found', vscode.l10n.t('The settings now name another server or model.'));
  }

  #chosenModel(entries: readonly ModelEntry[]): LocalModel {
    const settings = engineSettings();
    const choice = chooseModel(this.#named?.model ?? settings.model, entries);
    if (choice.kind === 'unknown') throw notFound('hearth.chat.model', choice.model);
    if (choice.kind === 'download') {
      this.#shown.show({ kind: 'no-model', offers: choice.offers });
      throw new EngineFailure('no-model', vscode.l10n.t('There is no model on this computer yet.'));
    }
    const { contextTokens } = settings;
    const load = { ...loadParams(choice.model), ...(contextTokens !== undefined && { contextTokens }) };
    return { load, name: choice.name };
  }

  #showLoadFailure(error: unknown): void {
    const code = error instanceof EngineFailure ? error.code : 'internal';
    // The view already says these: what to download, or that the process is being started again.
    if (code === 'no-model' || code === 'engine-ended' || code === 'engine-given-up') return;
    this.#log.error(`Loading the model: ${sentence(error)}`);
    const again = code === 'internal' || code === 'device-lost' || remoteSettings() !== undefined;
    const remedy = again && code !== 'not-found' ? 'restart' : 'choose-model';
    this.#shown.show({ kind: 'failed', message: sentence(error), remedy });
  }

  async #generating<T extends { statistics: Statistics }>(run: () => Promise<T>): Promise<T> {
    await this.ready();
    return this.#counting(run);
  }

  /** `ofChat`: by the model that answers questions, whose figures are shown. */
  async #counting<T extends { statistics: Statistics }>(run: () => Promise<T>, ofChat = true): Promise<T> {
    this.#shown.count(1);
    let last: Statistics | undefined;
    try {
      const result = await run();
      if (ofChat && result.statistics.generatedTokens > 0) last = result.statistics;
      if (ofChat) this.#shown.showAway(undefined);
      return result;
    } catch (error) {
      const isAway = error instanceof EngineFailure && error.code === 'unavailable';
      if (ofChat && isAway && this.warmModel?.host !== undefined) this.#shown.showAway(sentence(error));
      if (!isCancelled(error)) this.#log.warn(`A request failed: ${sentence(error)}`);
      throw error;
    } finally {
      this.#shown.count(-1, last);
    }
  }

  #streaming<T extends { statistics: Statistics }>(
    handlers: StreamHandlers,
    run: (stream: string) => Promise<T>,
  ): Promise<T> {
    return this.#streams.with(handlers, (stream) => this.#generating(() => run(stream)));
  }

  #onProgress(step: Progress): void {
    if (step.task === 'summarise') this.#streams.receiver(step.subject)?.onProgress?.(step);
    else if (step.task === 'load') this.#onLoadStep(step);
    else this.#downloads.get(step.subject)?.(step);
  }

  /** After device loss, the card names the new backend. */
  #onModelChange({ message, card }: ModelChange): void {
    this.#log.warn(message);
    this.#logCard(card);
    if (this.completionModel?.id === card.id && this.warmModel?.id !== card.id) {
      this.#shown.showCompletion({ card });
      return;
    }
    if (this.#loading) this.#loading = { ...this.#loading, card: Promise.resolve(card) };
    if (this.#state.kind !== 'ready') return;
    if (card.backend !== this.#state.card.backend) void vscode.window.showWarningMessage(message);
    this.#shown.show({ kind: 'ready', card });
  }

  #logCard(card: ModelCard): void {
    for (const note of card.notes) this.#log.info(`${card.name}: ${note}`);
    const where = card.host ?? `'${card.backend}'`;
    this.#log.info(`${card.name} is ready on ${where} with ${card.contextTokens} tokens of context.`);
  }

  #onLoadStep(step: Progress): void {
    if (this.#state.kind !== 'loading') return;
    this.#shown.show({ ...this.#state, done: step.done, total: step.total });
  }

  #onProcess(state: ProcessState): void {
    const shown = stateOf(state, this.#state);
    if (shown) this.#shown.show(shown);
    if (state.kind === 'waiting') this.#loadAgain();
    if (state.kind === 'starting' || state.kind === 'running') return;
    this.#loading = undefined;
    this.#shown.showCompletion(undefined);
  }

  /** Loads the model into the restarted process. Requests meanwhile share this load. */
  #loadAgain(): void {
    this.#loading = undefined;
    queueMicrotask(() => {
      this.ready().catch((error: unknown) => this.#log.debug(`Loading after a restart: ${sentence(error)}`));
    });
  }
}

/** A download that fails at once was never shown. */
const isAboutDownload = ({ kind }: EngineState): boolean =>
  kind === 'downloading' || kind === 'no-model' || kind === 'idle';

function loadParams(model: string): LoadParams {
  const { backend, cachePrecision, diskCacheBytes, threads } = engineSettings();
  return { model, backend, cachePrecision, diskCacheBytes, ...(threads !== undefined && { threads }) };
}

const notFound = (setting: string, model: string): EngineFailure =>
  new EngineFailure(
    'not-found',
    vscode.l10n.t('The setting "{0}" names "{1}", which is neither a known model nor a file.', setting, model),
  );

const notDownloaded = ([entry]: readonly ModelEntry[]): EngineFailure =>
  new EngineFailure(
    'no-model',
    vscode.l10n.t('{0} is not on this computer yet. Download it under Models.', entry?.name ?? ''),
  );

/** For developers: `HEARTH_INSPECT=PORT` opens the engine to a debugger on loopback (the launch configuration *Engine*). */
function inspectOptions(): string[] {
  const port = Number(process.env['HEARTH_INSPECT']);
  return Number.isInteger(port) && port > 0 ? [`--inspect=127.0.0.1:${port}`] : [];
}
