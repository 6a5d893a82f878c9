/** The models on disk, as the protocol shows them, with progress. */

import type { StoreProgress } from '../catalogue/files.ts';
import { detectMachine } from '../catalogue/fit.ts';
import { inspectionText, usualContexts } from '../catalogue/inspectArchitecture.ts';
import { type InspectedModel, inspectModel } from '../catalogue/inspectModel.ts';
import { snapshotDirectory } from '../catalogue/paths.ts';
import { type Store, toModelEntry } from '../catalogue/store.ts';
import { listSnapshots, removeSnapshot } from '../kv/snapshotFile.ts';
import type { HubOffer, ModelEntry, Progress } from '../protocol/engineProtocol.ts';

interface HubOptions {
  readonly signal?: AbortSignal | undefined;
  /** The hub's access token; default: `HF_TOKEN`. */
  readonly token?: string | undefined;
}

export class EngineModels {
  readonly #store: Store;
  readonly #onProgress: (progress: Progress) => void;

  constructor(store: Store, onProgress: (progress: Progress) => void) {
    this.#store = store;
    this.#onProgress = onProgress;
  }

  async list(): Promise<ModelEntry[]> {
    return (await this.#store.list()).map(toModelEntry);
  }

  async recommend(): Promise<ModelEntry> {
    return toModelEntry(await this.#store.recommend());
  }

  /** What a repository on the hub has: `owner/repository`. */
  async offers(repository: string, options: HubOptions): Promise<HubOffer[]> {
    return this.#store.offers(repository, options);
  }

  async pull(id: string, options: HubOptions): Promise<ModelEntry> {
    return toModelEntry(await this.#store.pull(id, { ...options, onProgress: (step) => this.#report(id, step) }));
  }

  /** Imports a file or folder. */
  async add(path: string, signal?: AbortSignal): Promise<ModelEntry> {
    return toModelEntry(await this.#store.add(path, { signal, onProgress: (step) => this.#report(path, step) }));
  }

  async verify(id: string, signal?: AbortSignal): Promise<ModelEntry> {
    return toModelEntry(await this.#store.verify(id, { signal, onProgress: (step) => this.#report(id, step) }));
  }

  /** With its snapshots and what was computed from its weights. */
  async remove(id: string): Promise<ModelEntry> {
    const removed = await this.#store.remove(id);
    const snapshots = await listSnapshots(snapshotDirectory(this.#store.directory));
    const own = snapshots.filter(({ header }) => header.model === removed.entry.name);
    await Promise.all(own.map(removeSnapshot));
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
