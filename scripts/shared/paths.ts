/** Where the scripts read and write. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const projectRoot = fileURLToPath(new URL('../../', import.meta.url));

/** Things that outlive a checkout: a fresh clone finds VS Code and the models of the one before. */
export const userCache = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'hearth');

export const devCache = join(userCache, 'dev');

/** `linux-x64`, as `vsce package --target` names it. */
export const hostTarget = `${process.platform}-${process.arch}`;
