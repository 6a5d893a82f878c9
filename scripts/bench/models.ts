/** Model files to measure: the installed default model, and random weights in the shapes of published models. */
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { defaultModelId } from '../../engine/catalogue/catalogue.ts';
import { defaultStoreDirectory } from '../../engine/catalogue/files.ts';
import { findInstalled, pathToLoad } from '../../engine/catalogue/manifest.ts';
import { type BenchType, writeBenchModel } from './randomModel.ts';

/** @throws Error if it is not installed. */
export async function defaultModel(): Promise<string> {
  const installed = await findInstalled(defaultStoreDirectory(), defaultModelId);
  if (!installed)
    throw new Error(`${defaultModelId} is not installed. Run \`hearth models pull\`, or use --model FILE.`);
  return pathToLoad(installed);
}

/** Written once. */
export function randomModel(shape: string, type: BenchType): string {
  const directory = '.cache/bench';
  const path = join(directory, `${shape}-random-${type}.gguf`);
  mkdirSync(directory, { recursive: true });
  if (!existsSync(path)) writeBenchModel(shape, type, path);
  return path;
}
