/**
 * Takes screenshots of every screen in a light and a dark theme (test/e2e/screenshots*.ts). Writes the README's to docs/images
 * and the others to test/e2e/results/screens.
 */
import { join } from 'node:path';
import { projectRoot } from './shared/paths.ts';
import { run } from './shared/process.ts';

const vitest = join(projectRoot, 'node_modules', 'vitest', 'vitest.mjs');
const args = [vitest, 'run', '--config', 'test/e2e/vitest.config.ts'];
await run(process.execPath, args, { cwd: projectRoot, env: { ...process.env, HEARTH_SCREENSHOTS: '1' } });
