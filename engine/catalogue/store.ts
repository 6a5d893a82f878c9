/** The models on this machine: list, download, import, verify and remove. */
import { createHash } from 'node:crypto';
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { HearthError, invalidInput, notFound, throwIfAborted } from '../errors.ts';
import { showBytes } from '../units.ts';
import { type CatalogueEntry, catalogue, defaultModelId, findEntry, requireEntry } from './catalogue.ts';
import { defaultRetry, type RetryPolicy } from './download.ts';
import { DiskFull, diskError, errorCode, hashFile, reporter, type WorkOptions } from './files.ts';
import {
  chooseModel,
  detectMachine,
  type Fit,
  type Hardware,
  hardwareNeeds,
  judge,
  type RecommendOptions,
} from './fit.ts';
import { collect } from './importModel.ts';
import { withLock } from './lock.ts';
import { findInstalled, type Installed, install, listInstalled, manifestName, pathToLoad } from './manifest.ts';
import { markFinished } from './partialFile.ts';
import { defaultStoreDirectory, derivedDirectory, lockFile } from './paths.ts';
import { type Endpoints, endpointsFrom, fetchModel, sourceName, stagedBytes, stagingFolder } from './sources.ts';
import { places } from './userHelp.ts';

export interface StoreOptions {
  /** Root of the store. Default: `defaultStoreDirectory`. */
  readonly directory?: string;
  /** Families that the running engine supports; only these are recommended. Default: all. */
  readonly families?: RecommendOptions['families'];
  readonly entries?: readonly CatalogueEntry[];
  readonly endpoints?: Endpoints;
  readonly retry?: RetryPolicy;
  readonly hardware?: Hardware;
}

export interface StoredModel {
  readonly entry: CatalogueEntry;
  readonly state: 'absent' | 'partial' | 'present';
  /** Path that the engine loads; set if the model is present. */
  readonly path?: string;
  /** Bytes of an unfinished download. */
  readonly partialBytes: number;
  /** Hardware that the model needs. */
  readonly needs: string;
  /** Whether this machine can run it. */
  readonly fit: Fit;
  readonly recommended: boolean;
}

export function openStore(options: StoreOptions = {}): Store {
  return new Store(options);
}

export class Store {
  readonly directory: string;
  readonly #options: StoreOptions;
  readonly #entries: readonly CatalogueEntry[];

  constructor(options: StoreOptions) {
    this.#options = options;
    this.directory = resolve(options.directory ?? defaultStoreDirectory());
    this.#entries = options.entries ?? catalogue;
  }

  /** Lists all models of the catalogue with their state on this machine. */
  async list(): Promise<readonly StoredModel[]> {
    const hardware = await this.#hardware();
    const recommended = this.#choose(hardware);
    const installed = await listInstalled(this.directory);
    return Promise.all(this.#entries.map((entry) => this.#describe(entry, hardware, recommended, installed)));
  }

  async get(id: string): Promise<StoredModel> {
    const entry = requireEntry(id, this.#entries);
    const hardware = await this.#hardware();
    return this.#describe(entry, hardware, this.#choose(hardware), await listInstalled(this.directory));
  }

  /** The recommended model for this machine. */
  async recommend(): Promise<StoredModel> {
    const hardware = await this.#hardware();
    const chosen = this.#choose(hardware);
    if (!chosen) throw notFound('The catalogue is empty.');
    return this.#describe(chosen, hardware, chosen, await listInstalled(this.directory));
  }

  /** Resolves a catalogue id to the installed model's path, or returns an existing file or folder. */
  async resolve(idOrPath: string): Promise<string> {
    const entry = findEntry(idOrPath, this.#entries);
    if (entry) {
      const installed = await findInstalled(this.directory, entry.id);
      if (installed) return pathToLoad(installed);
      const size = showBytes(entry.downloadBytes);
      throw notFound(`${entry.name} is not on this machine. Download it ${places().pull(entry.id)} (${size}).`);
    }
    const path = resolve(idOrPath);
    if (idOrPath !== '' && !idOrPath.includes('\0') && (await exists(path))) return path;
    const shown = JSON.stringify(idOrPath.slice(0, 200));
    throw notFound(`${shown}: not found. It is neither a catalogue id (${places().list}) nor a file or folder.`);
  }

  /** Downloads a model from the first source that has it. Returns immediately if it is installed. */
  async pull(id: string, options: WorkOptions = {}): Promise<StoredModel> {
    const entry = requireEntry(id, this.#entries);
    if (!(await findInstalled(this.directory, id))) {
      await this.#exclusively(entry, options, async () => {
        if (!(await findInstalled(this.directory, id))) await this.#fetch(entry, options);
      });
    }
    return this.get(id);
  }

  /** Imports a model from a local GGUF file or a folder with a checkpoint. */
  async add(path: string, options: WorkOptions = {}): Promise<StoredModel> {
    const origin = resolve(path);
    const { entry, source } = await collect(origin, this.#entries);
    await this.#exclusively(entry, options, async () => {
      if (await findInstalled(this.directory, entry.id)) return;
      const staging = stagingFolder(this.directory, entry, source.staging);
      await mkdir(staging, { recursive: true });
      const files = await source.copyTo(staging, options);
      await install(this.directory, entry, { folder: staging, files }, origin);
    });
    return this.get(entry.id);
  }

  /** Rehashes an installed model. Removes damaged files, so that `pull` downloads only those again. */
  async verify(id: string, options: WorkOptions = {}): Promise<StoredModel> {
    const entry = requireEntry(id, this.#entries);
    await this.#exclusively(entry, options, async () => {
      const installed = await findInstalled(this.directory, id);
      if (!installed) throw notFound(`${entry.name} is not on this machine, so it cannot be verified.`);
      const damaged = await this.#findDamage(installed, options);
      if (damaged.length > 0) throw await this.#removeDamaged(entry, installed, damaged);
    });
    return this.get(id);
  }

  /** Removes an installed model and its unfinished downloads. */
  async remove(id: string): Promise<StoredModel> {
    const entry = requireEntry(id, this.#entries);
    await this.#exclusively(entry, {}, async () => {
      const installed = await findInstalled(this.directory, id);
      try {
        // Removes the manifest first, so that a partly removed model counts as absent.
        if (installed) await rm(join(installed.folder, manifestName), { force: true });
        if (installed) await rm(installed.folder, { recursive: true, force: true });
        await this.#removeDerived();
        for (const source of entry.sources) {
          await rm(stagingFolder(this.directory, entry, source), { recursive: true, force: true });
        }
      } catch (error) {
        throw diskError(error, this.directory);
      }
    });
    return this.get(id);
  }

  async #hardware(): Promise<Hardware> {
    return this.#options.hardware ?? detectMachine();
  }

  #choose(hardware: Hardware): CatalogueEntry | undefined {
    const { families } = this.#options;
    return chooseModel(this.#entries, hardware, { fallbackId: defaultModelId, ...(families && { families }) });
  }

  async #describe(
    entry: CatalogueEntry,
    hardware: Hardware,
    recommended: CatalogueEntry | undefined,
    models: readonly Installed[],
  ): Promise<StoredModel> {
    const installed = models.find((model) => model.manifest.id === entry.id);
    const common = {
      entry,
      needs: hardwareNeeds(entry),
      fit: judge(entry, hardware),
      recommended: entry === recommended,
    };
    if (installed) return { ...common, state: 'present', path: pathToLoad(installed), partialBytes: 0 };
    const partialBytes = await stagedBytes(this.directory, entry);
    return { ...common, state: partialBytes > 0 ? 'partial' : 'absent', partialBytes };
  }

  async #exclusively(entry: CatalogueEntry, options: WorkOptions, work: () => Promise<void>): Promise<void> {
    throwIfAborted(options.signal);
    const key = createHash('sha256').update(entry.id).digest('hex');
    const onWait = async () => {
      const doneBytes = await stagedBytes(this.directory, entry);
      options.onProgress?.({ phase: 'waiting', source: '', doneBytes, totalBytes: entry.downloadBytes });
    };
    await withLock(lockFile(this.directory, key), { signal: options.signal, onWait }, work);
  }

  async #fetch(entry: CatalogueEntry, options: WorkOptions): Promise<void> {
    const failures: string[] = [];
    for (const source of entry.sources) {
      const name = sourceName(source);
      try {
        const fetched = await fetchModel(entry, source, {
          root: this.directory,
          endpoints: this.#options.endpoints ?? endpointsFrom(process.env),
          retry: this.#options.retry ?? defaultRetry,
          packedBytes: packedBytes(entry, await this.#hardware()),
          signal: options.signal,
          onBytes: reporter(name, options.onProgress),
        });
        await install(this.directory, entry, fetched, name);
        await this.#removeStaging(entry);
        return;
      } catch (error) {
        // Another source can't help after a cancellation or a disk error.
        if (!(error instanceof HearthError) || error instanceof DiskFull || error.code === 'cancelled') {
          throw diskError(error, this.directory);
        }
        failures.push(`${name}: ${error.message}`);
      }
    }
    throw await this.#downloadError(entry, failures);
  }

  async #removeStaging(entry: CatalogueEntry): Promise<void> {
    for (const source of entry.sources) {
      await rm(stagingFolder(this.directory, entry, source), { recursive: true, force: true });
    }
  }

  async #downloadError(entry: CatalogueEntry, failures: readonly string[]): Promise<HearthError> {
    const keptBytes = await stagedBytes(this.directory, entry);
    const kept = keptBytes > 0 ? ` ${showBytes(keptBytes)} are kept; the next download resumes there.` : '';
    const files = entry.files.length === 1 ? `the file ${entry.files[0]?.name ?? ''}` : 'a folder with its files';
    return new HearthError(
      'unavailable',
      `Could not download ${entry.name}. ${failures.join(' ')}${kept} ` +
        `Without internet access, copy ${files} to this machine and ${places().byFile}.`,
    );
  }

  async #findDamage({ folder, manifest }: Installed, options: WorkOptions): Promise<readonly string[]> {
    const totalBytes = manifest.files.reduce((sum, file) => sum + file.bytes, 0);
    const report = reporter(manifest.source, options.onProgress);
    const damaged: string[] = [];
    let doneBytes = 0;
    for (const file of manifest.files) {
      const onBytes = (bytes: number) => {
        doneBytes += bytes;
        report('verify', doneBytes, totalBytes);
      };
      const digest = await hashFile(join(folder, file.name), { signal: options.signal, onBytes });
      if (digest !== file.sha256) damaged.push(file.name);
    }
    return damaged;
  }

  /** Removes what was computed from models that are no longer there. */
  async #removeDerived(): Promise<void> {
    const digests = new Set((await listInstalled(this.directory)).map(({ manifest }) => manifest.digest));
    const folder = derivedDirectory(this.directory);
    for (const name of await readdir(folder).catch(() => [])) {
      const digest = /^[0-9a-f]{64}(?=\.)/.exec(name)?.[0];
      if (digest !== undefined && !digests.has(digest)) await rm(join(folder, name), { force: true });
    }
  }

  /** Turns an installed model back into a partial download without the damaged files. */
  async #removeDamaged(entry: CatalogueEntry, installed: Installed, damaged: readonly string[]) {
    const { folder, manifest } = installed;
    const [first] = entry.sources;
    await rm(join(folder, manifestName), { force: true });
    for (const name of damaged) await rm(join(folder, name), { force: true });
    await this.#removeDerived();
    const intact = manifest.files.filter((file) => !damaged.includes(file.name));
    for (const file of intact) await markFinished(folder, file.name, file.bytes, file.sha256);
    if (first && intact.length > 0) {
      const staging = stagingFolder(this.directory, entry, first);
      await rm(staging, { recursive: true, force: true });
      await mkdir(join(this.directory, 'downloads'), { recursive: true });
      await rename(folder, staging);
    } else {
      await rm(folder, { recursive: true, force: true });
    }
    return invalidInput(
      `${damaged.join(', ')} of ${entry.name} was damaged and has been removed. ` +
        `Download it again ${places().pull(entry.id)}.`,
    );
  }
}

/**
 * What the CPU backend writes at the first load, about: a scale of four bytes for each 32 values makes 4-bit weights a quarter
 * larger (SmolLM2 Q4_1: 122 MB of 98 MB), and unquantised ones become f32. A GPU takes the file as it is.
 */
function packedBytes({ files, downloadBytes }: CatalogueEntry, { gpu }: Hardware): number {
  if (gpu) return 0;
  return Math.ceil(downloadBytes * (files.every(({ name }) => name.endsWith('.gguf')) ? 1.3 : 2));
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ENAMETOOLONG' || code === 'EINVAL') return false;
    throw error;
  }
}

/** Converts to the protocol's `modelEntry`. */
export function toModelEntry(model: StoredModel) {
  const { entry } = model;
  return {
    id: entry.id,
    name: entry.name,
    description: entry.description,
    licence: entry.licence.name,
    family: entry.family,
    embedding: entry.roles.includes('embedding'),
    fillInTheMiddle: entry.fillInTheMiddle,
    contextTokens: entry.contextTokens,
    parameters: entry.parameters,
    downloadBytes: entry.downloadBytes,
    state: model.state,
    ...(model.path !== undefined && { path: model.path }),
    fit: model.fit,
    recommended: model.recommended,
  };
}
