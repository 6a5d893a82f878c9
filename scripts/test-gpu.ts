/**
 * `npm run test:gpu [all]` runs the GPU tests on both software adapters; `all` runs every test with every golden model.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { adapters } from './on-adapter.ts';
import { projectRoot } from './shared/paths.ts';

const launcher = join(projectRoot, 'scripts', 'on-adapter.ts');
const vitest = join(projectRoot, 'node_modules', 'vitest', 'vitest.mjs');
const env = process.argv[2] === 'all' ? { ...process.env, HEARTH_TEST_GOLDENS: 'all' } : process.env;

/** Exit status of on-adapter.ts if the adapter is not available. */
const unavailable = 77;

for (const adapter of adapters) {
  const args = [launcher, adapter, vitest, 'run', '--config', 'test/gpu/vitest.config.ts'];
  const { status } = spawnSync(process.execPath, args, { stdio: 'inherit', cwd: projectRoot, env });
  if (status !== 0 && status !== unavailable) process.exitCode = 1;
}
