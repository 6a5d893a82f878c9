/** Where the scripts read and write. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defaultStoreDirectory } from '../../engine/catalogue/paths.ts';

export const projectRoot = fileURLToPath(new URL('../../', import.meta.url));

/** Beside the models, so that it outlives a checkout: a fresh clone finds the VS Code of the one before. */
export const devCache = join(defaultStoreDirectory(), 'dev');

/** `linux-x64`, as `vsce package --target` names it. */
export const hostTarget = `${process.platform}-${process.arch}`;
