/**
 * Where the packed weights of a model lie. A model with a digest keeps its file for the next start, another gets a temporary one.
 * Both are in the same folder, because the system's temporary folder may be memory.
 *
 * A kept file is checked at every start and built again if it is damaged: the runtime maps it, so that damage would
 * otherwise show as wrong text.
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

/** Removes what killed processes and older versions left, the same model's layers of another split, and what its files were before. */
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
    // EPERM: a process of another user.
    return error instanceof Error && Reflect.get(error, 'code') === 'EPERM';
  }
}

/** How the file came about: read as it was, written, or written because it was damaged. */
export type Origin = 'kept' | 'built' | 'repaired';

/** The state of the file that the runtime maps, to be compared before each pass. */
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

  /** Whether another program wrote into it. One that was removed or replaced stays as it was where it is mapped. */
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
      // A file that another program cuts short while it is mapped ends the process: no way back from SIGBUS. Windows
      // refuses that by itself, and to replace files that are read-only.
      if (process.platform !== 'win32') await chmod(partial, 0o400);
      // A folder of that name would stop the rename.
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

/** So that a full disk is found out before minutes of writing. @throws HearthError `unavailable`. */
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
 * What to throw once the file has changed, or logits are not finite: that comes from a file that was kept, or else from the
 * model itself.
 */
export async function afterDamage({ directory, file }: PackedWeights, suspected: boolean): Promise<HearthError> {
  if (!suspected) return notFinite();
  await rm(join(directory, file), { force: true });
  // The scheduler loads the model again after this code.
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
