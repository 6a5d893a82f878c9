import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  root: fileURLToPath(new URL('../../', import.meta.url)),
  resolve: {
    // For the page's texts, which the extension makes. An editor runs the packaged extension.
    alias: { vscode: fileURLToPath(new URL('../unit/extension/vscode.ts', import.meta.url)) },
  },
  test: {
    include: [process.env['HEARTH_SCREENSHOTS'] === undefined ? 'test/e2e/**/*.e2e.ts' : 'test/e2e/screenshots*.ts'],
    globalSetup: 'test/e2e/setup.ts',
    // One editor at a time, because each is a server, a browser and an engine.
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Small machines can be slow.
    expect: { poll: { timeout: 30_000 } },
    // No retries: a test that failed once has failed.
    retry: 0,
  },
});
