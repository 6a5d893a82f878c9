/**
 * The loaded models by role: one that chats, and perhaps another one that completes code. Both share the device. A model
 * that has both roles is loaded once.
 */
import type { z } from 'zod';
import { ModelDigest } from '../catalogue/modelDigest.ts';
import { snapshotDirectory } from '../catalogue/paths.ts';
import type { Store } from '../catalogue/store.ts';
import { throwIfAborted } from '../errors.ts';
import { limits } from '../limits.ts';
import { checkOpens } from '../model/open.ts';
import {
  type loadParams,
  type ModelCard,
  type ModelChange,
  type ModelRole,
  modelRoles,
  type Progress,
} from '../protocol/engineProtocol.ts';
import { SharedDevice } from '../scheduler/sharedDevice.ts';
import { type LoadedModel, loadModel } from './loadedModel.ts';

type LoadParams = z.output<typeof loadParams>;

/** A loaded model, and what tells it apart. */
export interface Held {
  readonly key: string;
  /** The same in `key`s that differ in the context alone. */
  readonly weights: string;
  readonly loaded: LoadedModel;
  readonly digest: ModelDigest;
}

interface Loading {
  readonly key: string;
  readonly card: Promise<ModelCard>;
  readonly abort: () => void;
}

export interface ModelRolesOptions {
  readonly store: Store;
  readonly onProgress: (progress: Progress) => void;
  /** Called when a model's lost device was replaced. */
  readonly onChange: (change: ModelChange) => void;
}

export class ModelRoles {
  readonly #options: ModelRolesOptions;
  readonly #held = new Map<ModelRole, Held>();
  /** The latest load of a role while it runs; it will replace the role's model. */
  readonly #loading = new Map<ModelRole, Loading>();
  /** Loads and unloads are sequential. */
  #turn: Promise<unknown> = Promise.resolve();
  readonly #device = new SharedDevice({
    patienceMs: limits.generation.patienceMs,
    now: () => performance.now(),
  });

  constructor(options: ModelRolesOptions) {
    this.#options = options;
  }

  get(role: ModelRole): Held | undefined {
    return this.#held.get(role);
  }

  /** Each loaded model once. */
  get all(): readonly LoadedModel[] {
    return [...new Set([...this.#held.values()].map(({ loaded }) => loaded))];
  }

  /** Tells the role's model, its settings and its weights apart from all others. */
  label(role: ModelRole): string {
    const held = this.#held.get(role);
    return `${held?.key} ${held?.digest.label}`;
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
    if (!running && held?.key === key) return held.loaded.card;
    running?.abort();
    const controller = new AbortController();
    const abort = (): void => controller.abort();
    signal?.addEventListener('abort', abort, { once: true });
    const card = this.#inTurn(() => this.#replace(params, key, controller.signal));
    const loading = { key, card, abort };
    this.#loading.set(role, loading);
    try {
      return await card;
    } finally {
      signal?.removeEventListener('abort', abort);
      if (this.#loading.get(role) === loading) this.#loading.delete(role);
    }
  }

  async unload(role: ModelRole): Promise<void> {
    this.#loading.get(role)?.abort();
    await this.#inTurn(() => this.#drop(role));
  }

  async #replace(params: LoadParams, key: string, signal: AbortSignal): Promise<ModelCard> {
    throwIfAborted(signal);
    const { path, name } = await this.#options.store.locate(params.model);
    // A model that can't be opened must not cost the user the one that works.
    await checkOpens(path);
    const weights = weightsKeyOf(params);
    const sameWeights = modelRoles.filter((role) => role !== params.role && this.#held.get(role)?.weights === weights);
    const [other] = sameWeights;
    // The chat model's context is long enough to complete with, but not the other way round.
    const shared = other !== undefined && params.role === 'completion' ? this.#held.get(other) : undefined;
    if (shared) {
      await this.#drop(params.role);
      this.#held.set(params.role, shared);
      return shared.loaded.card;
    }
    const roles = [params.role, ...sameWeights];
    for (const role of roles) await this.#drop(role);
    const loaded = await this.#open(params, { path, name }, signal);
    for (const role of roles) this.#held.set(role, { key, weights, ...loaded });
    return loaded.loaded.card;
  }

  async #open(
    params: LoadParams,
    { path, name }: { path: string; name: string },
    signal: AbortSignal,
  ): Promise<Pick<Held, 'loaded' | 'digest'>> {
    const { directory } = this.#options.store;
    const digest = await ModelDigest.of(path, directory);
    const loaded = await loadModel({
      ...params,
      id: params.model,
      name,
      path,
      device: this.#device,
      ...(params.role === 'completion' && { mostContextTokens: limits.generation.completionContextTokens }),
      storeDirectory: directory,
      snapshots: { directory: snapshotDirectory(directory), limitBytes: params.diskCacheBytes, digest },
      onProgress: ({ doneBytes, totalBytes }) =>
        this.#options.onProgress({
          task: 'load',
          subject: params.model,
          message: `Loading ${name}`,
          done: doneBytes,
          total: totalBytes,
          unit: 'bytes',
        }),
      onChange: (change) => this.#options.onChange(change),
      signal,
    });
    return { loaded, digest };
  }

  async #drop(role: ModelRole): Promise<void> {
    const held = this.#held.get(role);
    this.#held.delete(role);
    const isUsed = [...this.#held.values()].some(({ loaded }) => loaded === held?.loaded);
    if (!isUsed) await held?.loaded.close();
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {});
    return result;
  }
}

const weightsKeyOf = ({ model, backend, threads, cachePrecision, diskCacheBytes }: LoadParams): string =>
  JSON.stringify([model, backend, threads, cachePrecision, diskCacheBytes]);

const keyOf = (params: LoadParams): string => `${weightsKeyOf(params)} ${params.contextTokens ?? ''}`;
