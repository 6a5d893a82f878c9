/** Manifests of installed models, and the atomic step that installs a model. */
import { createHash } from 'node:crypto';
import { mkdir, opendir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { limits } from '../limits.ts';
import { type CatalogueEntry, type Downloadable, openEntry } from './catalogue.ts';
import { diskError, errorCode, fileBytes, readJson, syncFolder, writeJson } from './files.ts';
import { isSafeFileName, isSha256, modelFolder } from './paths.ts';
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
  /** Of a model that isn't in the catalogue. */
  entry: openEntry.optional(),
  installedAt: z.string(),
});
export type Manifest = z.infer<typeof manifest>;

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
