/** Models of other programs on this machine (Ollama, LM Studio, the hub's cache), used where they lie. */
import { mkdir, readdir, readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { HearthError } from '../errors.ts';
import { limits } from '../limits.ts';
import { type CatalogueEntry, openEntry } from './catalogue.ts';
import { describeFiles } from './describeFiles.ts';
import { errorCode, fileBytes, readJson, writeJson } from './files.ts';
import { type Environment, isSha256 } from './paths.ts';

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
    // More than one layer: safetensors cut into blobs, which no file holds whole.
    const digest = weights.length === 1 ? weights[0]?.digest.replace(/^sha256:/, '') : undefined;
    if (digest === undefined || !isSha256(digest)) continue;
    const blob = join(root, 'blobs', `sha256-${digest}`);
    if ((await fileBytes(blob)) === undefined) continue;
    const name = ollamaName(path);
    models.push({ id: `ollama:${name}`, name, owner: 'Ollama', path: blob });
  }
  return models;
}

/** As `ollama list` shows it: the usual host and namespace are left out. */
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

/** GGUF files (of a split one the first part) and folders with a checkpoint; `''` for `root` itself. */
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

// What a model of another program is, remembered by its size and date: reading a vocabulary takes a tenth of a second.

const remembered = z.record(
  z.string(),
  z.object({ bytes: z.number(), changedMs: z.number(), entry: openEntry.optional(), problem: z.string().optional() }),
);

/** `problem`: why Hearth can't run it. */
export interface DescribedForeign {
  readonly model: ForeignModel;
  readonly entry?: CatalogueEntry | undefined;
  readonly problem?: string | undefined;
}

/** `recordPath`: a JSON file that this function alone reads and writes. */
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
