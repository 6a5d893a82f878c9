/**
 * npm prints no warnings. Before, it warned at every command about a setting that it does not know, and at each install about
 * install scripts that were not allowed or denied.
 */
import { cp, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { projectRoot } from '../../../scripts/shared/paths.ts';
import { npm } from '../../../scripts/shared/process.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { runNode } from './product.ts';

const needed = ['package.json', 'package-lock.json', '.npmrc', 'scripts/noDownloads'];
let copy: string;

beforeAll(async () => {
  copy = temporaryFolder();
  await mkdir(join(copy, 'scripts'));
  for (const path of needed) await cp(join(projectRoot, path), join(copy, path), { recursive: true });
});

it.each([[['run']], [['pkg', 'get', 'name']], [['install', '--package-lock-only', '--offline']]])(
  'npm %s prints no warning',
  async (args) => {
    expect(await npm(args, { cwd: copy, output: 'quiet' })).not.toMatch(/npm warn/i);
  },
);

it('the install script of onnxruntime-node fetches nothing, even if it is told to', async () => {
  const folder = join(projectRoot, 'node_modules', 'onnxruntime-node');
  const before = await readdir(folder, { recursive: true });
  // Without our stand-in it would ask the package index of .NET, here through a proxy that does not exist.
  const proxy = 'http://127.0.0.1:9';
  const env = { ONNXRUNTIME_NODE_INSTALL: 'true', GLOBAL_AGENT_HTTPS_PROXY: proxy, HTTPS_PROXY: proxy };
  expect(await runNode(['script/install'], { cwd: folder, env })).toEqual({ status: 0, stdout: '', stderr: '' });
  expect(await readdir(folder, { recursive: true })).toEqual(before);
});
