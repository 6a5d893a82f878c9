/** `hearth` from npm: the tarball of this platform in an empty folder, an empty home and without a network. */
import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import packageJson from '../../../package.json' with { type: 'json' };
import { isTarget, maxPackageBytes } from '../../../scripts/package.ts';
import { packageChooser, packageCommandLine } from '../../../scripts/package-cli.ts';
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
  expect(said).toMatch(/added \d+ packages?/);
  const lock = JSON.parse(readFileSync(join(folder, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { hasInstallScript?: boolean; inBundle?: boolean }>;
  };
  const { '': _, [`node_modules/hearth-${hostTarget}`]: own, ...others } = lock.packages;
  expect(own?.hasInstallScript).toBeUndefined();
  for (const each of Object.values(others)) expect(each).toMatchObject({ inBundle: true });
  const manifest = JSON.parse(
    readFileSync(join(folder, 'node_modules', `hearth-${hostTarget}`, 'package.json'), 'utf8'),
  );
  const [os, cpu] = hostTarget.split('-');
  expect(manifest).toMatchObject({ os: [os], cpu: [cpu] });
  expect(readFileSync(tarball).length).toBeLessThan(maxPackageBytes);
});

describe('`hearth`, published beside the packages of the platforms', () => {
  let registry: Server;
  let registryEnv: NodeJS.ProcessEnv;
  const elsewhere = hostTarget === 'win32-arm64' ? 'darwin-arm64' : 'win32-arm64';

  beforeAll(async () => {
    const files = new Map<string, Buffer>();
    const documents = new Map<string, unknown>();
    const publish = (file: string): void => {
      const name = basename(file).replace(`-${packageJson.version}.tgz`, '');
      const version = { ...manifestIn(file), dist: { tarball: `${addressOf(registry)}/${name}.tgz` } };
      files.set(`/${name}.tgz`, readFileSync(file));
      documents.set(`/${name}`, {
        name,
        'dist-tags': { latest: packageJson.version },
        versions: { [packageJson.version]: version },
      });
    };
    registry = createServer(({ url = '' }, response) => {
      const body = files.get(url) ?? JSON.stringify(documents.get(url));
      response.writeHead(body === undefined ? 404 : 200).end(body);
    });
    await once(registry.listen(0, '127.0.0.1'), 'listening');
    publish(await packageChooser(temporaryFolder()));
    publish(tarball);
    // The package of another platform is never downloaded.
    const [os, cpu] = elsewhere.split('-');
    documents.set(`/hearth-${elsewhere}`, {
      name: `hearth-${elsewhere}`,
      'dist-tags': { latest: packageJson.version },
      versions: {
        [packageJson.version]: {
          ...{ name: `hearth-${elsewhere}`, version: packageJson.version, os: [os], cpu: [cpu] },
          dist: { tarball: `${addressOf(registry)}/not-there.tgz` },
        },
      },
    });
    registryEnv = { ...env, npm_config_registry: addressOf(registry), npm_config_cache: join(folder, 'cache-2') };
  });
  afterAll(() => registry?.close());

  it('runs the one of this platform by its name alone', async () => {
    const empty = temporaryFolder();
    const said = await npm(['exec', '--yes', '--', 'hearth', 'doctor'], {
      cwd: empty,
      env: registryEnv,
      output: 'quiet',
    });
    expect(said).toMatch(/^ok +CPU backend: /m);
  });

  it('says what to do where optional packages were omitted', async () => {
    const empty = temporaryFolder();
    writeFileSync(join(empty, 'package.json'), '{}');
    await npm(['install', 'hearth', '--omit=optional'], { cwd: empty, env: registryEnv, output: 'quiet' });
    const chooser = join(empty, 'node_modules', 'hearth', 'dist', 'cli.mjs');
    const { status, stderr } = spawnSync(process.execPath, [chooser, '--version'], { encoding: 'utf8' });
    expect([status, stderr]).toEqual([1, expect.stringMatching(/is not installed.*--include=optional/)]);
  });
});

const addressOf = (server: Server): string => {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('The registry does not listen.');
  return `http://127.0.0.1:${address.port}`;
};

const manifestIn = (file: string): object =>
  JSON.parse(execFileSync('tar', ['-xzOf', file, 'package/package.json'], { encoding: 'utf8' }));
