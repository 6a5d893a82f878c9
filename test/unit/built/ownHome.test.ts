/**
 * The home of a whole test run. It would have found that the end-to-end tests used the model in the developer's cache, which a
 * new user does not have.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, sep } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { defaultStoreDirectory } from '../../../engine/catalogue/files.ts';
import { openStore } from '../../../engine/catalogue/store.ts';
import { moveToOwnHome } from '../../../scripts/shared/ownHome.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

const folder = temporaryFolder();
const variables = { ...process.env };
afterEach(() => {
  for (const name of Object.keys(process.env)) if (!(name in variables)) delete process.env[name];
  Object.assign(process.env, variables);
});
beforeEach(() => {
  process.env['HEARTH_HOME'] = "the developer's";
});

it.each(['linux', 'darwin', 'win32'] as const)('holds the model store of %s, which is empty', async (platform) => {
  moveToOwnHome(folder);
  const directory = defaultStoreDirectory({ platform, home: homedir(), variables: process.env });
  expect(directory.startsWith(folder + sep)).toBe(true);
  expect((await openStore({ directory }).list()).map(({ state }) => state)).not.toContain('present');
});

it('finds nothing from the previous run', () => {
  moveToOwnHome(folder);
  const left = join(homedir(), '.cache', 'hearth', 'dev', 'code-server');
  mkdirSync(left, { recursive: true });
  writeFileSync(join(folder, 'built'), '');
  moveToOwnHome(folder);
  expect(() => mkdirSync(left)).toThrow('ENOENT');
  expect(() => writeFileSync(join(folder, 'built'), '', { flag: 'wx' })).not.toThrow();
});
