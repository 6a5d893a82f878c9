/** Imports models from local files: recognises them by name and size, copies them, and verifies them like a download. */
import { constants } from 'node:fs';
import { copyFile, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { invalidInput, notFound, throwIfAborted } from '../errors.ts';
import type { CatalogueEntry, CatalogueFile, Source } from './catalogue.ts';
import { diskError, errorCode, fileBytes, hashFile, requireSpace, type WorkOptions } from './files.ts';
import { type FinishedFile, markFinished } from './partialFile.ts';
import { places } from './userHelp.ts';

export interface Collected {
  readonly entry: CatalogueEntry;
  readonly source: {
    /** The copy uses this source's staging folder. */
    readonly staging: Source;
    copyTo(folder: string, options: WorkOptions): Promise<readonly (FinishedFile & { readonly name: string })[]>;
  };
}

/** Finds the catalogue entry whose files are at `path`. */
export async function collect(path: string, entries: readonly CatalogueEntry[]): Promise<Collected> {
  const isFolder = await isDirectory(path);
  const folder = isFolder ? path : dirname(path);
  for (const entry of entries) {
    const [staging] = entry.sources;
    const pairs = pairUp(entry, path, folder, isFolder);
    if (staging && pairs && (await sizesMatch(pairs))) {
      return { entry, source: { staging, copyTo: (target, options) => copyAll(pairs, target, options) } };
    }
  }
  throw notFound(
    `${path} is not a model of the catalogue (${places().list}). To use it without importing, ${places().withoutImport}.`,
  );
}

type Pair = readonly [file: CatalogueFile, path: string];

/** Maps the entry's files to files on disk. A single file may have any name. */
function pairUp(entry: CatalogueEntry, path: string, folder: string, isFolder: boolean): readonly Pair[] | undefined {
  const [only] = entry.files;
  if (isFolder) return entry.files.map((file) => [file, join(folder, file.name)]);
  return only && entry.files.length === 1 ? [[only, path]] : undefined;
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
