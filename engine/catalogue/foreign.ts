/** Models of other programs on this machine (Ollama, LM Studio, the hub's cache), used in place. */

import { constants } from 'node:fs';
import { copyFile, mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { canSendExperts, computesExperts } from '../backend/experts.ts';
import { HearthError, invalidInput, notFound, throwIfAborted } from '../errors.ts';
import { limits } from '../limits.ts';
import { checkOpens, openCheckpoint } from '../model/open.ts';
import { describeModel, inspectSpec, routedExperts } from '../model/spec/describe.ts';
import { type CatalogueEntry, type CatalogueFile, type HubSource, openEntry } from './catalogue.ts';
import { type FinishedFile, markFinished } from './download.ts';
import {
  diskError,
  type Environment,
  errorCode,
  fileBytes,
  hashFile,
  isSha256,
  readJson,
  requireSpace,
  type WorkOptions,
  writeJson,
} from './files.ts';
import { isCheckpointFile, quantisationOf } from './hub.ts';

export interface ForeignModel {
  /** `ollama:qwen2.5-coder:7b`, `lm-studio:owner/name/file.gguf`, `hub-cache:owner/name` */
  readonly id: string;
  readonly name: string;
  /** The program that owns it. */
  readonly owner: 'Ollama' | 'LM Studio' | "the Hugging Face hub's cache";
  /** A GGUF, or a folder with safetensors. */
  readonly path: string;
}

export const isForeignId = (id: string): boolean => /^(ollama|lm-studio|hub-cache):/.test(id);

const current = (): Environment => ({ platform: process.platform, home: homedir(), variables: process.env });

/** All models of other programs, sorted by id. Folders that can't be read count as empty. */
export async function listForeign(environment: Environment = current()): Promise<readonly ForeignModel[]> {
  const lists = await Promise.all([
    ...ollamaFolders(environment).map(ollamaModels),
    ...lmStudioFolders(environment).map(lmStudioModels),
    ...hubCacheFolders(environment).map(hubCacheModels),
  ]);
  const byId = new Map(lists.flat().map((model) => [model.id, model]));
  return [...byId.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
}

const set = (value: string | undefined): value is string => value !== undefined && value !== '';

/** https://github.com/ollama/ollama/blob/main/docs/faq.md#where-are-models-stored */
function ollamaFolders({ platform, home, variables }: Environment): string[] {
  const chosen = variables['OLLAMA_MODELS'];
  if (set(chosen)) return [chosen];
  const service = platform === 'linux' ? ['/usr/share/ollama/.ollama/models'] : [];
  return [join(home, '.ollama', 'models'), ...service];
}

function lmStudioFolders({ home }: Environment): string[] {
  return [join(home, '.lmstudio', 'models'), join(home, '.cache', 'lm-studio', 'models')];
}

/** https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables */
function hubCacheFolders({ home, variables }: Environment): string[] {
  const { HF_HUB_CACHE: cache, HF_HOME: root, XDG_CACHE_HOME: xdg } = variables;
  if (set(cache)) return [cache];
  return [join(set(root) ? root : join(set(xdg) ? xdg : join(home, '.cache'), 'huggingface'), 'hub')];
}

const ollamaManifest = z.looseObject({
  layers: z.array(z.looseObject({ mediaType: z.string(), digest: z.string() })).max(1000),
});

/** `manifests/HOST/NAMESPACE/NAME/TAG` names blobs by digest; one of them is a GGUF. */
async function ollamaModels(root: string): Promise<ForeignModel[]> {
  const models: ForeignModel[] = [];
  const manifests = join(root, 'manifests');
  for (const path of await filesBelow(manifests)) {
    const { layers } = ollamaManifest.safeParse(await readJson(join(manifests, path))).data ?? { layers: [] };
    const weights = layers.filter(({ mediaType }) => mediaType === 'application/vnd.ollama.image.model');
    // More than one layer: safetensors split into blobs, so no single file has the model.
    const digest = weights.length === 1 ? weights[0]?.digest.replace(/^sha256:/, '') : undefined;
    if (digest === undefined || !isSha256(digest)) continue;
    const blob = join(root, 'blobs', `sha256-${digest}`);
    if ((await fileBytes(blob)) === undefined) continue;
    const name = ollamaName(path);
    models.push({ id: `ollama:${name}`, name, owner: 'Ollama', path: blob });
  }
  return models;
}

/** The name that `ollama list` shows: without the default host and namespace. */
function ollamaName(path: string): string {
  const parts = path.split('/');
  const tag = parts.pop() ?? '';
  return `${parts.join('/').replace(/^registry\.ollama\.ai\/(library\/)?/, '')}:${tag}`;
}

async function lmStudioModels(root: string): Promise<ForeignModel[]> {
  return (await modelsBelow(root)).map((path) => ({
    id: `lm-studio:${path}`,
    name: path.slice(path.lastIndexOf('/') + 1).replace(/\.gguf$/, ''),
    owner: 'LM Studio',
    path: join(root, path),
  }));
}

/** `models--OWNER--NAME/snapshots/COMMIT/…`, links into `blobs`; `refs/main` has the latest commit. */
async function hubCacheModels(root: string): Promise<ForeignModel[]> {
  const models: ForeignModel[] = [];
  for (const folder of await namesIn(root)) {
    const repository = /^models--(.+)$/.exec(folder)?.[1]?.replaceAll('--', '/');
    const snapshots = join(root, folder, 'snapshots');
    const commits = repository === undefined ? [] : await namesIn(snapshots);
    const latest = await readFile(join(root, folder, 'refs', 'main'), 'utf8').catch(() => '');
    const commit = commits.find((each) => each === latest.trim()) ?? commits[0];
    if (repository === undefined || commit === undefined) continue;
    for (const path of await modelsBelow(join(snapshots, commit))) {
      const whole = [repository, path].filter(Boolean).join('/');
      const name = whole.slice(whole.lastIndexOf('/') + 1).replace(/\.gguf$/, '');
      const source = join(snapshots, commit, path);
      models.push({ id: `hub-cache:${whole}`, name, owner: "the Hugging Face hub's cache", path: source });
    }
  }
  return models;
}

/** GGUF files (the first part of a split one) and folders with a checkpoint; `''` for `root` itself. */
async function modelsBelow(root: string): Promise<string[]> {
  const files = await filesBelow(root);
  const all = new Set(files);
  return files.flatMap((path) => {
    if (path.endsWith('.gguf')) return /mmproj|imatrix|-(?!00001-of-)\d{5}-of-\d{5}\.gguf$/i.test(path) ? [] : [path];
    if (!/(^|\/)config\.json$/.test(path)) return [];
    const folder = path.slice(0, -'config.json'.length);
    const single = all.has(`${folder}model.safetensors`) || all.has(`${folder}model.safetensors.index.json`);
    return single ? [folder.replace(/\/$/, '')] : [];
  });
}

/** Paths of files, links to files included, with forward slashes. */
async function filesBelow(root: string): Promise<string[]> {
  const files: string[] = [];
  let seen = 0;
  const walk = async (path: string, depth: number): Promise<void> => {
    for (const name of await namesIn(join(root, path))) {
      if (name.startsWith('.') || ++seen > limits.store.foreignFiles) continue;
      const below = path === '' ? name : `${path}/${name}`;
      const status = await stat(join(root, below)).catch(() => undefined);
      if (status?.isFile()) files.push(below);
      else if (status?.isDirectory() && depth < limits.store.foreignDepth) await walk(below, depth + 1);
    }
  };
  await walk('', 1);
  return files;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EACCES' || code === 'EPERM') return [];
    throw new HearthError('unavailable', `${folder} cannot be read (${code}).`, { cause: error });
  }
}

// Caches the description of another program's model by size and date, because reading a vocabulary takes a tenth of a second.

const remembered = z.record(
  z.string(),
  z.object({ bytes: z.number(), changedMs: z.number(), entry: openEntry.optional(), problem: z.string().optional() }),
);

/** `problem`: why Hearth can't run it. */
interface DescribedForeign {
  readonly model: ForeignModel;
  readonly entry?: CatalogueEntry | undefined;
  readonly problem?: string | undefined;
}

/** `recordPath`: a JSON file that only this function reads and writes. */
export async function describeForeign(
  models: readonly ForeignModel[],
  recordPath: string,
): Promise<readonly DescribedForeign[]> {
  if (models.length === 0) return [];
  const known = remembered.safeParse(await readJson(recordPath, limits.store.indexBytes)).data ?? {};
  const now: z.infer<typeof remembered> = {};
  const described: DescribedForeign[] = [];
  for (const model of models) {
    const { size: bytes, mtimeMs: changedMs } = await stat(model.path);
    const before = known[model.path];
    const same = before?.bytes === bytes && before.changedMs === changedMs;
    const about = same ? before : { bytes, changedMs, ...(await describeOrExplain(model)) };
    now[model.path] = about;
    described.push({ model, entry: about.entry, problem: about.problem });
  }
  if (JSON.stringify(now) !== JSON.stringify(known)) {
    await mkdir(dirname(recordPath), { recursive: true });
    await writeJson(recordPath, now);
  }
  return described;
}

async function describeOrExplain({ id, name, path, owner }: ForeignModel) {
  const description = `Used in place, from ${owner}.`;
  try {
    return { entry: await describeFiles(path, { id, name, description }) };
  } catch (error) {
    if (error instanceof HearthError) return { problem: error.message };
    throw error;
  }
}

// Imports models from local files. A catalogue model is recognised by name and size, copied, and verified like a
// download. Any other model is opened first, and copied if it opens.

interface Collected {
  readonly entry: CatalogueEntry;
  /** False for a model that isn't in the catalogue. */
  readonly known: boolean;
  copyTo(folder: string, options: WorkOptions): Promise<readonly (FinishedFile & { readonly name: string })[]>;
}

/**
 * Finds the catalogue entry whose files are at `path`, or describes the model there.
 * @throws HearthError as `openModel` does, if Hearth can't run the model.
 */
export async function collect(path: string, entries: readonly CatalogueEntry[]): Promise<Collected> {
  const isFolder = await isDirectory(path);
  const folder = isFolder ? path : dirname(path);
  for (const entry of entries) {
    const pairs = pairUp(entry, path, folder, isFolder);
    if (pairs && (await sizesMatch(pairs))) {
      // Without digests, only opening the files shows whether they are this model.
      if (entry.files.some(({ sha256 }) => sha256 === undefined)) await checkOpens(path);
      return { entry, known: true, copyTo: (target, options) => copyAll(pairs, target, options) };
    }
  }
  const names = await modelFiles(path, isFolder);
  const pairs = names.map((name): Pair => [{ name: names.length === 1 ? 'model.gguf' : name }, join(folder, name)]);
  const name = basename(path).replace(/(-\d{5}-of-\d{5})?\.gguf$/, '');
  const entry = await describeFiles(path, {
    id:
      name
        .toLowerCase()
        .replaceAll(/[^a-z0-9.-]+/g, '-')
        .replace(/^[^a-z0-9]+/, '') || 'model',
    name,
    description: `Imported from ${path}.`,
    files: await Promise.all(pairs.map(([file, origin]) => withSize(file, origin))),
    readTokenizer: true,
  });
  return { entry, known: false, copyTo: (target, options) => copyAll(pairs, target, options) };
}

async function withSize(file: CatalogueFile, path: string): Promise<CatalogueFile> {
  const bytes = await fileBytes(path);
  return { name: file.name, ...(bytes !== undefined && { bytes }) };
}

/** The GGUF, all parts of a split one, or the files of a checkpoint. */
async function modelFiles(path: string, isFolder: boolean): Promise<string[]> {
  if (isFolder) return (await readdir(path)).filter(isCheckpointFile).sort();
  const name = basename(path);
  const [, before, after] = /^(.*-)\d{5}(-of-\d{5}\.gguf)$/.exec(name) ?? [];
  if (before === undefined || after === undefined) return [name];
  const names = await readdir(dirname(path));
  return names.filter((each) => each.startsWith(before) && each.endsWith(after)).sort();
}

type Pair = readonly [file: CatalogueFile, path: string];

/** Maps the entry's files to files on disk. A single file may have any name, if its size is known. */
function pairUp(entry: CatalogueEntry, path: string, folder: string, isFolder: boolean): readonly Pair[] | undefined {
  const [only] = entry.files;
  if (isFolder) return entry.files.map((file) => [file, join(folder, file.name)]);
  return only?.bytes !== undefined && entry.files.length === 1 ? [[only, path]] : undefined;
}

async function sizesMatch(pairs: readonly Pair[]): Promise<boolean> {
  for (const [file, path] of pairs) {
    const bytes = await fileBytes(path);
    if (bytes === undefined || (file.bytes !== undefined && bytes !== file.bytes)) return false;
  }
  return true;
}

async function copyAll(pairs: readonly Pair[], folder: string, options: WorkOptions) {
  const sizes = await Promise.all(pairs.map(([, path]) => fileBytes(path)));
  const totalBytes = sizes.reduce<number>((sum, bytes) => sum + (bytes ?? 0), 0);
  await requireSpace(folder, [{ what: 'the copy', bytes: totalBytes }]);
  let doneBytes = 0;
  const copied: (FinishedFile & { readonly name: string })[] = [];
  for (const [file, origin] of pairs) {
    throwIfAborted(options.signal);
    const finished = await copyOne(file, origin, folder, options.signal);
    doneBytes += finished.bytes;
    options.onProgress?.({ phase: 'copy', source: basename(origin), doneBytes, totalBytes });
    copied.push({ ...finished, name: file.name });
  }
  return copied;
}

async function copyOne(file: CatalogueFile, origin: string, folder: string, signal: AbortSignal | undefined) {
  const partial = join(folder, `${file.name}.partial`);
  const path = join(folder, file.name);
  try {
    await copyFile(origin, partial, constants.COPYFILE_FICLONE);
  } catch (error) {
    throw diskError(error, partial);
  }
  const sha256 = await hashFile(partial, { signal });
  if (file.sha256 !== undefined && file.sha256 !== sha256) {
    await rm(partial, { force: true });
    throw invalidInput(`${origin} has SHA-256 ${sha256} instead of ${file.sha256}: it is damaged or a different file.`);
  }
  const bytes = (await stat(partial)).size;
  await markFinished(folder, file.name, bytes, sha256);
  await rename(partial, path);
  return { path, bytes, sha256 };
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR') throw notFound(`${path}: not found`);
    throw error;
  }
}

// Describes a model that isn't in the catalogue from its own files, by opening it.

interface KnownAbout {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  /** As the publisher states it; default: the file's own statement. */
  readonly licence?: string;
  readonly quantisation?: string;
  readonly files?: CatalogueEntry['files'];
  readonly sources?: readonly HubSource[];
  /** Opens the tokenizer too, which takes up to a second. */
  readonly readTokenizer?: boolean;
}

/**
 * @param path a GGUF, or a folder with config.json and safetensors.
 * @throws HearthError as `openCheckpoint` does.
 */
export async function describeFiles(path: string, known: KnownAbout): Promise<CatalogueEntry> {
  const { spec, weights, embedding, file, licence: stated, readTokenizer } = await openCheckpoint(path);
  try {
    const described = describeModel({ spec, weights });
    const { cache, weights: sizes } = inspectSpec(spec, described.groups, []);
    const licence = known.licence ?? stated ?? 'not stated';
    const largest = Object.entries(described.bytesByType).sort(([, a], [, b]) => b - a)[0]?.[0] ?? '';
    // A model that is used in place needs no list of files.
    const files = known.files ?? [{ name: 'model.gguf', bytes: sizes.bytes }];
    const tokenizer = known.readTokenizer ? await readTokenizer() : undefined;
    const movable = canSendExperts(weights.layers) && computesExperts(weights.layers);
    const experts = movable ? routedExperts(spec, described.groups) : undefined;
    return {
      id: known.id,
      name: known.name,
      family: described.family,
      description: known.description,
      licence: { name: licence, url: 'https://spdx.org/licenses/', open: false },
      parameters: described.parameters,
      activeParameters: described.activeParameters,
      quantisation: known.quantisation ?? quantisationOf(basename(path).replace(/\.gguf$/, '')) ?? largest,
      downloadBytes: files.reduce((sum, { bytes = 0 }) => sum + bytes, 0),
      downloadEstimated: false,
      bytesPerToken: sizes.bytesPerToken,
      ...(experts && {
        experts: { bytes: experts.bytes, bytesPerToken: Math.round(experts.bytesPerToken), layers: experts.layers },
      }),
      // The KV cache doesn't grow if all layers have a sliding window, but the schema requires a number above 0.
      cacheBytesPerToken: Math.max(1, cache.bytesPerToken),
      contextTokens: described.contextTokens,
      fillInTheMiddle: tokenizer?.fillInTheMiddle !== undefined,
      roles: embedding ? ['embedding'] : ['completion', 'chat'],
      rank: 0,
      files,
      sources: [...(known.sources ?? [])],
    };
  } finally {
    await file.close();
  }
}
