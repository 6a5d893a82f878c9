/**
 * A partially downloaded file `<name>.partial`, with `<name>.state.json` that identifies the file. If the process dies at any
 * moment, the disk has no file, a partial file that can be resumed, or the finished file.
 */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { throwIfAborted } from '../errors.ts';
import { diskError, fileBytes, readJson, syncFolder, writeJson } from './files.ts';
import { isSha256, safeFileName } from './paths.ts';

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
export type Identity = Pick<PartialState, 'sha256' | 'etag'>;

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

export class PartialFile {
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
