/**
 * The loaded models of an engine; all windows share a loaded model. A model that another window uses is never unloaded
 * or replaced; an unused one is closed, at once or after a delay.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { z } from 'zod';
import { DoesNotFit } from '../backend/memoryPlan.ts';
import { snapshotDirectory } from '../catalogue/files.ts';
import { ModelDigest } from '../catalogue/manifest.ts';
import type { Store } from '../catalogue/store.ts';
import { HearthError, throwIfAborted } from '../errors.ts';
import { limits } from '../limits.ts';
import { isRecurrent } from '../model/spec/spec.ts';
import type { Progress } from '../protocol/engineProtocol.ts';
import type { loadParams, ModelChange } from '../protocol/models.ts';
import { DraftModel } from '../scheduler/draftModel.ts';
import { type CallWatch, SharedDevice } from '../scheduler/sharing.ts';
import { sharedVocabularySize } from '../tokenizer/tokenizer.ts';
import { type LoadedModel, loadModel } from './loadedModel.ts';

type LoadParams = z.output<typeof loadParams>;

/** A window that uses models. */
export interface ModelUser {
  onProgress(progress: Progress): void;
  /** A model's lost device was replaced. */
  onChange(change: ModelChange): void;
}

/** One loaded model. */
export interface ModelCopy {
  readonly wish: LoadParams;
  readonly loaded: LoadedModel;
  readonly digest: ModelDigest;
}

interface Kept extends ModelCopy {
  readonly users: Set<ModelUser>;
  /** The smaller model that supplies this one's draft tokens. */
  draftsFrom: Kept | undefined;
  /** Set while no window uses it. */
  closing: NodeJS.Timeout | undefined;
}

interface PoolOptions {
  readonly store: Store;
  /** Replaced in tests. */
  readonly load?: typeof loadModel;
  /** How long a window waits for others that may be about to release the model or memory that it needs. */
  readonly settleMs?: number;
}

/** Whether both ask for the same model on the same backend with the same settings, apart from the context. */
export const sameWeights = (a: LoadParams, b: LoadParams): boolean => weightsKeyOf(a) === weightsKeyOf(b);

/** Whether a model loaded for `a` is exactly what `b` asks for. */
export const sameWish = (a: LoadParams, b: LoadParams): boolean =>
  sameWeights(a, b) && a.contextTokens === b.contextTokens;

export const weightsKeyOf = ({ model, backend, threads, cachePrecision, diskCacheBytes }: LoadParams): string =>
  JSON.stringify([model, backend, threads, cachePrecision, diskCacheBytes]);

export class ModelPool {
  readonly #options: PoolOptions;
  readonly #copies = new Set<Kept>();
  /** The model that each window waits for. */
  readonly #waiting = new Map<ModelUser, string>();
  /** Models that are being closed; their memory is not free yet. */
  readonly #closed = new Set<Promise<void>>();
  readonly #released = new EventTarget();
  /** Models are loaded one after the other. */
  #turn: Promise<unknown> = Promise.resolve();
  readonly #device = new SharedDevice({
    patienceMs: limits.generation.patienceMs,
    now: () => performance.now(),
  });

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** Watches the calls of all models into native code. */
  get calls(): CallWatch {
    return this.#device.calls;
  }

  get store(): Store {
    return this.#options.store;
  }

  get all(): readonly LoadedModel[] {
    return [...this.#copies].map(({ loaded }) => loaded);
  }

  /** Names of the models that windows other than `user` use. */
  namesOfOthers(user: ModelUser): string[] {
    return [...new Set(this.#ofOthers(user).map(({ loaded }) => loaded.card.name))];
  }

  isUsedByOthers(model: string, user: ModelUser): boolean {
    return this.#ofOthers(user).some(({ wish }) => wish.model === model);
  }

  /**
   * Returns the loaded model that fits the wish, or loads it. If another window keeps the same weights with another
   * context, that one is returned.
   * @throws HearthError `out-of-memory` if the model doesn't fit beside those of other windows; and every error of
   * loading.
   */
  async take(wish: LoadParams, user: ModelUser, signal: AbortSignal): Promise<ModelCopy> {
    this.#waiting.set(user, wish.model);
    try {
      return await this.#inTurn(() => this.#take(wish, user, signal));
    } finally {
      this.#waiting.delete(user);
    }
  }

  /** @param keepMs how long the model stays loaded after its last user. */
  async release(copy: ModelCopy, user: ModelUser, keepMs = 0): Promise<void> {
    const kept = [...this.#copies].find((each) => each === copy);
    if (!kept?.users.delete(user) || kept.users.size > 0) return;
    if (keepMs === 0) await this.#close(kept);
    else kept.closing = setTimeout(() => void this.#close(kept), keepMs);
  }

  async #take(wish: LoadParams, user: ModelUser, signal: AbortSignal): Promise<ModelCopy> {
    throwIfAborted(signal);
    const used = this.#join(wish, user) ?? (await this.#joinDiffering(wish, user, signal));
    if (used) return used;
    for (const copy of this.#copies) if (copy.users.size === 0) await this.#close(copy);
    await Promise.all(this.#closed);
    const { path, name } = await this.store.locate(wish.model);
    const open = (): Promise<ModelCopy> => this.#open(wish, user, { path, name, signal });
    try {
      return await open();
    } catch (error) {
      if (!(error instanceof DoesNotFit) || this.#ofOthers(user).length === 0) throw error;
      // All windows have the same user settings, so they change their models at about the same time.
      if (await this.#someRelease(user, signal)) return open();
      throw this.#noRoomBeside(user, error);
    }
  }

  /**
   * Completion can use any loaded model with the same weights, because a chat's context is long enough. Chat can't use
   * a completion's.
   */
  #join(wish: LoadParams, user: ModelUser): ModelCopy | undefined {
    return this.#use(
      [...this.#copies].find((copy) =>
        wish.role === 'completion'
          ? sameWeights(copy.wish, wish)
          : copy.wish.role === 'chat' && sameWish(copy.wish, wish),
      ),
      user,
    );
  }

  /**
   * If other windows use the same weights with another context: waits for them to release the model, or else shares it.
   */
  async #joinDiffering(wish: LoadParams, user: ModelUser, signal: AbortSignal): Promise<ModelCopy | undefined> {
    const differing = (): Kept | undefined =>
      [...this.#copies].find((copy) => copy.users.size > 0 && sameWeights(copy.wish, wish));
    const untilMs = performance.now() + this.#settleMs;
    while (differing() && performance.now() < untilMs) await this.#someRelease(user, signal);
    return this.#use(differing(), user);
  }

  #use(copy: Kept | undefined, user: ModelUser): ModelCopy | undefined {
    if (copy === undefined) return undefined;
    clearTimeout(copy.closing);
    copy.closing = undefined;
    copy.users.add(user);
    return copy;
  }

  async #open(
    wish: LoadParams,
    user: ModelUser,
    { path, name, signal }: { readonly path: string; readonly name: string; readonly signal: AbortSignal },
  ): Promise<ModelCopy> {
    const { directory } = this.store;
    const digest = await ModelDigest.of(path, directory);
    const users = new Set([user]);
    const call = this.calls.begin();
    const loading = (this.#options.load ?? loadModel)({
      ...wish,
      id: wish.model,
      name,
      path,
      device: this.#device,
      ...(wish.role === 'completion' && { mostContextTokens: limits.generation.completionContextTokens }),
      storeDirectory: directory,
      snapshots: { directory: snapshotDirectory(directory), limitBytes: wish.diskCacheBytes, digest },
      onProgress: ({ doneBytes, totalBytes }) => {
        call.goesOn();
        this.#report({
          task: 'load',
          subject: wish.model,
          message: `Loading ${name}`,
          done: doneBytes,
          total: totalBytes,
          unit: 'bytes',
        });
      },
      onChange: (change) => {
        for (const each of users) each.onChange(change);
      },
      besideOthers: this.#ofOthers(user).length > 0,
      signal,
    });
    const loaded = await loading.finally(call.end);
    const copy: Kept = { wish, loaded, digest, users, draftsFrom: undefined, closing: undefined };
    this.#copies.add(copy);
    this.#chooseDraftModels();
    return copy;
  }

  /** Reports to every window that waits for this model. */
  #report(progress: Progress): void {
    for (const [user, model] of this.#waiting) if (model === progress.subject) user.onProgress(progress);
  }

  #ofOthers(user: ModelUser): Kept[] {
    return [...this.#copies].filter(({ users }) => [...users].some((other) => other !== user));
  }

  get #settleMs(): number {
    return this.#options.settleMs ?? limits.generation.settleMs;
  }

  /** @returns whether another window released a model in the meantime. */
  async #someRelease(user: ModelUser, signal: AbortSignal): Promise<boolean> {
    const before = this.#ofOthers(user).length;
    const stop = new AbortController();
    const released = new Promise<void>((resolve) =>
      this.#released.addEventListener('released', () => resolve(), { once: true, signal: stop.signal }),
    );
    const both = AbortSignal.any([signal, stop.signal]);
    await Promise.race([released, sleep(this.#settleMs, undefined, { signal: both }).catch(() => {})]);
    stop.abort();
    throwIfAborted(signal);
    return this.#ofOthers(user).length < before;
  }

  async #close(copy: Kept): Promise<void> {
    clearTimeout(copy.closing);
    if (!this.#copies.delete(copy)) return;
    this.#chooseDraftModels();
    const closed = copy.loaded.close();
    this.#closed.add(closed);
    try {
      await closed;
    } finally {
      this.#closed.delete(closed);
      this.#released.dispatchEvent(new Event('released'));
    }
  }

  #chooseDraftModels(): void {
    for (const copy of this.#copies) {
      const [best] = [...this.#copies].flatMap((other) => draftModelFor(copy, other) ?? []).sort(bySize);
      if (copy.draftsFrom === best?.copy) continue;
      copy.draftsFrom = best?.copy;
      copy.loaded.scheduler.draftWith(best?.model());
    }
  }

  #noRoomBeside(user: ModelUser, cause: DoesNotFit): HearthError {
    const names = this.namesOfOthers(user).join(', ');
    return new HearthError(
      'out-of-memory',
      `Another window uses ${names}, and this model doesn't fit beside it: choose the same model, or close that window. ${cause.message}`,
      { cause },
    );
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {});
    return result;
  }
}

/** A model may draft for another if its weights take at most this share of the other's bytes. */
const draftModelShare = 0.5;

interface DraftChoice {
  readonly copy: Kept;
  readonly model: () => DraftModel;
}

const bySize = (a: DraftChoice, b: DraftChoice): number =>
  a.copy.loaded.card.weightBytes - b.copy.loaded.card.weightBytes;

/** `small` as the draft model of `large`; undefined if it can't be. */
function draftModelFor({ loaded: large }: Kept, small: Kept): DraftChoice | undefined {
  const { card, scheduler, text } = small.loaded;
  if (!text || !large.text || card.weightBytes > draftModelShare * large.card.weightBytes) return undefined;
  // A rejected draft would roll the state of recurrent layers back to its last checkpoint.
  if (isRecurrent(scheduler.decoder.spec)) return undefined;
  const ids = sharedVocabularySize(large.text.tokenizer, text.tokenizer);
  if (ids === undefined) return undefined;
  return { copy: small, model: () => new DraftModel(scheduler, ids, () => performance.now()) };
}
