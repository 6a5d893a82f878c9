/**
 * `npm run sbom` writes dist/sbom.cdx.json: every package of the lock file as CycloneDX, by npm's own `sbom`. Those that do not
 * ship are marked as development. (Its `--omit=dev` also omits packages that both need.)
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from './shared/paths.ts';
import { npm } from './shared/process.ts';

export const billOfMaterials = (): Promise<string> =>
  npm(['sbom', '--sbom-format=cyclonedx', '--package-lock-only'], { cwd: projectRoot, output: 'quiet' });

if (import.meta.main) {
  mkdirSync(join(projectRoot, 'dist'), { recursive: true });
  writeFileSync(join(projectRoot, 'dist', 'sbom.cdx.json'), await billOfMaterials());
}
