/** The models on this machine: list, download, import, verify and remove. */
import { createHash } from 'node:crypto';
import { mkdir, rename, rm, stat } from 'node:fs/promises';
import { basename, isAbsolute, join, resolve } from 'node:path';
import { HearthError, invalidInput, notFound, places, showBytes, throwIfAborted } from '../errors.ts';
import {
  type CatalogueEntry,
  catalogue,
  type Downloadable,
  defaultModelId,
  findEntry,
  notInCatalogue,
} from './catalogue.ts';
import {
  type Choice,
  choosePair,
  type RecommendOptions,
  type Role,
  rolesIn,
  type Suitability,
  suitabilityOf,
} from './choice.ts';
import { defaultRetry, markFinished, type RetryPolicy } from './download.ts';
import {
  DiskFull,
  defaultStoreDirectory,
  diskError,
  errorCode,
  lockFile,
  reporter,
  type WorkOptions,
  withLock,
} from './files.ts';
import { detectMachine, type Fit, type Hardware, hardwareNeeds, judge, packedBytes } from './fit.ts';
import { collect, describeFiles, describeForeign, type ForeignModel, isForeignId, listForeign } from './foreign.ts';
import {
  chooseOffer,
  fitOf,
  type HubAccess,
  type HubReference,
  parseHubReference,
  planDownload,
  readRepository,
} from './hub.ts';
import {
  findDamage,
  findInstalled,
  type Installed,
  install,
  listInstalled,
  manifestName,
  pathToLoad,
  removeDerived,
} from './manifest.ts';
import { type Endpoints, endpointsFrom, fetchModel, sourceName, stagedBytes, stagingFolder } from './sources.ts';

export interface StoreOptions {
  /** Root of the store. Default: `defaultStoreDirectory`. */
  readonly directory?: string;
  /** Families that the running engine supports; only these are recommended. Default: all. */
  readonly families?: RecommendOptions['families'];
  readonly entries?: readonly CatalogueEntry[];
  readonly endpoints?: Endpoints;
  readonly retry?: RetryPolicy;
  readonly hardware?: Hardware;
  /** Finds other programs' models. Default: `listForeign`. */
  readonly foreign?: () => Promise<readonly ForeignModel[]>;
}

/** A catalogue entry, or a similar entry of another model. A model that Hearth can't run may have an unknown family. */
type ListedEntry = Omit<CatalogueEntry, 'family'> & { readonly family: string };

export interface StoredModel {
  readonly entry: ListedEntry;
  /** The program whose folder has the files; absent for Hearth's own. */
  readonly owner?: ForeignModel['owner'];
  readonly state: 'absent' | 'partial' | 'present';
  /** Path that the engine loads; set if the model is present. */
  readonly path?: string;
  /** Bytes of an unfinished download. */
  readonly partialBytes: number;
  /** Hardware that the model needs. */
  readonly needs: string;
  /** Whether this machine can run it. */
  readonly fit: Fit;
  readonly recommendedFor: readonly Role[];
  readonly suitability: Suitability;
}

export interface PullOptions extends WorkOptions {
  /** Access token of the hub; default: `HF_TOKEN`. */
  readonly token?: string | undefined;
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

  /** Lists all models of the catalogue, then those installed or found in other programs' folders. */
  async list(): Promise<readonly StoredModel[]> {
    const hardware = await this.#hardware();
    const pair = this.#choose(hardware);
    const installed = await listInstalled(this.directory);
    const open = installed.flatMap(({ manifest: { id, entry } }) =>
      entry && !findEntry(id, this.#entries) ? [entry] : [],
    );
    const own = [...this.#entries, ...open].map((entry) => this.#describe(entry, hardware, pair, installed));
    return [...(await Promise.all(own)), ...(await this.#listForeign(hardware))];
  }

  async get(id: string): Promise<StoredModel> {
    const entry = await this.#ownEntry(id);
    if (!entry && !isForeignId(id)) return this.#unknown(id);
    const hardware = await this.#hardware();
    if (entry) return this.#describe(entry, hardware, this.#choose(hardware), await listInstalled(this.directory));
    const foreign = (await this.#listForeign(hardware)).find((model) => model.entry.id === id);
    return foreign ?? this.#unknown(id);
  }

  /** Models of a repository on the hub, each with its size and whether it fits. */
  async offers(reference: string, options: PullOptions = {}) {
    const { repository } = parseHubReference(reference) ?? this.#unknown(reference);
    const hardware = await this.#hardware();
    const { name, licence, offers } = await readRepository(repository, this.#access(options));
    return offers.map((offer) => ({
      id: `${name}:${offer.label}`,
      label: offer.label,
      bytes: offer.bytes,
      files: offer.files.length,
      ...(licence !== undefined && { licence }),
      fit: fitOf(offer, hardware),
    }));
  }

  /** The recommended model for this machine. */
  async recommend(): Promise<StoredModel> {
    const hardware = await this.#hardware();
    const pair = this.#choose(hardware);
    if (!pair.chat) throw notFound('The catalogue is empty.');
    return this.#describe(pair.chat, hardware, pair, await listInstalled(this.directory));
  }

  /** The path to load of a model on this machine (by id), or of an existing file or folder. */
  async resolve(idOrPath: string): Promise<string> {
    return (await this.locate(idOrPath)).path;
  }

  /** As `resolve`, with the model's name. */
  async locate(idOrPath: string): Promise<{ readonly path: string; readonly name: string }> {
    const entry = await this.#ownEntry(idOrPath);
    if (entry) {
      const installed = await findInstalled(this.directory, entry.id);
      if (installed) return { path: pathToLoad(installed), name: entry.name };
      const size = showBytes(entry.downloadBytes);
      throw notFound(`${entry.name} is not on this machine. Download it ${places().pull(entry.id)} (${size}).`);
    }
    const foreign = isForeignId(idOrPath) && (await this.#foreign()).find(({ id }) => id === idOrPath);
    if (foreign) return foreign;
    const path = resolve(idOrPath);
    if (idOrPath !== '' && !idOrPath.includes('\0') && (await exists(path))) return { path, name: basename(path) };
    const shown = JSON.stringify(idOrPath.slice(0, 200));
    if (parseHubReference(idOrPath) && !isAbsolute(idOrPath)) {
      throw notFound(`${shown}: not found on this machine. Download it ${places().pull(idOrPath)}.`);
    }
    throw notFound(`${shown}: not found. It is neither a model's id (${places().list}) nor a file or folder.`);
  }

  /**
   * Downloads a model of the catalogue, or `owner/repository[:QUANT]` from the hub. Returns immediately if it is
   * installed.
   */
  async pull(id: string, options: PullOptions = {}): Promise<StoredModel> {
    const entry = await this.#ownEntry(id);
    const reference = parseHubReference(id);
    if (!entry && reference) return this.#pullOpen(reference, options);
    const wanted = entry ?? this.#unknown(id);
    if (wanted.sources.length > 0 && !(await findInstalled(this.directory, wanted.id))) {
      await this.#exclusively(wanted, options, async () => {
        if (!(await findInstalled(this.directory, wanted.id))) await this.#fetch(wanted, options);
      });
    }
    return this.get(wanted.id);
  }

  async #pullOpen({ repository, quantisation }: HubReference, options: PullOptions): Promise<StoredModel> {
    const access = this.#access(options);
    const found = await readRepository(repository, access);
    const plan = await planDownload(found, chooseOffer(found, quantisation), access);
    await this.#exclusively(plan, options, async () => {
      if (await findInstalled(this.directory, plan.id)) return;
      await this.#fetch(plan, options, (path) =>
        describeFiles(path, { ...plan, description: `From ${repository} on Hugging Face.`, readTokenizer: true }),
      );
    });
    return this.get(plan.id);
  }

  /** Imports a model from a local GGUF file or a folder with a checkpoint, if it opens. */
  async add(path: string, options: WorkOptions = {}): Promise<StoredModel> {
    const origin = resolve(path);
    const { entry, known, copyTo } = await collect(origin, this.#entries);
    await this.#exclusively(entry, options, async () => {
      const installed = await findInstalled(this.directory, entry.id);
      if (installed && (known || installed.manifest.source === origin)) return;
      if (installed) {
        throw invalidInput(
          `There is a model ${entry.id} already, from ${installed.manifest.source}. Remove it first: \`hearth models remove ${entry.id}\`.`,
        );
      }
      const staging = stagingFolder(this.directory, entry, entry.sources[0] ?? { kind: 'file', path: origin });
      await mkdir(staging, { recursive: true });
      const files = await copyTo(staging, options);
      await install(this.directory, entry, { folder: staging, files }, origin, known ? undefined : entry);
    });
    return this.get(entry.id);
  }

  /** Rehashes an installed model. Removes damaged files, so that `pull` downloads only those again. */
  async verify(id: string, options: WorkOptions = {}): Promise<StoredModel> {
    const entry = (await this.#ownEntry(id)) ?? (await this.#refuseForeign(id));
    await this.#exclusively(entry, options, async () => {
      const installed = await findInstalled(this.directory, entry.id);
      if (!installed) throw notFound(`${entry.name} is not on this machine, so it cannot be verified.`);
      const damaged = await findDamage(installed, options);
      if (damaged.length > 0) throw await this.#removeDamaged(entry, installed, damaged);
    });
    return this.get(id);
  }

  /** Removes an installed model and its unfinished downloads. */
  async remove(id: string): Promise<StoredModel> {
    const entry = (await this.#ownEntry(id)) ?? (await this.#refuseForeign(id));
    const before = await this.get(entry.id);
    await this.#exclusively(entry, {}, async () => {
      const installed = await findInstalled(this.directory, entry.id);
      try {
        // Removes the manifest first, so that a partly removed model counts as absent.
        if (installed) await rm(join(installed.folder, manifestName), { force: true });
        if (installed) await rm(installed.folder, { recursive: true, force: true });
        await removeDerived(this.directory);
        for (const source of entry.sources) {
          await rm(stagingFolder(this.directory, entry, source), { recursive: true, force: true });
        }
      } catch (error) {
        throw diskError(error, this.directory);
      }
    });
    const { path: _, ...rest } = before;
    return { ...rest, state: 'absent', partialBytes: 0 };
  }

  /** An entry of the catalogue, or of an installed model. */
  async #ownEntry(id: string): Promise<CatalogueEntry | undefined> {
    return findEntry(id, this.#entries) ?? (await this.#installedEntry(id));
  }

  /** `owner/name` matches any installed model of that repository. */
  async #installedEntry(id: string): Promise<CatalogueEntry | undefined> {
    if (isForeignId(id)) return undefined;
    const reference = parseHubReference(id);
    const name = reference ? [reference.repository, reference.quantisation].filter(Boolean).join(':') : id;
    const installed = await listInstalled(this.directory);
    const entries = installed.flatMap(({ manifest: { entry } }) => entry ?? []);
    const isWanted = (wanted: string) => wanted.toLowerCase() === name.toLowerCase();
    return (
      entries.find((entry) => isWanted(entry.id)) ??
      (reference && entries.find((entry) => isWanted(entry.id.replace(/:.*$/, ''))))
    );
  }

  #foreign(): Promise<readonly ForeignModel[]> {
    return (this.#options.foreign ?? listForeign)();
  }

  async #listForeign(hardware: Hardware): Promise<readonly StoredModel[]> {
    const described = await describeForeign(await this.#foreign(), join(this.directory, 'foreign.json'));
    return described.map(({ model, entry, problem = '' }) => {
      const { owner, path } = model;
      const fit: Fit = entry ? judge(entry, hardware) : { verdict: 'no', reason: problem };
      return {
        ...{ entry: entry ?? unknownEntry(model), owner, state: 'present', path, partialBytes: 0, fit },
        needs: entry ? hardwareNeeds(entry) : '',
        recommendedFor: [],
        suitability: entry ? suitabilityOf(entry, fit, { owner, recommendedFor: [] }) : {},
      };
    });
  }

  /** @throws HearthError because the files belong to another program, or because there is no such model. */
  async #refuseForeign(id: string): Promise<never> {
    const foreign = isForeignId(id) ? (await this.#foreign()).find((model) => model.id === id) : undefined;
    if (!foreign) return this.#unknown(id);
    throw invalidInput(`${id} belongs to ${foreign.owner}; Hearth only reads it. Check or remove it there.`);
  }

  #unknown(id: string): never {
    throw notFound(notInCatalogue(id));
  }

  #access({ signal, token }: PullOptions): HubAccess {
    const { idleMs } = this.#options.retry ?? defaultRetry;
    return { endpoints: this.#endpoints(token), idleMs, signal };
  }

  #endpoints(token: string | undefined): Endpoints {
    const endpoints = this.#options.endpoints ?? endpointsFrom(process.env);
    return token === undefined ? endpoints : { ...endpoints, token };
  }

  async #hardware(): Promise<Hardware> {
    return this.#options.hardware ?? detectMachine();
  }

  #choose(hardware: Hardware): Choice {
    const { families } = this.#options;
    return choosePair(this.#entries, hardware, { fallbackId: defaultModelId, ...(families && { families }) });
  }

  async #describe(
    entry: CatalogueEntry,
    hardware: Hardware,
    pair: Choice,
    models: readonly Installed[],
  ): Promise<StoredModel> {
    const installed = models.find((model) => model.manifest.id === entry.id);
    const fit = judge(entry, hardware);
    const recommendedFor = rolesIn(pair, entry);
    const suitability = suitabilityOf(entry, fit, { recommendedFor });
    const common = { entry, needs: hardwareNeeds(entry), fit, recommendedFor, suitability };
    if (installed) return { ...common, state: 'present', path: pathToLoad(installed), partialBytes: 0 };
    const partialBytes = await stagedBytes(this.directory, entry);
    return { ...common, state: partialBytes > 0 ? 'partial' : 'absent', partialBytes };
  }

  async #exclusively(entry: Downloadable, options: WorkOptions, work: () => Promise<void>): Promise<void> {
    throwIfAborted(options.signal);
    const key = createHash('sha256').update(entry.id).digest('hex');
    const onWait = async () => {
      const doneBytes = await stagedBytes(this.directory, entry);
      options.onProgress?.({ phase: 'waiting', source: '', doneBytes, totalBytes: entry.downloadBytes });
    };
    await withLock(lockFile(this.directory, key), { signal: options.signal, onWait }, work);
  }

  /** `describe` opens a model that isn't in the catalogue; if it fails, the files are removed again. */
  async #fetch(
    entry: Downloadable,
    options: PullOptions,
    describe?: (path: string) => Promise<CatalogueEntry>,
  ): Promise<void> {
    const failures: string[] = [];
    for (const source of entry.sources) {
      const name = sourceName(source);
      try {
        const fetched = await fetchModel(entry, source, {
          root: this.directory,
          endpoints: this.#endpoints(options.token),
          retry: this.#options.retry ?? defaultRetry,
          packedBytes: packedBytes(entry, await this.#hardware()),
          signal: options.signal,
          onBytes: reporter(name, options.onProgress),
        });
        const open = await describe?.(pathToLoad({ folder: fetched.folder, manifest: fetched }));
        await install(this.directory, entry, fetched, name, open);
        await this.#removeStaging(entry);
        return;
      } catch (error) {
        // Another source can't help after a cancellation or a disk error.
        if (!(error instanceof HearthError) || error instanceof DiskFull || error.code === 'cancelled') {
          throw diskError(error, this.directory);
        }
        // Another source also can't help if Hearth can't run the model.
        if (describe && error.code !== 'unavailable') {
          await this.#removeStaging(entry);
          throw error;
        }
        failures.push(`${name}: ${error.message}`);
      }
    }
    throw await this.#downloadError(entry, failures);
  }

  async #removeStaging(entry: Downloadable): Promise<void> {
    for (const source of entry.sources) {
      await rm(stagingFolder(this.directory, entry, source), { recursive: true, force: true });
    }
  }

  async #downloadError(entry: Downloadable, failures: readonly string[]): Promise<HearthError> {
    const keptBytes = await stagedBytes(this.directory, entry);
    const kept = keptBytes > 0 ? ` ${showBytes(keptBytes)} are kept; the next download resumes there.` : '';
    const files = entry.files.length === 1 ? `the file ${entry.files[0]?.name ?? ''}` : 'a folder with its files';
    return new HearthError(
      'unavailable',
      `Could not download ${entry.name}. ${failures.join(' ')}${kept} ` +
        `Without internet access, copy ${files} to this machine and ${places().byFile}.`,
    );
  }

  /** Turns an installed model back into a partial download without the damaged files. */
  async #removeDamaged(entry: CatalogueEntry, installed: Installed, damaged: readonly string[]) {
    const { folder, manifest } = installed;
    const [first] = entry.sources;
    await rm(join(folder, manifestName), { force: true });
    for (const name of damaged) await rm(join(folder, name), { force: true });
    await removeDerived(this.directory);
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
    const again = first ? `Download it again ${places().pull(entry.id)}.` : `Import it again: ${places().byFile}.`;
    return invalidInput(`${damaged.join(', ')} of ${entry.name} was damaged and has been removed. ${again}`);
  }
}

/** A model that can't be opened; its `fit` says why. */
function unknownEntry({ id, name, owner }: ForeignModel): ListedEntry {
  const unknown = {
    parameters: 0,
    activeParameters: 0,
    bytesPerToken: 0,
    cacheBytesPerToken: 0,
    contextTokens: 0,
    rank: 0,
  };
  return {
    ...unknown,
    id,
    name,
    family: 'unknown',
    description: `In ${owner}.`,
    licence: { name: 'not stated', url: '', open: false },
    quantisation: '',
    downloadBytes: 0,
    downloadEstimated: false,
    roles: ['chat'],
    fillInTheMiddle: false,
    files: [],
    sources: [],
  };
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
    ...(model.owner !== undefined && { owner: model.owner }),
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
    recommendedFor: [...model.recommendedFor],
    suitability: model.suitability,
  };
}
