/**
 * The SHA-256 of a model wherever it lies. The store's folders are named after it. That of a user's own files is computed
 * once, piece by piece as long as it is let, and remembered with what tells the files from changed ones: size, date, inode.
 */
import { createHash, type Hash } from 'node:crypto';
import { mkdir, open, readdir, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { readJson, writeJson } from './files.ts';
import { modelDigest } from './manifest.ts';
import { isSha256 } from './paths.ts';

/** Of a model that lies in the store, from the folder that is named after it. */
export const storedDigest = (path: string): string | undefined =>
  /[\\/]sha256-([0-9a-f]{64})(?:[\\/]|$)/.exec(path)?.[1];

const fileState = z.object({ name: z.string(), bytes: z.number(), changedNs: z.string(), inode: z.string() });
type FileState = z.infer<typeof fileState>;
const hexDigest = z.string().refine(isSha256);
const record = z.object({ path: z.string(), files: z.array(fileState.extend({ sha256: hexDigest })) });

/** Hashed at once: about a millisecond's work. */
const chunkBytes = 1024 * 1024;

interface Parts {
  readonly path: string;
  /** Where digests are remembered. */
  readonly directory: string;
  /** Undefined: they cannot be looked at. */
  readonly files: readonly FileState[] | undefined;
  readonly known: string | undefined;
}

export class ModelDigest {
  readonly #parts: Parts;
  #known: string | undefined;
  #canBeKnown: boolean;
  /** Of the first files. */
  readonly #digests: string[] = [];
  /** Of the beginning of the next one. */
  #begun: { readonly hash: Hash; at: number } | undefined;
  #turn: Promise<void> = Promise.resolve();

  private constructor(parts: Parts) {
    this.#parts = parts;
    this.#known = parts.known;
    this.#canBeKnown = parts.files !== undefined;
  }

  /**
   * Of what lies there now: ask before the model is loaded.
   * @param path a GGUF, or a folder of safetensors
   * @param directory where digests are remembered
   */
  static async of(path: string, directory: string): Promise<ModelDigest> {
    const stored = storedDigest(path);
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

  /** Undefined until it is computed, and for good where the files change before it is. */
  get known(): string | undefined {
    return this.#known;
  }

  /** What tells these files from others, even before their digest is known. */
  get label(): string {
    return this.#known ?? JSON.stringify([this.#parts.path, this.#parts.files]);
  }

  /** Reads on where it stopped until it is known or the signal is aborted. */
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
      // Gone or changed meanwhile: nobody can tell any more what was loaded.
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
        if (bytesRead === 0) throw new Error(`${name} has become shorter.`);
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
    if (!isEqual(await filesOf(path), states)) throw new Error('The files changed while they were read.');
    const files = states.map((state, i) => ({ ...state, sha256: this.#digests[i] ?? '' }));
    this.#known = modelDigest(files);
    try {
      await mkdir(directory, { recursive: true });
      await writeJson(recordPath(path, directory), { path: resolve(path), files });
    } catch {
      // A full or read-only disk costs the next start the time again.
    }
  }
}

/** Of a checkpoint what its weights and its words follow from, by name. */
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
