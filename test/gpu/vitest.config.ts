import '../../engine/runtime/noTelemetry.ts';
import { defineConfig } from 'vitest/config';

// Runs once an adapter, under the driver that scripts/on-adapter.ts chose. Threads, since the program that runs may be
// a dynamic loader, which cannot be forked by its own path.
export default defineConfig({
  test: {
    include: ['test/gpu/**/*.test.ts'],
    pool: 'threads',
    maxWorkers: 1,
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});
