/**
 * Imports models from local files. A model of the catalogue is recognised by name and size, copied, and verified like a
 * download; any other is opened first, and copied if it opens.
 */
import { constants } from 'node:fs';
import { copyFile, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { invalidInput, notFound, throwIfAborted } from '../errors.ts';
import { checkOpens } from '../model/open.ts';
import type { CatalogueEntry, CatalogueFile } from './catalogue.ts';
import { describeFiles } from './describeFiles.ts';
import type { WorkOptions } from './files.ts';
import { diskError, errorCode, fileBytes, hashFile, requireSpace } from './files.ts';
import { isCheckpointFile } from './hub.ts';
import { type FinishedFile, markFinished } from './partialFile.ts';

export interface Collected {
  readonly entry: CatalogueEntry;
  /** False for a model that isn't in the catalogue. */
  readonly known: boolean;
  copyTo(folder: string, options: WorkOptions): Promise<readonly (FinishedFile & { readonly name: string })[]>;
}

/**
 * Finds the catalogue entry whose files are at `path`, or describes the model there.
 * @throws HearthError as `openModel` does, if it is no model that Hearth runs.
 */
export async function collect(path: string, entries: readonly CatalogueEntry[]): Promise<Collected> {
  const isFolder = await isDirectory(path);
  const folder = isFolder ? path : dirname(path);
  for (const entry of entries) {
    const pairs = pairUp(entry, path, folder, isFolder);
    if (pairs && (await sizesMatch(pairs))) {
      // Without digests, only opening tells a model from something else under its names.
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

/** The GGUF, all parts of a split one, or what belongs to a checkpoint. */
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
