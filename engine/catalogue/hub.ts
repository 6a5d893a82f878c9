/**
 * Models on the Hugging Face hub: the offers of a repository, and the files that an offer needs. API:
 * https://huggingface.co/docs/hub/api (`/api/models/OWNER/NAME`, and its `/tree/REVISION`).
 */
import { z } from 'zod';
import { invalidInput, notFound, showBytes } from '../errors.ts';
import { limits } from '../limits.ts';
import { requireArchitecture, specFromConfig } from '../model/open.ts';
import { refuseUnusableConfig } from '../model/unusable.ts';
import type { CatalogueFile, Downloadable, HubSource } from './catalogue.ts';
import { isSafeFileName, isSha256 } from './files.ts';
import { type Fit, type Hardware, judge } from './fit.ts';
import { get, getText, HttpFailure, statusFailure } from './http.ts';
import { accessProblem, baseOf, type Endpoints, fromAnyHub } from './sources.ts';

/** `owner/name`, or `owner/name:QUANT` for one of its files. */
export interface HubReference {
  readonly repository: string;
  readonly quantisation?: string;
}

/** Undefined if `text` can't be a repository's name. */
export function parseHubReference(text: string): HubReference | undefined {
  const pasted = text.trim().replace(/^(https:\/\/)?(huggingface\.co|hf\.co)\//, '');
  const [, repository, quantisation] =
    /^([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*)(?::([\w.-]+))?\/?$/.exec(pasted) ?? [];
  if (repository === undefined || /^\.|\.(gguf|json|safetensors)$/.test(repository)) return undefined;
  return { repository, ...(quantisation !== undefined && { quantisation }) };
}

/** One model of a repository: a GGUF, the parts of one, or the safetensors of its root. */
export interface HubOffer {
  /** Completes the id: `owner/name:Q4_K_M`. */
  readonly label: string;
  readonly files: readonly CatalogueFile[];
  readonly bytes: number;
}

export interface HubRepository {
  readonly name: string;
  /** The commit, or `main` if the hub doesn't tell. */
  readonly revision: string;
  readonly licence?: string;
  readonly offers: readonly HubOffer[];
}

/** Addresses of the hub, and time limits. */
export interface HubAccess {
  readonly endpoints: Endpoints;
  readonly idleMs: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * @throws HearthError `unavailable` if no hub answers, or refuses (the message says what to do); `not-found` if there
 * is no model.
 */
export function readRepository(name: string, access: HubAccess): Promise<HubRepository> {
  const { hub, otherHubs = [] } = access.endpoints;
  return fromAnyHub([hub, ...otherHubs], async (each) => {
    const about = await modelInfo(each, name, access);
    const revision = about?.sha ?? 'main';
    const offers = offersOf(await listFiles(each, name, revision, access));
    if (offers.length === 0) throw notFound(`${name} has neither GGUF files nor safetensors with a config.json.`);
    const licence = about?.cardData?.license;
    return { name, revision, offers, ...(typeof licence === 'string' && { licence }) };
  });
}

const modelInfoPage = z.object({
  sha: z
    .string()
    .regex(/^[0-9a-f]{40}$/)
    .optional(),
  cardData: z.looseObject({ license: z.unknown() }).nullish(),
});

/** Undefined from mirrors that lack this page. */
async function modelInfo(hub: URL, name: string, access: HubAccess) {
  try {
    const { text } = await ask(`${baseOf(hub)}/api/models/${name}`, hub, name, access);
    return modelInfoPage.safeParse(JSON.parse(text)).data;
  } catch (error) {
    if (error instanceof HttpFailure && error.status === 404 && error.reason !== 'RepoNotFound') return undefined;
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

const treePage = z.array(
  z.looseObject({
    type: z.string(),
    path: z.string().max(1024),
    size: z.number().int().nonnegative(),
    /** Git's name of the file; of its pointer for a file in Git LFS. */
    oid: z.string(),
    lfs: z.looseObject({ oid: z.string(), size: z.number().int().nonnegative() }).nullish(),
  }),
);

async function listFiles(hub: URL, name: string, revision: string, access: HubAccess): Promise<CatalogueFile[]> {
  const files: CatalogueFile[] = [];
  let page: string | undefined = `${baseOf(hub)}/api/models/${name}/tree/${revision}?recursive=true`;
  for (let pages = 0; page !== undefined && pages < limits.store.hubPages; pages++) {
    const { text, response } = await ask(page, hub, name, access);
    files.push(...filesOfPage(text, hub));
    page = nextPage(response.headers.get('link'), hub);
  }
  return files;
}

function filesOfPage(text: string, hub: URL): CatalogueFile[] {
  let parsed: z.infer<typeof treePage>;
  try {
    parsed = treePage.parse(JSON.parse(text));
  } catch (error) {
    throw new HttpFailure(`${hub.host} did not answer with a list of files.`, 'never', { cause: error });
  }
  return parsed.flatMap(({ type, path, size, oid, lfs }) => {
    const parts = path.split('/');
    const name = parts.at(-1) ?? '';
    if (type !== 'file' || !parts.every(isSafeFileName)) return [];
    const sha256 = lfs?.oid.replace(/^sha256:/, '');
    const digest = lfs ? { sha256 } : { gitBlob: oid };
    const known = lfs ? sha256 !== undefined && isSha256(sha256) : /^[0-9a-f]{40}$/.test(oid);
    return known ? [{ name, path, bytes: lfs?.size ?? size, ...digest }] : [];
  });
}

/** RFC 8288's `<ADDRESS>; rel="next"`, on the same host only. */
function nextPage(link: string | null, hub: URL): string | undefined {
  const address = /<([^<>]+)>;\s*rel="?next"?/.exec(link ?? '')?.[1];
  if (address === undefined || !URL.canParse(address, hub.href)) return undefined;
  const url = new URL(address, hub.href);
  return url.origin === hub.origin ? url.href : undefined;
}

async function ask(address: string, hub: URL, repository: string, { endpoints, idleMs, signal }: HubAccess) {
  const { token } = endpoints;
  try {
    return await getText(new URL(address), limits.store.indexBytes, { token, idleMs, signal });
  } catch (error) {
    throw accessProblem(error, hub, repository, token !== undefined);
  }
}

// The offers of a repository.

const splitName = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/;
/** llama.cpp's names of file types, at the end of a file's name. */
const quantisationName =
  /(?:^|[-._])((?:UD-)?(?:I?Q\d+(?:_[A-Z0-9]+)*|TQ\d_\d|BF16|F16|F32|FP16|FP32|MXFP4(?:_[A-Z]+)?))$/i;

function offersOf(files: readonly CatalogueFile[]): HubOffer[] {
  const models = files.filter(({ name }) => name.endsWith('.gguf') && !/mmproj|imatrix/i.test(name));
  const groups = new Map<string, CatalogueFile[]>();
  for (const file of models) {
    const [, split] = splitName.exec(pathOf(file)) ?? [];
    const stem = split ?? pathOf(file).slice(0, -'.gguf'.length);
    groups.set(stem, [...(groups.get(stem) ?? []), file]);
  }
  const whole = [...groups].filter(([, parts]) => parts.length === partsWanted(parts[0]));
  const labels = whole.map(([stem]) => quantisationOf(stem) ?? basename(stem));
  const ggufs = whole.map(([stem, parts], index): HubOffer => {
    const label = labels[index] ?? stem;
    const unique = labels.filter((other) => other === label).length === 1;
    return offer(unique ? label : basename(stem), parts);
  });
  const checkpoint = safetensorsOf(files);
  const all = checkpoint ? [...ggufs, offer('safetensors', checkpoint)] : ggufs;
  return all.sort((a, b) => a.bytes - b.bytes);
}

const pathOf = ({ name, path }: CatalogueFile): string => path ?? name;
const basename = (path: string): string => path.slice(path.lastIndexOf('/') + 1);

const partsWanted = (file: CatalogueFile | undefined): number => Number(splitName.exec(file?.name ?? '')?.[3] ?? 1);

/** `Q4_K_M` of `qwen2.5-coder-7b-instruct-q4_k_m`; undefined if the name has none. */
export const quantisationOf = (stem: string): string | undefined => quantisationName.exec(stem)?.[1]?.toUpperCase();

function offer(label: string, files: readonly CatalogueFile[]): HubOffer {
  const sorted = [...files].sort((a, b) => (a.name < b.name ? -1 : 1));
  return { label, files: sorted, bytes: sorted.reduce((sum, { bytes = 0 }) => sum + bytes, 0) };
}

/** Text files of a checkpoint that Hearth reads. */
const checkpointTexts = new Set([
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'model.safetensors.index.json',
]);

/** A file of a model folder's root that Hearth reads. */
export const isCheckpointFile = (name: string): boolean =>
  checkpointTexts.has(name) || /^model(-\d{5}-of-\d{5,6})?\.safetensors$/.test(name);

function safetensorsOf(files: readonly CatalogueFile[]): readonly CatalogueFile[] | undefined {
  // The store can't hold an embedding model's folder 1_Pooling, and without it the model would count as a chat model.
  if (files.some(({ path }) => path === '1_Pooling/config.json')) return undefined;
  const root = files.filter((file) => pathOf(file) === file.name && isCheckpointFile(file.name));
  const complete = ['config.json', /safetensors$/].every((wanted) => root.some(({ name }) => name.match(wanted)));
  return complete ? root : undefined;
}

/**
 * The offer that the user named. Default: Q4_K_M, as in Ollama and llama.cpp, or the only one.
 * @throws HearthError `not-found` or `invalid-input`, with the offers.
 */
export function chooseOffer({ name, offers }: HubRepository, wanted: string | undefined): HubOffer {
  const asked = (wanted ?? 'Q4_K_M').toLowerCase();
  const named =
    offers.find(({ label }) => label.toLowerCase() === asked) ??
    offers.find(({ files }) => files.some((file) => file.name.toLowerCase().replace(/\.gguf$/, '') === asked));
  if (named) return named;
  const [only] = offers;
  if (wanted === undefined && only && offers.length === 1) return only;
  const list = offers.map(({ label, bytes }) => `${label} (${showBytes(bytes)})`).join(', ');
  if (wanted === undefined)
    throw invalidInput(`${name} has several models: ${list}. Name one: ${name}:${offers[0]?.label}`);
  throw notFound(`${name} has no ${wanted}. It has ${list}.`);
}

/**
 * Estimates from the size alone, before the download, for a dense model: five bits a weight, and KV-cache bytes a token
 * of 1/40,000 of the size, as in published Q4_K_M models.
 */
export function fitOf({ bytes }: HubOffer, hardware: Hardware): Fit {
  const sizes = { downloadBytes: bytes, bytesPerToken: bytes, activeParameters: (bytes * 8) / 5, contextTokens: 8192 };
  return judge({ ...sizes, cacheBytesPerToken: Math.min(bytes / 40_000, 262_144) }, hardware);
}

export interface HubDownload extends Downloadable {
  readonly sources: HubSource[];
  readonly licence: string;
  readonly quantisation: string;
}

/**
 * The files to download for an offer. Reads its first bytes, so that a model that Hearth can't run is refused before
 * gigabytes are downloaded.
 * @throws HearthError `unsupported` or `invalid-input` as `openModel` does.
 */
export async function planDownload(
  repository: HubRepository,
  chosen: HubOffer,
  access: HubAccess,
): Promise<HubDownload> {
  const { name, revision, licence = 'not stated' } = repository;
  const { hub, otherHubs = [] } = access.endpoints;
  const read = (file: CatalogueFile) =>
    fromAnyHub([hub, ...otherHubs], (each) =>
      beginningOf(new URL(`${baseOf(each)}/${name}/resolve/${revision}/${pathOf(file)}`), access).catch(
        (error: unknown) => {
          throw accessProblem(error, each, name, access.endpoints.token !== undefined);
        },
      ),
    );
  const config = chosen.files.find((file) => file.name === 'config.json');
  const [first] = chosen.files;
  if (config) requireConfig(await read(config), name);
  else if (first) requireArchitecture(architectureOf(await read(first)));
  return {
    id: `${name}:${chosen.label}`,
    name: `${basename(name)} ${chosen.label}`,
    files: [...chosen.files],
    sources: [{ kind: 'hub', repository: name, revision }],
    downloadBytes: chosen.bytes,
    licence,
    quantisation: chosen.label,
  };
}

function requireConfig(bytes: Buffer, name: string): void {
  let config: unknown;
  try {
    config = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    if (error instanceof SyntaxError) throw invalidInput(`config.json of ${name} isn't JSON.`);
    throw error;
  }
  refuseUnusableConfig(config, name);
  specFromConfig(config);
}

/** The value of `general.architecture`, which writers put first; undefined if it isn't in these bytes. */
function architectureOf(bytes: Buffer): string | undefined {
  const key = 'general.architecture';
  const at = bytes.indexOf(key);
  // The key is followed by the type (8: text) and a length of 64 bits, all little-endian.
  const start = at + key.length + 12;
  if (at < 0 || start > bytes.length || bytes.readUInt32LE(at + key.length) !== 8) return undefined;
  const length = bytes.readUInt32LE(at + key.length + 4);
  return length <= 64 ? bytes.subarray(start, start + length).toString('utf8') : undefined;
}

/** Reads at most `limits.model.configBytes`, even if the server ignores the range. */
async function beginningOf(address: URL, { endpoints, idleMs, signal }: HubAccess): Promise<Buffer> {
  const most = address.pathname.endsWith('.json') ? limits.model.configBytes : limits.formats.headerChunkBytes;
  const headers = { range: `bytes=0-${most - 1}` };
  const response = await get(address, { headers, token: endpoints.token, idleMs, signal });
  try {
    if (response.status !== 200 && response.status !== 206) throw statusFailure(response);
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of response.body) {
      chunks.push(chunk);
      bytes += chunk.byteLength;
      if (bytes >= most) break;
    }
    return Buffer.concat(chunks);
  } finally {
    response.close();
  }
}
