/** Manifests of installed models, and the atomic step that installs a model. */
import { createHash, type Hash } from 'node:crypto';
import { mkdir, open, opendir, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { z } from 'zod';
import { limits } from '../limits.ts';
import { type CatalogueEntry, type Downloadable, openEntry } from './catalogue.ts';
import {
  derivedDirectory,
  digestDirectory,
  diskError,
  errorCode,
  fileBytes,
  hashFile,
  isSafeFileName,
  isSha256,
  modelFolder,
  readJson,
  reporter,
  syncFolder,
  type WorkOptions,
  writeJson,
} from './files.ts';
import type { Fetched } from './sources.ts';

const digest = z.string().refine(isSha256);
const manifest = z.object({
  version: z.literal(1),
  id: z.string(),
  /** Digest of the only file or of the file list; also the folder's name. */
  digest,
  files: z
    .array(z.object({ name: z.string().refine(isSafeFileName), bytes: z.number().int().nonnegative(), sha256: digest }))
    .min(1)
    .max(limits.store.filesPerModel),
  source: z.string(),
  /** Set for a model that isn't in the catalogue. */
  entry: openEntry.optional(),
  installedAt: z.string(),
});
type Manifest = z.infer<typeof manifest>;

export const manifestName = 'manifest.json';

export interface Installed {
  readonly folder: string;
  readonly manifest: Manifest;
}

/** Lists the installed models whose files are complete. Skips damaged and unknown folders. */
export async function listInstalled(root: string): Promise<readonly Installed[]> {
  const installed: Installed[] = [];
  try {
    let seen = 0;
    for await (const item of await opendir(join(root, 'models'))) {
      if (++seen > limits.store.installedModels) break;
      const found = item.isDirectory() ? await readInstalled(root, item.name) : undefined;
      if (found) installed.push(found);
    }
  } catch (error) {
    if (errorCode(error) !== 'ENOENT' && errorCode(error) !== 'ENOTDIR') throw error;
  }
  return installed;
}

export async function findInstalled(root: string, id: string): Promise<Installed | undefined> {
  return (await listInstalled(root)).find((installed) => installed.manifest.id === id);
}

async function readInstalled(root: string, folderName: string): Promise<Installed | undefined> {
  const named = folderName.startsWith('sha256-') ? folderName.slice('sha256-'.length) : '';
  if (!isSha256(named)) return undefined;
  const folder = modelFolder(root, named);
  const found = manifest.safeParse(await readJson(join(folder, manifestName))).data;
  if (found?.digest !== named) return undefined;
  const sizes = await Promise.all(found.files.map((file) => fileBytes(join(folder, file.name))));
  return found.files.every((file, index) => file.bytes === sizes[index]) ? { folder, manifest: found } : undefined;
}

/** Model digest: the digest of a single file, or of the sorted list of the files' digests and names. */
export function modelDigest(files: Manifest['files']): string {
  const [only] = files;
  if (only && files.length === 1) return only.sha256;
  const lines = files.map((file) => `${file.sha256}  ${file.name}\n`).sort();
  return createHash('sha256').update(lines.join('')).digest('hex');
}

/** Installs a folder of verified files with one rename. */
export async function install(
  root: string,
  entry: Downloadable,
  fetched: Fetched,
  source: string,
  open?: CatalogueEntry,
): Promise<Installed> {
  const files = fetched.files.map(({ name, bytes, sha256 }) => ({ name, bytes, sha256 }));
  const content: Manifest = {
    version: 1,
    id: entry.id,
    digest: modelDigest(files),
    files,
    source,
    ...(open && { entry: open }),
    installedAt: new Date().toISOString(),
  };
  const folder = modelFolder(root, content.digest);
  try {
    await writeJson(join(fetched.folder, manifestName), content);
    await mkdir(dirname(folder), { recursive: true });
    // A folder that exists here is not a complete model, or the download would not have run.
    await rm(folder, { recursive: true, force: true });
    await rename(fetched.folder, folder);
    await syncFolder(dirname(folder));
    for (const file of files) await rm(join(folder, `${file.name}.state.json`), { force: true });
  } catch (error) {
    throw diskError(error, folder);
  }
  return { folder, manifest: content };
}

/** Names of the files whose contents differ from the manifest. */
export async function findDamage({ folder, manifest }: Installed, options: WorkOptions): Promise<readonly string[]> {
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
export async function removeDerived(root: string): Promise<void> {
  const digests = new Set((await listInstalled(root)).map(({ manifest }) => manifest.digest));
  const folder = derivedDirectory(root);
  for (const name of await readdir(folder).catch(() => [])) {
    const digest = /^[0-9a-f]{64}(?=\.)/.exec(name)?.[0];
    if (digest === undefined || digests.has(digest) || isOfPlace(name)) continue;
    await rm(join(folder, name), { force: true });
  }
  await removeAbandoned(root);
}

/** Removes what was computed from files outside of the store that are no longer where they were. */
export async function removeAbandoned(root: string): Promise<void> {
  const folder = derivedDirectory(root);
  for (const name of await readdir(folder).catch(() => [])) {
    if (!isOfPlace(name)) continue;
    const place = await placeIn(join(folder, placeName(name.slice(0, 64))));
    if (place !== undefined && !(await isGone(place))) continue;
    // Windows refuses while another process maps the file; a later load removes it.
    await rm(join(folder, name), { force: true }).catch(() => undefined);
  }
}

/** Undefined if it was never noted. */
async function placeIn(file: string): Promise<string | undefined> {
  return z.string().safeParse(await readJson(file).catch(() => undefined)).data;
}

const isGone = (path: string): Promise<boolean> =>
  stat(path).then(
    () => false,
    (error: unknown) => errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR',
  );

/** Path for the loader: the GGUF file, the first part of a split one, or the folder of a safetensors checkpoint. */
export function pathToLoad({
  folder,
  manifest: { files },
}: Pick<Installed, 'folder'> & { manifest: FileList }): string {
  const names = files.map(({ name }) => name).sort();
  const [first] = names;
  return first?.endsWith('.gguf') ? join(folder, basename(first)) : folder;
}

interface FileList {
  readonly files: readonly { readonly name: string }[];
}

// The SHA-256 of a model. For a model in the store it is the folder's name. For a user's own files it is computed once, in
// interruptible steps, and cached with each file's size, date and inode to detect changes.

/**
 * Digest of a model in the store, taken from its folder's name: its files were hashed before they got there. Elsewhere
 * the name of a folder proves nothing.
 */
export function storedDigest(path: string, storeDirectory: string): string | undefined {
  const [models, folder = ''] = relative(resolve(storeDirectory), resolve(path)).split(sep);
  return models === 'models' ? /^sha256-([0-9a-f]{64})$/.exec(folder)?.[1] : undefined;
}

/**
 * Identifies files outside the store by their path and state: `<sha256>.at<16 digits>`. Notes the path beside what is
 * derived from them. Undefined if they can't be read.
 */
export async function stateName(path: string, storeDirectory: string): Promise<string | undefined> {
  const files = await filesOf(path).catch(() => undefined);
  if (!files) return undefined;
  const place = resolve(path);
  const noted = join(derivedDirectory(storeDirectory), placeName(sha256Of(place)));
  if ((await placeIn(noted)) !== place) {
    await mkdir(dirname(noted), { recursive: true })
      .then(() => writeJson(noted, place))
      // The load itself reports a folder that can't be written.
      .catch(() => undefined);
  }
  return `${sha256Of(place)}.at${sha256Of(JSON.stringify(files)).slice(0, 16)}`;
}

/** The file that names the place of files outside of the store. */
const placeName = (digest: string): string => `${digest}.place`;

/** Whether a derived file belongs to files outside of the store. */
const isOfPlace = (name: string): boolean => /^[0-9a-f]{64}\.(at[0-9a-f]{16}\.|place$)/.test(name);

const sha256Of = (text: string): string => createHash('sha256').update(text).digest('hex');

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
   * @param path a GGUF, or a folder of safetensors.
   * @param storeDirectory root of the model store, which also caches digests.
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

const recordPath = (path: string, directory: string): string => join(directory, `${sha256Of(resolve(path))}.json`);
