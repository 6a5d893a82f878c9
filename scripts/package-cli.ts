/**
 * Builds the command line as an npm package for one platform, which runs in an empty folder without a network, and the package
 * `hearth`, with which npm chooses the platform's package (as esbuild does):
 *
 *     npm run package:cli [-- --target linux-x64] [--out FOLDER]
 *     npx --yes --package=./hearth-linux-x64-0.1.0.tgz hearth doctor
 *
 * The native modules are bundled (`bundleDependencies`), with only that platform's binaries: `overrides` don't apply to a
 * published package, so the install script of onnxruntime-node would download CUDA libraries.
 */
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { notices } from './notices.ts';
import { copyNativeModules, isTarget, maxPackageBytes, type Target, targetNames } from './package.ts';
import { hostTarget, projectRoot } from './shared/paths.ts';
import { npm, run } from './shared/process.ts';

const manifestSchema = z.object({
  name: z.string(),
  version: z.string(),
  license: z.string(),
  type: z.literal('module'),
  bin: z.object({ hearth: z.string() }),
  engines: z.object({ node: z.string() }),
});
const nativeSchema = z.object({
  name: z.string(),
  version: z.string(),
  type: z.string().optional(),
  main: z.string().optional(),
  exports: z.unknown().optional(),
  license: z.string().optional(),
});

/** Built files that only VS Code runs. */
const editorOnly = /^(extension\.cjs|chat\.(js|css)|diagrams\.js|fonts|engine\.mjs|inputs\.json|node_modules)$|\.map$/;

/** @returns the path of `hearth-TARGET-VERSION.tgz` in `folder`. */
export async function packageCommandLine(target: Target, folder: string): Promise<string> {
  const staging = join(projectRoot, '.cache', 'package', `npm-${target}`);
  rmSync(staging, { recursive: true, force: true });
  mkdirSync(join(staging, 'dist'), { recursive: true });
  mkdirSync(folder, { recursive: true });
  const built = join(staging, 'built');
  const build = ['esbuild.mjs', '--production', `--outdir=${relative(projectRoot, built)}`];
  await run(process.execPath, build, { cwd: projectRoot, output: 'quiet' });
  const inputs = z.array(z.string()).parse(readJson(join(built, 'inputs.json')));
  for (const name of readdirSync(built).filter((each) => !editorOnly.test(each)))
    cpSync(join(built, name), join(staging, 'dist', name), { recursive: true });
  rmSync(built, { recursive: true });
  const packages = await copyNativeModules(target, join(staging, 'node_modules'));
  const native = packages.map(({ name }) => name);
  for (const name of native) silence(join(staging, 'node_modules', name, 'package.json'));
  writeFileSync(
    join(staging, 'ThirdPartyNotices.txt'),
    notices(
      inputs,
      packages.map(({ folder }) => folder),
    ),
  );
  const [os, cpu] = target.split('-');
  const versionOf = (name: string): string =>
    nativeSchema.parse(readJson(join(staging, 'node_modules', name, 'package.json'))).version;
  return pack(staging, folder, {
    ...manifest(),
    name: `hearth-${target}`,
    ...{ os: [os], cpu: [cpu] },
    dependencies: Object.fromEntries(native.map((name) => [name, versionOf(name)])),
    bundleDependencies: native,
  });
}

/** @returns the path of `hearth-VERSION.tgz` in `folder`: a few lines that run the package of the platform. */
export async function packageChooser(folder: string): Promise<string> {
  const staging = join(projectRoot, '.cache', 'package', 'npm');
  rmSync(staging, { recursive: true, force: true });
  mkdirSync(join(staging, 'dist'), { recursive: true });
  mkdirSync(folder, { recursive: true });
  cpSync(join(projectRoot, 'scripts', 'chooser.mjs'), join(staging, 'dist', 'cli.mjs'));
  const { version, ...rest } = manifest();
  const optionalDependencies = Object.fromEntries(targetNames.map((target) => [`hearth-${target}`, version]));
  return pack(staging, folder, { ...rest, version, optionalDependencies });
}

interface Manifest extends Record<string, unknown> {
  readonly name: string;
  readonly version: string;
}

async function pack(staging: string, folder: string, own: Manifest): Promise<string> {
  for (const name of ['LICENSE', 'README.md']) cpSync(join(projectRoot, name), join(staging, name));
  writeFileSync(join(staging, 'package.json'), `${JSON.stringify(own, null, 2)}\n`);
  await npm(['pack', '--pack-destination', folder], { cwd: staging, output: 'quiet' });
  rmSync(staging, { recursive: true });
  return join(folder, `${own.name}-${own.version}.tgz`);
}

/** Removes scripts, and dependencies that the command line does not load. */
function silence(path: string): void {
  writeFileSync(path, `${JSON.stringify(nativeSchema.parse(readJson(path)), null, 2)}\n`);
}

const manifest = () => ({
  ...manifestSchema.parse(readJson(join(projectRoot, 'package.json'))),
  description: 'A language model on your own machine: chat, completion, summaries, a server with OpenAI’s API.',
});

const readJson = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'));

if (import.meta.main) {
  const { values } = parseArgs({
    options: { target: { type: 'string', default: hostTarget }, out: { type: 'string' } },
  });
  if (!isTarget(values.target)) throw new Error(`No package for ${values.target}.`);
  const folder = values.out ?? join(projectRoot, 'dist');
  await packageChooser(folder);
  const file = await packageCommandLine(values.target, folder);
  const bytes = statSync(file).size;
  console.log(`${relative(process.cwd(), file)}: ${(bytes / 2 ** 20).toFixed(1)} MiB`);
  if (bytes > maxPackageBytes) throw new Error(`The package exceeds the limit of ${maxPackageBytes / 2 ** 20} MiB.`);
}
