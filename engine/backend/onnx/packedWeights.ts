/**
 * The file with the packed weights of a model. With a digest of the model, the file is kept for the next start; without
 * one, it is temporary. Both are in the same folder, because the system's temporary folder may be in memory.
 *
 * A kept file is checked at every start and rebuilt if it is damaged. The runtime maps it, so damage would otherwise
 * show as wrong text.
 */
import { randomBytes } from 'node:crypto';
import type { BigIntStats } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, rename, rm, stat, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HearthError, showBytes } from '../../errors.ts';
import { type LoadOptions, notFinite } from '../backend.ts';
import { isIntact, type WeightsLayout, weightsFileVersion } from './weightsFile.ts';

export interface PackedWeights {
  readonly directory: string;
  readonly file: string;
  /** Whether the file outlives the decoder. */
  readonly kept: boolean;
}

export async function placeOf({ cacheDirectory, digest }: LoadOptions): Promise<PackedWeights> {
  const temporary = `temporary-${process.pid}-${randomBytes(6).toString('hex')}.weights`;
  if (cacheDirectory === undefined) {
    return { directory: await mkdtemp(join(tmpdir(), 'hearth-onnx-')), file: temporary, kept: false };
  }
  await mkdir(cacheDirectory, { recursive: true }).catch((error: unknown) => {
    throw new HearthError(
      'unavailable',
      `The folder ${cacheDirectory} for packed weights cannot be created. Change its permissions, or keep models in another folder.`,
      { cause: error },
    );
  });
  await sweep(cacheDirectory, digest);
  if (digest === undefined) return { directory: cacheDirectory, file: temporary, kept: false };
  return { directory: cacheDirectory, file: `${digest}.onnx${weightsFileVersion}.weights`, kept: true };
}

/**
 * Removes files of killed processes and older versions, the same model's layers of another split, and those of earlier
 * states of its files.
 */
async function sweep(directory: string, digest: string | undefined): Promise<void> {
  const layers = digest && /^.+\.layers/.exec(digest)?.[0];
  const place = digest && /^[0-9a-f]{64}\.at/.exec(digest)?.[0];
  const state = digest && /^[0-9a-f]{64}\.at[0-9a-f]+/.exec(digest)?.[0];
  for (const name of await readdir(directory)) {
    const pid = /^temporary-(\d+)-|\.(\d+)\.partial$/.exec(name);
    const version = /\.onnx(\d+)\.weights$/.exec(name)?.[1];
    const isCurrent = version === String(weightsFileVersion);
    const isOtherSplit = isCurrent && layers && name.startsWith(layers) && !name.startsWith(`${digest}.`);
    const abandoned = pid ? !isRunning(Number(pid[1] ?? pid[2])) : version !== undefined;
    const isOtherState = isCurrent && place && name.startsWith(place) && !name.startsWith(`${state}.`);
    if (!isOtherSplit && !isOtherState && (!abandoned || isCurrent)) continue;
    // Windows refuses while another process maps the file; a later start removes it.
    await rm(join(directory, name), { force: true }).catch(() => undefined);
  }
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    // EPERM: the process exists and belongs to another user.
    return error instanceof Error && Reflect.get(error, 'code') === 'EPERM';
  }
}

/** Origin of the file: kept from before, built, or rebuilt because it was damaged. */
export type Origin = 'kept' | 'built' | 'repaired';

/** The state of the file that the runtime maps, for comparison before each pass. */
export class MappedFile {
  readonly #path: string;
  readonly #state: BigIntStats;

  private constructor(path: string, state: BigIntStats) {
    this.#path = path;
    this.#state = state;
  }

  static async of({ directory, file }: PackedWeights): Promise<MappedFile> {
    const path = join(directory, file);
    return new MappedFile(path, await stat(path, { bigint: true }));
  }

  /**
   * Whether another program wrote into the file. If the file was only removed or replaced, the mapping keeps the old
   * content.
   */
  async isChanged(): Promise<boolean> {
    const { ino, size, mtimeNs } = this.#state;
    const now = await stat(this.#path, { bigint: true }).catch(() => undefined);
    return now?.ino === ino && (now.size !== size || now.mtimeNs !== mtimeNs);
  }
}

/** Writes the file, unless an intact one is there. @throws HearthError `unavailable` if the disk is full, `cancelled`. */
export async function provide(
  layout: WeightsLayout,
  { directory, file, kept }: PackedWeights,
  options: LoadOptions,
): Promise<Origin> {
  const path = join(directory, file);
  const totalBytes = layout.sourceBytes;
  const found = kept ? await isIntact(path, layout.byteLength, options.signal) : undefined;
  if (!found) {
    const partial = `${path}.${process.pid}.partial`;
    let doneBytes = 0;
    const onBytes = (bytes: number) => {
      doneBytes += bytes;
      options.onProgress?.({ doneBytes, totalBytes });
    };
    try {
      await requireRoom(directory, layout.byteLength);
      await layout.write(partial, onBytes, options.signal);
      // If another program truncates the file while it is mapped, SIGBUS ends the process. Windows refuses to truncate
      // mapped files, and also to replace read-only ones.
      if (process.platform !== 'win32') await chmod(partial, 0o400);
      // A folder with that name would make the rename fail.
      if (found === false) await rm(path, { recursive: true, force: true });
      await rename(partial, path);
    } finally {
      await rm(partial, { force: true });
    }
  }
  options.onProgress?.({ doneBytes: totalBytes, totalBytes });
  if (found) return 'kept';
  return found === false ? 'repaired' : 'built';
}

/** Detects a full disk before minutes of writing. @throws HearthError `unavailable`. */
async function requireRoom(directory: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize >= bytes) return;
  throw new HearthError(
    'unavailable',
    `The CPU's packed weights need ${showBytes(bytes)} in ${directory}, whose disk has ${showBytes(bavail * bsize)} free. ` +
      `Nothing was written. Free ${showBytes(bytes - bavail * bsize)}, or choose a smaller model.`,
  );
}

/**
 * The error to throw if the file changed or logits are not finite. The cause is a damaged kept file, or else the model
 * itself.
 */
export async function afterDamage({ directory, file }: PackedWeights, suspected: boolean): Promise<HearthError> {
  if (!suspected) return notFinite();
  await rm(join(directory, file), { force: true });
  // After this error code, the scheduler reloads the model.
  return new HearthError(
    'device-lost',
    'The packed weights of this model were damaged, so they were removed and are built again from its file.',
  );
}

export async function release({ directory, file, kept }: PackedWeights, options: LoadOptions): Promise<void> {
  if (kept) return;
  if (options.cacheDirectory === undefined) await rm(directory, { recursive: true, force: true });
  else await rm(join(directory, file), { force: true });
}
