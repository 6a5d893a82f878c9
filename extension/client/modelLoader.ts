/** Decides from the settings and the models on disk which models to load, and loads them. */
import * as vscode from 'vscode';
import type { CancellationToken } from 'vscode-jsonrpc/node';
import type { EngineRequests, Progress } from '../../engine/protocol/engineProtocol.ts';
import type { LoadParams, ModelCard, ModelChange, ModelEntry } from '../../engine/protocol/models.ts';
import type { Client } from '../../engine/protocol/rpc.ts';
import { limits } from '../limits.ts';
import { chooseCompletionModel, chooseModel, type Offer } from '../models/choose.ts';
import type { Log } from '../parts.ts';
import { hostOf } from '../servers.ts';
import { type EngineSettings, engineSettings, type RemoteSettings } from '../settings.ts';
import { EngineFailure, sentence } from './failure.ts';
import type { ViewKeeper } from './host.ts';
import type { EngineProcess } from './process.ts';

/** The stored token of a remote server, if any. */
export type TokenFor = (url: string) => Promise<string | undefined>;

/** Id prefix of a remote server's model. */
const remoteId = 'remote:';

/** Key of the model that the settings choose. */
const choiceOf = ({ model, remote }: EngineSettings): string => JSON.stringify([model, remote]);

interface LocalModel {
  readonly load: LoadParams;
  readonly name: string;
}

interface Plan {
  readonly chat: LocalModel | RemoteSettings;
  /** The chat model's entry, if it is listed. */
  readonly entry: ModelEntry | undefined;
  readonly entries: readonly ModelEntry[];
  readonly completion: ReturnType<typeof chooseCompletionModel>;
}

interface Loading {
  readonly key: string;
  readonly card: Promise<ModelCard>;
  /** Resolves once completions are possible, which may be before the chat model is loaded. Never rejects. */
  readonly completion: Promise<ModelCard | undefined>;
}

interface LoaderParts {
  readonly process: Pick<EngineProcess, 'start'>;
  readonly engine: Client<EngineRequests, CancellationToken>;
  readonly shown: ViewKeeper;
  readonly log: Log;
  readonly tokenFor: TokenFor;
}

export class ModelLoader {
  readonly #parts: LoaderParts;
  /** A local model requested by name. It overrides `choice` until the settings change. */
  #named: { model: string; choice: string } | undefined;
  /** The current or completed load and its key. */
  #loading: Loading | undefined;

  constructor(parts: LoaderParts) {
    this.#parts = parts;
  }

  get #shown(): ViewKeeper {
    return this.#parts.shown;
  }

  get #log(): Log {
    return this.#parts.log;
  }

  /** The loaded model, if any. */
  get warmModel(): ModelCard | undefined {
    const { state } = this.#shown.view;
    return state.kind === 'ready' ? state.card : undefined;
  }

  /** The loaded model for completions: a separate one, or the chat model. */
  get completionModel(): ModelCard | undefined {
    const { completion } = this.#shown.view;
    return completion && 'card' in completion ? completion.card : this.warmModel;
  }

  /**
   * Makes sure that the chosen model is loaded. Fails with code `no-model` if there is none on this machine, and with
   * the engine's own failure if it cannot be loaded. Calls for the same model share one load.
   */
  readonly ready = (): Promise<ModelCard> => {
    const settings = engineSettings();
    if (this.#named?.choice !== choiceOf(settings)) this.#named = undefined;
    const key = JSON.stringify([settings, this.#named?.model]);
    if (this.#loading?.key === key) return this.#loading.card;
    const plan = this.#plan();
    const completion = plan.then(
      (found) => this.#loadCompletion(found.completion),
      () => undefined,
    );
    // The completion model is loaded first: it is small, and the chat model takes the remaining memory.
    const card = completion.then(async () => this.#load(await plan));
    this.#loading = { key, card, completion };
    card.catch(() => {
      if (this.#loading?.card === card) this.#loading = undefined;
    });
    return card;
  };

  /** The model for completions: a separate one, or the chat model. @throws EngineFailure as `ready` */
  async readyToComplete(): Promise<ModelCard> {
    const card = this.ready();
    // Its failure is reported below if there is no other model.
    card.catch(() => {});
    return (await this.#loading?.completion) ?? card;
  }

  /** Loads a model chosen elsewhere in VS Code, which answers all requests from then on. */
  async use(model: string): Promise<ModelCard> {
    if (model.startsWith(remoteId)) return this.#useRemote(model);
    if (this.warmModel?.id === model) return this.ready();
    this.#named = { model, choice: choiceOf(engineSettings()) };
    try {
      return await this.ready();
    } catch (error) {
      this.#named = undefined;
      throw error;
    }
  }

  /** Loads the model of changed settings if one was requested before. */
  async reload(): Promise<void> {
    if (this.#shown.view.state.kind !== 'idle') await this.ready();
  }

  /** After a changed address or token. */
  async reconnect(): Promise<void> {
    this.#loading = undefined;
    await this.ready();
  }

  /** Decides what to load. @throws EngineFailure `no-model`, `not-found` */
  async #plan(): Promise<Plan> {
    const remote = this.#named === undefined ? engineSettings().remote : undefined;
    try {
      const entries = await this.#parts.engine.listModels();
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
      // Only now is it known whether a file or a server's model was trained to fill in code.
      if (completion === undefined && entry === undefined)
        await this.#loadCompletion(chooseCompletionModel(engineSettings().completionModel, card, entries));
      return card;
    } catch (error) {
      this.#showLoadFailure(error);
      throw error;
    }
  }

  async #loadHere({ load, name }: LocalModel): Promise<ModelCard> {
    // Another model replaces the current chat model.
    await this.#shown.untilIdle();
    this.#shown.show({ kind: 'loading', name, done: 0, total: 0 });
    return this.#parts.engine.load(load);
  }

  /** If there is none, or loading it fails, the chat model completes. */
  async #loadCompletion(choice: ReturnType<typeof chooseCompletionModel>): Promise<ModelCard | undefined> {
    const before = this.#shown.view.completion;
    if (choice === undefined) {
      if (before && 'card' in before) await this.#parts.engine.unload({ role: 'completion' });
      this.#shown.showCompletion(undefined);
      return undefined;
    }
    try {
      if (choice.kind === 'unknown') throw notFound('hearth.completion.model', choice.model);
      if (choice.kind === 'download') throw notDownloaded(choice.offers);
      const card =
        choice.kind === 'server'
          ? await this.#parts.engine.connect({ ...(await this.#serverParams(choice)), role: 'completion' })
          : await this.#parts.engine.load({ ...loadParams(choice.model), role: 'completion' });
      this.#logCard(card);
      this.#shown.showCompletion({ card });
      return card;
    } catch (error) {
      this.#log.error(`Loading the model for completions: ${sentence(error)}`);
      this.#shown.showCompletion({ problem: sentence(error) });
      if (choice.kind === 'server') this.#connectLater(choice);
      return undefined;
    }
  }

  /** Retries an unreachable server later. */
  #connectLater(choice: ReturnType<typeof chooseCompletionModel>): void {
    const loading = this.#loading;
    const again = () => this.#loading === loading && void this.#loadCompletion(choice);
    setTimeout(again, limits.remote.retryMs).unref();
  }

  async #connect({ url, model }: RemoteSettings): Promise<ModelCard> {
    const params = await this.#serverParams({ url, model });
    await this.#shown.untilIdle();
    this.#shown.show({ kind: 'connecting', host: hostOf(url) });
    return this.#parts.engine.connect(params);
  }

  /** Only a running engine process gets the token. */
  async #serverParams({ url, model }: { readonly url: string; readonly model?: string | undefined }) {
    const { contextTokens } = engineSettings();
    const token = await this.#parts.tokenFor(url);
    await this.#parts.process.start();
    return {
      ...{ url, ...(model !== undefined && { model }) },
      ...(token !== undefined && { token }),
      ...(contextTokens !== undefined && { contextTokens }),
    };
  }

  /** @throws EngineFailure `not-found` if the settings name another server by now. */
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
    // The view already shows these: what to download, or that the process is restarting.
    if (code === 'no-model' || code === 'engine-ended' || code === 'engine-given-up') return;
    this.#log.error(`Loading the model: ${sentence(error)}`);
    const again = code === 'internal' || code === 'device-lost' || engineSettings().remote !== undefined;
    const remedy = again && code !== 'not-found' ? 'restart' : 'choose-model';
    this.#shown.show({ kind: 'failed', message: sentence(error), remedy });
  }

  /** After device loss, the card names the new backend. */
  changed({ message, card }: ModelChange): void {
    this.#log.warn(message);
    this.#logCard(card);
    if (this.completionModel?.id === card.id && this.warmModel?.id !== card.id) {
      this.#shown.showCompletion({ card });
      return;
    }
    if (this.#loading) this.#loading = { ...this.#loading, card: Promise.resolve(card) };
    if (this.warmModel === undefined) return;
    if (card.backend !== this.warmModel.backend) void vscode.window.showWarningMessage(message);
    this.#shown.show({ kind: 'ready', card });
  }

  #logCard(card: ModelCard): void {
    for (const note of card.notes) this.#log.info(`${card.name}: ${note}`);
    const where = card.host ?? `'${card.backend}'`;
    this.#log.info(`${card.name} is ready on ${where} with ${card.contextTokens} tokens of context.`);
  }

  loadStep(step: Progress): void {
    const { state } = this.#shown.view;
    if (state.kind !== 'loading') return;
    this.#shown.show({ ...state, done: step.done, total: step.total });
  }

  /** Call when nothing is loaded any more. */
  forget(): void {
    this.#loading = undefined;
  }

  /** Loads the model into the restarted process. Requests meanwhile share this load. */
  loadAgain(): void {
    this.#loading = undefined;
    queueMicrotask(() => {
      this.ready().catch((error: unknown) => this.#log.debug(`Loading after a restart: ${sentence(error)}`));
    });
  }
}

function loadParams(model: string): LoadParams {
  const { backend, cachePrecision, diskCacheBytes, threads } = engineSettings();
  return { model, backend, cachePrecision, diskCacheBytes, ...(threads !== undefined && { threads }) };
}

const notFound = (setting: string, model: string): EngineFailure =>
  new EngineFailure(
    'not-found',
    vscode.l10n.t('The setting "{0}" names "{1}", which is neither a known model nor a file.', setting, model),
  );

const notDownloaded = ([offer]: readonly Offer[]): EngineFailure =>
  new EngineFailure(
    'no-model',
    vscode.l10n.t('{0} is not on this computer yet. Download it under Models.', offer?.entry.name ?? ''),
  );
