import './engine/runtime/noTelemetry.ts';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  resolve: {
    // The `vscode` module exists only inside VS Code.
    alias: { vscode: fileURLToPath(new URL('test/unit/extension/vscode.ts', import.meta.url)) },
  },
  test: {
    include: ['test/unit/**/*.test.ts'],
    // A hang is caught, a busy machine is borne.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    // Model tests hold whole checkpoints; two at a time is what a small machine bears.
    maxWorkers: 2,
    coverage: {
      provider: 'v8',
      include: ['engine/**/*.ts', 'extension/**/*.ts', 'media/**/*.ts'],
      reporter: ['text-summary', 'lcov'],
    },
  },
});
