/** Downloads one file from one URL: resumes partial files, retries transient failures, verifies before renaming. */

import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { z } from 'zod';
import { cancelled, showBytes, throwIfAborted } from '../errors.ts';
import { limits } from '../limits.ts';
import {
  diskError,
  fileBytes,
  hashFile,
  isSha256,
  readJson,
  requireSpace,
  safeFileName,
  syncFolder,
  writeJson,
} from './files.ts';
import { get, HttpFailure, type HttpResponse, showAddress, statusFailure } from './http.ts';

export interface RetryPolicy {
  /** Consecutive failures without any new byte before giving up on the source. */
  readonly attempts: number;
  readonly firstWaitMs: number;
  readonly idleMs: number;
}

export const defaultRetry: RetryPolicy = { attempts: 5, firstWaitMs: 500, idleMs: limits.store.idleMs };

/** Expected size and digests. A file is accepted only if at least one digest is known. */
export interface Expected {
  readonly bytes?: number | undefined;
  readonly sha256?: string | undefined;
  /** Git object id, the SHA-1 of `blob <length>\0<content>`. The hub announces it for small files. */
  readonly gitBlob?: string | undefined;
}

export interface DownloadJob {
  readonly address: URL;
  readonly folder: string;
  readonly name: string;
  readonly expected: Expected;
  readonly maxBytes: number;
  /** Reads the size and digests that a trusted server announces in its headers. */
  readonly announced?: (response: HttpResponse) => Expected;
  /** Sent only to the address's own host. */
  readonly token?: string | undefined;
  readonly retry: RetryPolicy;
  readonly signal?: AbortSignal | undefined;
  readonly onBytes?: ((doneBytes: number, totalBytes: number | undefined) => void) | undefined;
}

/** Downloads into `folder/name`. Returns immediately if the file is already complete. */
export async function download(job: DownloadJob): Promise<FinishedFile> {
  const finished = await findFinished(job.folder, job.name);
  if (finished && (job.expected.sha256 === undefined || job.expected.sha256 === finished.sha256)) return finished;
  const file = await PartialFile.open(job.folder, job.name, { sha256: job.expected.sha256 }, job.signal);
  const keptBytes = file.bytes;
  try {
    for (let restarts = 0; ; restarts++) {
      const { expected, connections } = await fetchAll(job, file);
      const problem = await findProblem(job, file, expected);
      if (problem === undefined) return await file.finish();
      const resumed = connections > 1 || (restarts === 0 && keptBytes > 0);
      if (!resumed || restarts > 0) {
        await file.discard();
        throw problem;
      }
      // A resumed file may mix two versions, or a power cut may have damaged it. Retry once from the start.
      await file.restart();
    }
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function findProblem(job: DownloadJob, file: PartialFile, expected: Expected): Promise<HttpFailure | undefined> {
  const shown = showAddress(job.address);
  if (expected.sha256 !== undefined) {
    if (expected.sha256 === file.digest()) return undefined;
    return new HttpFailure(`${shown} has SHA-256 ${file.digest()} instead of ${expected.sha256}.`, 'never');
  }
  const blob = await hashFile(file.path, { algorithm: 'sha1', prefix: `blob ${file.bytes}\0`, signal: job.signal });
  if (blob === expected.gitBlob) return undefined;
  return new HttpFailure(`${shown} has Git object name ${blob} instead of ${expected.gitBlob}.`, 'never');
}

/** Appends to `file` until it is complete, reconnecting as needed. */
async function fetchAll(job: DownloadJob, file: PartialFile): Promise<{ expected: Expected; connections: number }> {
  const { expected } = job;
  let failures = 0;
  let worked = false;
  for (let connections = 0; ; ) {
    if (expected.sha256 !== undefined && expected.bytes === file.bytes) return { expected, connections };
    const before = file.bytes;
    try {
      connections++;
      return { expected: await fetchOnce(job, file), connections };
    } catch (error) {
      if (!(error instanceof HttpFailure)) throw error;
      if (file.bytes !== before) {
        worked = true;
        failures = 0;
      }
      failures++;
      const hopeless = error.retry === 'never' || (error.retry === 'if-it-worked-before' && !worked);
      if (hopeless || failures >= job.retry.attempts) throw error;
      await pause(error.waitMs ?? Math.min(job.retry.firstWaitMs * 2 ** (failures - 1), limits.store.retryMs), job);
    }
  }
}

async function pause(ms: number, job: DownloadJob): Promise<void> {
  try {
    await wait(ms, undefined, { signal: job.signal });
  } catch (error) {
    if (job.signal?.aborted) throw cancelled('The download was cancelled.');
    throw error;
  }
}

/** Makes one connection. Returns when the file is complete. */
async function fetchOnce(job: DownloadJob, file: PartialFile): Promise<Expected> {
  const response = await get(job.address, {
    headers: rangeHeaders(file),
    token: job.token,
    signal: job.signal,
    idleMs: job.retry.idleMs,
  });
  try {
    const total = await positionBody(response, file);
    const expected = reconcile(job, response, total);
    const previous = file.belongsTo.sha256;
    if (file.bytes > 0 && previous !== undefined && previous !== expected.sha256) {
      await file.restart();
      throw new HttpFailure(`${showAddress(response.url)} has changed.`, 'later', { waitMs: 0 });
    }
    await file.identify({ sha256: expected.sha256, etag: strongEtag(response) });
    await receive(job, file, response, expected.bytes);
    return expected;
  } finally {
    response.close();
  }
}

/**
 * A known SHA-256 detects a changed file. Without one, `If-Range` makes the server resend a changed file from the start.
 * `If-Range` is sent only then, because a CDN may use a different ETag on each mirror.
 */
function rangeHeaders(file: PartialFile): Record<string, string> {
  const { sha256, etag } = file.belongsTo;
  if (file.bytes === 0) return {};
  const range = { range: `bytes=${file.bytes}-` };
  if (sha256 !== undefined) return range;
  return etag === undefined ? {} : { ...range, 'if-range': etag };
}

function strongEtag(response: HttpResponse): string | undefined {
  const etag = response.headers.get('etag');
  return etag?.startsWith('"') ? etag : undefined;
}

/** Truncates `file` if the body starts at byte 0. Returns the full length if the server announces it. */
async function positionBody(response: HttpResponse, file: PartialFile): Promise<number | undefined> {
  if (response.status === 200) {
    if (file.bytes > 0) await file.restart();
    return number(response.headers.get('content-length'));
  }
  const match = /^bytes (?:(\d+)-\d+|\*)\/(\d+|\*)$/i.exec(response.headers.get('content-range') ?? '');
  const [, start, total] = match ?? [];
  if (response.status === 206 && Number(start) === file.bytes) return number(total ?? null);
  if (response.status === 206 || response.status === 416) {
    // 416: the partial file is longer than the file. 206 at another offset: a broken server.
    await file.restart();
    throw new HttpFailure(`${showAddress(response.url)} did not send the requested byte range.`, 'later', {
      waitMs: 0,
    });
  }
  throw statusFailure(response);
}

function number(text: string | null): number | undefined {
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/** Checks that catalogue, announcement and response agree, and that there is a digest. */
function reconcile(job: DownloadJob, response: HttpResponse, total: number | undefined): Expected {
  const announced = job.announced?.(response) ?? {};
  const shown = showAddress(job.address);
  const { sha256, gitBlob, bytes } = job.expected;
  if (sha256 !== undefined && announced.sha256 !== undefined && sha256 !== announced.sha256) {
    throw new HttpFailure(
      `${shown} now has SHA-256 ${announced.sha256}, expected ${sha256}: a different file.`,
      'never',
    );
  }
  const sizes = [bytes, announced.bytes, total].filter((size) => size !== undefined);
  const size = sizes[0];
  if (sizes.some((other) => other !== size)) {
    throw new HttpFailure(`${shown} has ${sizes.at(-1)} bytes instead of ${size}.`, 'never');
  }
  if (size !== undefined && size > job.maxBytes) {
    throw new HttpFailure(`${shown} has ${showBytes(size)}, more than ${showBytes(job.maxBytes)}.`, 'never');
  }
  const known = { bytes: size, sha256: sha256 ?? announced.sha256, gitBlob: gitBlob ?? announced.gitBlob };
  if (known.sha256 === undefined && known.gitBlob === undefined) {
    throw new HttpFailure(`${shown} has no digest to verify against.`, 'never');
  }
  return known;
}

async function receive(job: DownloadJob, file: PartialFile, response: HttpResponse, total: number | undefined) {
  await requireSpace(job.folder, [{ what: 'the rest of the download', bytes: (total ?? file.bytes) - file.bytes }]);
  job.onBytes?.(file.bytes, total);
  for await (const chunk of response.body) {
    throwIfAborted(job.signal);
    if (file.bytes + chunk.byteLength > (total ?? job.maxBytes)) {
      throw new HttpFailure(`${showAddress(response.url)} sent more bytes than it announced.`, 'never');
    }
    await file.append(chunk);
    job.onBytes?.(file.bytes, total);
  }
  if (total !== undefined && file.bytes < total) {
    throw new HttpFailure(`${response.url.host} closed the connection after ${file.bytes} of ${total} bytes.`, 'later');
  }
}

// A partially downloaded file `<name>.partial`, with `<name>.state.json` that identifies the file. If the process dies at any
// moment, the disk has no file, a partial file that can be resumed, or the finished file.

const sha256 = z.string().refine(isSha256);
const partialState = z.object({
  version: z.literal(1),
  /** Expected digest of the complete file, from the catalogue or the server. */
  sha256: sha256.optional(),
  /** The server's strong ETag, for files without a known SHA-256. */
  etag: z.string().optional(),
  /** Set after the complete file was verified. */
  complete: z.object({ bytes: z.number().int().nonnegative(), sha256 }).optional(),
});
type PartialState = z.infer<typeof partialState>;
/** Identifies the file that a partial belongs to. */
type Identity = Pick<PartialState, 'sha256' | 'etag'>;

export interface FinishedFile {
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
}

const statePath = (folder: string, name: string): string => join(folder, `${safeFileName(name)}.state.json`);

async function readState(folder: string, name: string): Promise<PartialState | undefined> {
  return partialState.safeParse(await readJson(statePath(folder, name))).data;
}

/** Returns the verified file of an earlier run, if there is one. */
export async function findFinished(folder: string, name: string): Promise<FinishedFile | undefined> {
  const path = join(folder, safeFileName(name));
  const complete = (await readState(folder, name))?.complete;
  if (!complete || (await fileBytes(path)) !== complete.bytes) return undefined;
  return { path, ...complete };
}

/** Records that `folder/name` was verified. Call it before renaming the file, so that the final name implies verified. */
export async function markFinished(folder: string, name: string, bytes: number, digest: string): Promise<void> {
  const state: PartialState = { version: 1, complete: { bytes, sha256: digest } };
  await writeJson(statePath(folder, name), state);
}

class PartialFile {
  readonly path: string;
  readonly #folder: string;
  readonly #name: string;
  readonly #handle: FileHandle;
  #hash: Hash = createHash('sha256');
  #written = 0;
  #identity: Identity = {};

  private constructor(folder: string, name: string, handle: FileHandle) {
    this.#folder = folder;
    this.#name = name;
    this.path = join(folder, `${name}.partial`);
    this.#handle = handle;
  }

  /** Opens and hashes the partial file of an earlier run, or starts an empty one if it can't be resumed. */
  static async open(folder: string, name: string, expected: Identity, signal?: AbortSignal): Promise<PartialFile> {
    const path = join(folder, `${safeFileName(name)}.partial`);
    const handle = await openForAppending(path);
    const file = new PartialFile(folder, name, handle);
    try {
      const state = await readState(folder, name);
      // A complete state with a partial file means that the process died between verifying and renaming.
      const identity = { sha256: state?.sha256 ?? state?.complete?.sha256, etag: state?.etag };
      const known = identity.sha256 !== undefined || identity.etag !== undefined;
      const other = expected.sha256 !== undefined && identity.sha256 !== expected.sha256;
      if (!known || other) {
        await file.restart();
        return file;
      }
      for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
        throwIfAborted(signal);
        file.#hash.update(chunk);
        file.#written += chunk.length;
      }
      file.#identity = identity;
      return file;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  get bytes(): number {
    return this.#written;
  }

  get belongsTo(): Identity {
    return this.#identity;
  }

  /** SHA-256 of the bytes written so far. */
  digest(): string {
    return this.#hash.copy().digest('hex');
  }

  /** Records which file the following bytes belong to. */
  async identify(identity: Identity): Promise<void> {
    if (identity.sha256 === this.#identity.sha256 && identity.etag === this.#identity.etag) return;
    this.#identity = identity;
    await writeJson(statePath(this.#folder, this.#name), { version: 1, ...identity });
  }

  async append(chunk: Uint8Array): Promise<void> {
    try {
      for (let start = 0; start < chunk.byteLength; ) {
        const { bytesWritten } = await this.#handle.write(
          chunk,
          start,
          chunk.byteLength - start,
          this.#written + start,
        );
        start += bytesWritten;
      }
    } catch (error) {
      throw diskError(error, this.path);
    }
    this.#hash.update(chunk);
    this.#written += chunk.byteLength;
  }

  async restart(): Promise<void> {
    await this.#handle.truncate(0);
    this.#hash = createHash('sha256');
    this.#written = 0;
    this.#identity = {};
  }

  /** Syncs the file and renames it to its final name. The caller must have verified it. */
  async finish(): Promise<FinishedFile> {
    const digest = this.digest();
    try {
      await this.#handle.sync();
    } catch (error) {
      throw diskError(error, this.path);
    } finally {
      await this.#handle.close();
    }
    await markFinished(this.#folder, this.#name, this.#written, digest);
    const path = join(this.#folder, this.#name);
    await rename(this.path, path);
    await syncFolder(this.#folder);
    return { path, bytes: this.#written, sha256: digest };
  }

  /** Closes the file and keeps it for the next run. */
  async close(): Promise<void> {
    await this.#handle.close();
  }

  async discard(): Promise<void> {
    await this.#handle.close();
    await rm(this.path, { force: true });
    await rm(statePath(this.#folder, this.#name), { force: true });
  }
}

async function openForAppending(path: string): Promise<FileHandle> {
  try {
    // Not 'a': on Linux, append mode ignores positions, but a restarted file is written from its start.
    return await open(path, 'r+');
  } catch (error) {
    if (Reflect.get(Object(error), 'code') !== 'ENOENT') throw diskError(error, path);
  }
  try {
    return await open(path, 'w+');
  } catch (error) {
    throw diskError(error, path);
  }
}
