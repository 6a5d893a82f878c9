/**
 * Temporary folders of one test file. They, and everything else that the file or its child processes put under `tmpdir()`,
 * are in a folder of their own, which other processes do not see and which is removed after the last test of the file.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

/** Names that `tmpdir()` reads: POSIX, Windows. */
const variables = ['TMPDIR', 'TEMP', 'TMP'] as const;
const before = variables.map((name) => process.env[name]);
const root = mkdtempSync(join(tmpdir(), 'hearth-unit-'));
for (const name of variables) process.env[name] = root;

// Registered by an import, so it runs after the file's own `afterAll` hooks: vitest runs them in reverse order.
afterAll(() => {
  for (const [index, name] of variables.entries()) {
    const value = before[index];
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
  rmSync(root, { recursive: true, force: true, maxRetries: 3 });
});

/** A new empty folder. */
export const temporaryFolder = (): string => mkdtempSync(join(root, 'folder-'));
