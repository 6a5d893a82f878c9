/** `hearth` from npm: the tarball of this platform in an empty folder, an empty home and without a network. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import packageJson from '../../../package.json' with { type: 'json' };
import { isTarget, maxPackageBytes } from '../../../scripts/package.ts';
import { packageCommandLine } from '../../../scripts/package-cli.ts';
import { homeEnvironment } from '../../../scripts/shared/ownHome.ts';
import { hostTarget } from '../../../scripts/shared/paths.ts';
import { npm } from '../../../scripts/shared/process.ts';
import { makeTinyModel } from '../runtime/tinyModel.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

let tarball: string;
let folder: string;
let env: NodeJS.ProcessEnv;

beforeAll(async () => {
  if (!isTarget(hostTarget)) throw new Error(`Hearth is not built for ${hostTarget}.`);
  tarball = await packageCommandLine(hostTarget, temporaryFolder());
  folder = temporaryFolder();
  const home = join(folder, 'home');
  mkdirSync(home);
  // A registry that does not answer, and nothing of this checkout's npm.
  const inherited = Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name));
  env = {
    ...Object.fromEntries(inherited),
    ...homeEnvironment(home),
    HEARTH_HOME: join(folder, 'store'),
    npm_config_registry: 'http://127.0.0.1:9',
    npm_config_fetch_retries: '0',
    npm_config_cache: join(folder, 'cache'),
    npm_execpath: process.env['npm_execpath'],
  };
});

const hearth = (...args: string[]): Promise<string> =>
  npm(['exec', '--yes', `--package=${tarball}`, '--', 'hearth', ...args], { cwd: folder, env, output: 'quiet' });

it('runs with npx, without a registry and without an install script', async () => {
  expect(await hearth('--version')).toContain(packageJson.version);
  const doctor = await hearth('doctor');
  expect(doctor).toMatch(/^ok +CPU backend: /m);
  expect(doctor).toMatch(/^ok +Grammars: /m);
  expect(doctor).not.toMatch(/^broken/m);
});

it('generates', async () => {
  const tiny = await makeTinyModel();
  try {
    const answer = await hearth('generate', '--model', tiny.path, '--prompt', 'Hello', '--max-tokens', '4', '--json');
    expect(answer).toContain('"generatedTokens"');
  } finally {
    await tiny.remove();
  }
});

it('installs nothing but itself, for this platform alone', async () => {
  writeFileSync(join(folder, 'package.json'), '{}');
  const said = await npm(['install', tarball, '--foreground-scripts'], { cwd: folder, env, output: 'quiet' });
  expect(said).toMatch(/added 1 package|added \d+ packages?/);
  const lock = JSON.parse(readFileSync(join(folder, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { hasInstallScript?: boolean; inBundle?: boolean }>;
  };
  const { '': _, 'node_modules/hearth': own, ...others } = lock.packages;
  expect(own?.hasInstallScript).toBeUndefined();
  for (const each of Object.values(others)) expect(each).toMatchObject({ inBundle: true });
  const manifest = JSON.parse(readFileSync(join(folder, 'node_modules', 'hearth', 'package.json'), 'utf8'));
  const [os, cpu] = hostTarget.split('-');
  expect(manifest).toMatchObject({ os: [os], cpu: [cpu] });
  expect(readFileSync(tarball).length).toBeLessThan(maxPackageBytes);
});
