/** Folders that the scripts read and write. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defaultStoreDirectory } from '../../engine/catalogue/files.ts';

export const projectRoot = fileURLToPath(new URL('../../', import.meta.url));

/** Next to the models, so that a fresh clone reuses the installed VS Code. */
export const devCache = join(defaultStoreDirectory(), 'dev');

/** Platform name of `vsce package --target`, such as `linux-x64`. */
export const hostTarget = `${process.platform}-${process.arch}`;
