/**
 * A window's loaded models by role: one for chat, and perhaps another one for completion. All share the device. A model
 * with both roles, or in several windows, is loaded once (modelPool.ts).
 */
import type { z } from 'zod';
import { type StoreProgress, snapshotDirectory } from '../catalogue/files.ts';
import { detectMachine } from '../catalogue/fit.ts';
import { inspectionText, usualContexts } from '../catalogue/inspectArchitecture.ts';
import { type InspectedModel, inspectModel } from '../catalogue/inspectModel.ts';
import { openStore, type Store, toModelEntry } from '../catalogue/store.ts';
import { throwIfAborted } from '../errors.ts';
import { listSnapshots, removeSnapshot } from '../kv/snapshotFile.ts';
import { checkOpens } from '../model/open.ts';
import type { Progress } from '../protocol/engineProtocol.ts';
import {
  type HubOffer,
  type loadParams,
  type ModelCard,
  type ModelEntry,
  type ModelRole,
  modelRoles,
} from '../protocol/models.ts';
import type { LoadedModel } from './loadedModel.ts';
import { type ModelCopy, ModelPool, type ModelUser, sameWeights, sameWish, weightsKeyOf } from './modelPool.ts';

type LoadParams = z.output<typeof loadParams>;

interface Loading {
  readonly key: string;
  readonly card: Promise<ModelCard>;
  readonly abort: () => void;
}

export class ModelRoles {
  readonly #pool: ModelPool;
  readonly #user: ModelUser;
  readonly #held = new Map<ModelRole, ModelCopy>();
  /** The latest load of a role while it runs; it will replace the role's model. */
  readonly #loading = new Map<ModelRole, Loading>();
  /** Loads and unloads are sequential. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(pool: ModelPool, user: ModelUser) {
    this.#pool = pool;
    this.#user = user;
  }

  get(role: ModelRole): ModelCopy | undefined {
    return this.#held.get(role);
  }

  /** Each loaded model once. */
  get all(): readonly LoadedModel[] {
    return [...new Set([...this.#held.values()].map(({ loaded }) => loaded))];
  }

  /** Identifies the role's model, its settings and its weights. */
  label(role: ModelRole): string {
    const held = this.#held.get(role);
    return `${held && keyOf(held.wish)} ${held?.digest.label}`;
  }

  isLoading(role: ModelRole): boolean {
    return this.#loading.has(role);
  }

  /** Replaces the role's model, unless it is the same model with the same settings. A later load cancels an earlier one. */
  async load(params: LoadParams, signal?: AbortSignal): Promise<ModelCard> {
    throwIfAborted(signal);
    const { role } = params;
    const key = keyOf(params);
    const running = this.#loading.get(role);
    if (running?.key === key) return running.card;
    const held = this.#held.get(role);
    if (!running && held && sameWish(held.wish, params)) return held.loaded.card;
    running?.abort();
    const controller = new AbortController();
    const abort = (): void => controller.abort();
    signal?.addEventListener('abort', abort, { once: true });
    const card = this.#inTurn(() => this.#replace(params, controller.signal));
    const loading = { key, card, abort };
    this.#loading.set(role, loading);
    try {
      return await card;
    } finally {
      signal?.removeEventListener('abort', abort);
      if (this.#loading.get(role) === loading) this.#loading.delete(role);
    }
  }

  /** @param keepMs how long the model stays loaded after its last user. */
  async unload(role: ModelRole, keepMs?: number): Promise<void> {
    this.#loading.get(role)?.abort();
    await this.#inTurn(() => this.#drop(role, keepMs));
  }

  async #replace(params: LoadParams, signal: AbortSignal): Promise<ModelCard> {
    throwIfAborted(signal);
    const { path } = await this.#pool.store.locate(params.model);
    // A model that can't be opened must not cost the user the one that works.
    await checkOpens(path);
    const sameModel = modelRoles.filter((role) => {
      const held = role === params.role ? undefined : this.#held.get(role);
      return held && sameWeights(held.wish, params);
    });
    const [other] = sameModel;
    // The chat model's context is long enough for completions, but not the other way round.
    const shared = other !== undefined && params.role === 'completion' ? this.#held.get(other) : undefined;
    if (shared) {
      await this.#drop(params.role);
      this.#held.set(params.role, shared);
      return shared.loaded.card;
    }
    const roles = [params.role, ...sameModel];
    for (const role of roles) await this.#drop(role);
    const copy = await this.#pool.take(params, this.#user, signal);
    for (const role of roles) this.#held.set(role, copy);
    return this.#cardFor(params, copy);
  }

  /** The card, with a note if another window's settings apply. */
  #cardFor(wish: LoadParams, { wish: loadedFor, loaded: { card } }: ModelCopy): ModelCard {
    if (wish.role === 'completion' || wish.contextTokens === loadedFor.contextTokens) return card;
    const note = `Another window uses this model with ${card.contextTokens} tokens of context, so this window does too.`;
    return { ...card, notes: [...card.notes, note] };
  }

  async #drop(role: ModelRole, keepMs?: number): Promise<void> {
    const held = this.#held.get(role);
    this.#held.delete(role);
    const isUsed = [...this.#held.values()].some((other) => other === held);
    if (held && !isUsed) await this.#pool.release(held, this.#user, keepMs);
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {});
    return result;
  }
}

const keyOf = (params: LoadParams): string => `${weightsKeyOf(params)} ${params.contextTokens ?? ''}`;

// The models on disk, as the protocol shows them, with progress.

interface HubOptions {
  readonly signal?: AbortSignal | undefined;
  /** The hub's access token; default: `HF_TOKEN`. */
  readonly token?: string | undefined;
}

export class EngineModels {
  readonly #store: Store;
  readonly #onProgress: (progress: Progress) => void;
  readonly #onChanged: () => void;

  /** `onChanged` is called after each attempt to download or remove a model. */
  constructor(store: Store, onProgress: (progress: Progress) => void, onChanged: () => void = () => {}) {
    this.#store = store;
    this.#onProgress = onProgress;
    this.#onChanged = onChanged;
  }

  async list(): Promise<ModelEntry[]> {
    return (await this.#store.list()).map(toModelEntry);
  }

  async recommend(): Promise<ModelEntry> {
    return toModelEntry(await this.#store.recommend());
  }

  /** Models of a repository on the hub: `owner/repository`. */
  async offers(repository: string, options: HubOptions): Promise<HubOffer[]> {
    return this.#store.offers(repository, options);
  }

  async pull(id: string, options: HubOptions): Promise<ModelEntry> {
    try {
      return toModelEntry(await this.#store.pull(id, { ...options, onProgress: (step) => this.#report(id, step) }));
    } finally {
      this.#onChanged();
    }
  }

  /** Imports a file or folder. */
  async add(path: string, signal?: AbortSignal): Promise<ModelEntry> {
    return toModelEntry(await this.#store.add(path, { signal, onProgress: (step) => this.#report(path, step) }));
  }

  async verify(id: string, signal?: AbortSignal): Promise<ModelEntry> {
    return toModelEntry(await this.#store.verify(id, { signal, onProgress: (step) => this.#report(id, step) }));
  }

  /** Also removes the model's snapshots and the files derived from its weights. */
  async remove(id: string): Promise<ModelEntry> {
    const removed = await this.#store.remove(id);
    const snapshots = await listSnapshots(snapshotDirectory(this.#store.directory));
    const own = snapshots.filter(({ header }) => header.model === removed.entry.name);
    await Promise.all(own.map(removeSnapshot));
    this.#onChanged();
    return toModelEntry(removed);
  }

  /** Explains a model, or compares several, without loading or downloading them. */
  async inspect(names: readonly string[]): Promise<string> {
    const options = { contexts: usualContexts, hardware: await detectMachine() };
    const models: InspectedModel[] = [];
    // Sequential, because each may read tens of megabytes of vocabulary.
    for (const name of names) models.push(await inspectModel(this.#store, name, options));
    return inspectionText(models);
  }

  #report(subject: string, { phase, source, doneBytes, totalBytes }: StoreProgress): void {
    const messages: Record<StoreProgress['phase'], string> = {
      waiting: 'Waiting for another process that gets the same model',
      download: `Downloading from ${source}`,
      extract: `Unpacking from ${source}`,
      verify: 'Verifying',
      copy: `Copying from ${source}`,
    };
    this.#onProgress({
      task: phase === 'verify' ? 'verify' : 'download',
      subject,
      message: messages[phase],
      done: doneBytes,
      total: totalBytes,
      unit: 'bytes',
    });
  }
}

/** News for every window: progress of a download, and its end. */
interface ModelNews {
  readonly onProgress: (progress: Progress) => void;
  readonly onModelsChanged?: () => void;
}

/** Shared by the windows of one engine: the store, the loaded models, and news of downloads. */
export class SharedModels {
  readonly store: Store;
  readonly pool: ModelPool;
  readonly models: EngineModels;
  readonly #windows = new Set<ModelNews>();

  /** @param storeDirectory absent: the platform's cache folder. */
  constructor(storeDirectory?: string) {
    this.store = openStore(storeDirectory === undefined ? {} : { directory: storeDirectory });
    this.pool = new ModelPool({ store: this.store });
    this.models = new EngineModels(
      this.store,
      (progress) => {
        for (const { onProgress } of this.#windows) onProgress(progress);
      },
      () => {
        for (const { onModelsChanged } of this.#windows) onModelsChanged?.();
      },
    );
  }

  /** @returns a function that leaves again. */
  join(window: ModelNews): () => void {
    this.#windows.add(window);
    return () => this.#windows.delete(window);
  }
}
