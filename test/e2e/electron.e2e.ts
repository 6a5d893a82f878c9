/** Activation in desktop VS Code, if it can be downloaded and there is a display. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { downloadAndUnzipVSCode, runTests, SilentReporter } from '@vscode/test-electron';
import { build } from 'esbuild';
import { expect, test } from 'vitest';
import { devCache, projectRoot } from '../../scripts/shared/paths.ts';

const downloadMs = 300_000;

test('activates in desktop VS Code and registers its commands', { timeout: downloadMs + 120_000 }, async (context) => {
  if (process.platform === 'linux' && !process.env['DISPLAY'] && !process.env['WAYLAND_DISPLAY']) {
    context.skip('desktop VS Code needs a display');
  }
  const options = { version: 'stable', cachePath: join(devCache, 'vscode-test'), reporter: new SilentReporter() };
  const vscodeExecutablePath = await downloadAndUnzipVSCode(options).catch((error: unknown) =>
    context.skip(
      `desktop VS Code cannot be downloaded here (${error instanceof Error ? error.message : String(error)})`,
    ),
  );
  const scratch = mkdtempSync(join(tmpdir(), 'hearth-electron-'));
  const suite = join(scratch, 'suite.cjs');
  await build({
    entryPoints: [join(projectRoot, 'test', 'e2e', 'electronSuite.ts')],
    outfile: suite,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    external: ['vscode'],
  });
  try {
    const status = await runTests({
      vscodeExecutablePath,
      extensionDevelopmentPath: projectRoot,
      extensionTestsPath: suite,
      launchArgs: [scratch, '--user-data-dir', join(scratch, 'data'), '--disable-extensions', '--no-sandbox'],
    });
    expect(status).toBe(0);
  } finally {
    rmSync(scratch, { recursive: true, force: true, maxRetries: 5 });
  }
});
