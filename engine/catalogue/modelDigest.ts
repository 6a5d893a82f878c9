/**
 * The SHA-256 of a model. For a model in the store it is the folder's name. For a user's own files it is computed once, in
 * interruptible steps, and cached with each file's size, date and inode to detect changes.
 */
import { createHash, type Hash } from 'node:crypto';
import { mkdir, open, readdir, stat } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { z } from 'zod';
import { readJson, writeJson } from './files.ts';
import { modelDigest } from './manifest.ts';
import { digestDirectory, isSha256 } from './paths.ts';

/**
 * Digest of a model in the store, taken from its folder's name: its files were hashed before they got there. Elsewhere
 * the name of a folder proves nothing.
 */
export function storedDigest(path: string, storeDirectory: string): string | undefined {
  const [models, folder = ''] = relative(resolve(storeDirectory), resolve(path)).split(sep);
  return models === 'models' ? /^sha256-([0-9a-f]{64})$/.exec(folder)?.[1] : undefined;
}

const fileState = z.object({ name: z.string(), bytes: z.number(), changedNs: z.string(), inode: z.string() });
type FileState = z.infer<typeof fileState>;
const hexDigest = z.string().refine(isSha256);
const record = z.object({ path: z.string(), files: z.array(fileState.extend({ sha256: hexDigest })) });

/** Bytes hashed per step: about a millisecond. */
const chunkBytes = 1024 * 1024;

interface Parts {
  readonly path: string;
  /** Folder of cached digests. */
  readonly directory: string;
  /** Undefined if the files could not be read. */
  readonly files: readonly FileState[] | undefined;
  readonly known: string | undefined;
}

export class ModelDigest {
  readonly #parts: Parts;
  #known: string | undefined;
  #canBeKnown: boolean;
  /** Digests of the files hashed so far. */
  readonly #digests: string[] = [];
  /** Hash of the current file up to the current position. */
  #begun: { readonly hash: Hash; at: number } | undefined;
  #turn: Promise<void> = Promise.resolve();

  private constructor(parts: Parts) {
    this.#parts = parts;
    this.#known = parts.known;
    this.#canBeKnown = parts.files !== undefined;
  }

  /**
   * Records the current state of the files. Call it before loading the model.
   * @param path a GGUF, or a folder of safetensors
   * @param storeDirectory root of the model store, which also caches digests
   */
  static async of(path: string, storeDirectory: string): Promise<ModelDigest> {
    const directory = digestDirectory(storeDirectory);
    const stored = storedDigest(path, storeDirectory);
    if (stored !== undefined) return new ModelDigest({ path, directory, files: undefined, known: stored });
    const files = await filesOf(path).catch(() => undefined);
    const remembered = record.safeParse(await readJson(recordPath(path, directory)).catch(() => undefined)).data;
    const isSame = isEqual(
      files,
      remembered?.files.map(({ sha256: _, ...file }) => file),
    );
    const known = remembered && isSame ? modelDigest(remembered.files) : undefined;
    return new ModelDigest({ path, directory, files, known });
  }

  /** Undefined until it is computed. Stays undefined if the files change first. */
  get known(): string | undefined {
    return this.#known;
  }

  /** Identifies these files before their digest is known. */
  get label(): string {
    return this.#known ?? JSON.stringify([this.#parts.path, this.#parts.files]);
  }

  /** Continues hashing until the digest is known or the signal is aborted. */
  async compute(signal: AbortSignal): Promise<string | undefined> {
    this.#turn = this.#turn.then(() => this.#readOn(signal));
    await this.#turn;
    return this.#known;
  }

  async #readOn(signal: AbortSignal): Promise<void> {
    const { files = [] } = this.#parts;
    try {
      while (this.#known === undefined && this.#canBeKnown && !signal.aborted) {
        const file = files[this.#digests.length];
        if (file) await this.#hash(file, signal);
        else await this.#finish(files);
      }
    } catch {
      // The files were removed or changed, so the digest of the loaded model can no longer be computed.
      this.#canBeKnown = false;
    }
  }

  async #hash({ name, bytes }: FileState, signal: AbortSignal): Promise<void> {
    this.#begun ??= { hash: createHash('sha256'), at: 0 };
    const handle = await open(join(await folderOf(this.#parts.path), name));
    try {
      const chunk = Buffer.allocUnsafe(chunkBytes);
      while (this.#begun.at < bytes) {
        if (signal.aborted) return;
        const { bytesRead } = await handle.read(chunk, 0, chunkBytes, this.#begun.at);
        if (bytesRead === 0) throw new Error(`${name} was truncated.`);
        this.#begun.hash.update(chunk.subarray(0, bytesRead));
        this.#begun.at += bytesRead;
      }
    } finally {
      await handle.close();
    }
    this.#digests.push(this.#begun.hash.digest('hex'));
    this.#begun = undefined;
  }

  async #finish(states: readonly FileState[]): Promise<void> {
    const { path, directory } = this.#parts;
    if (!isEqual(await filesOf(path), states)) throw new Error('The files changed while they were hashed.');
    const files = states.map((state, i) => ({ ...state, sha256: this.#digests[i] ?? '' }));
    this.#known = modelDigest(files);
    try {
      await mkdir(directory, { recursive: true });
      await writeJson(recordPath(path, directory), { path: resolve(path), files });
    } catch {
      // If the disk is full or read-only, the next start computes the digest again.
    }
  }
}

/** Files of a checkpoint that determine its weights and tokenizer, sorted by name. */
async function filesOf(path: string): Promise<FileState[]> {
  const folder = await folderOf(path);
  const names =
    folder === path ? (await readdir(path)).filter((name) => /\.(safetensors|json)$/.test(name)) : [basename(path)];
  return Promise.all(
    names.sort().map(async (name) => {
      const { size, mtimeNs, ino } = await stat(join(folder, name), { bigint: true });
      return { name, bytes: Number(size), changedNs: `${mtimeNs}`, inode: `${ino}` };
    }),
  );
}

const folderOf = async (path: string): Promise<string> => ((await stat(path)).isDirectory() ? path : dirname(path));

const isEqual = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

const recordPath = (path: string, directory: string): string =>
  join(directory, `${createHash('sha256').update(resolve(path)).digest('hex')}.json`);
