/**
 * Builds the VSIX of one platform: production bundles and that platform's native binaries.
 *
 *     npm run package [-- --target linux-x64] [--out FILE]
 *
 * The bundles import koffi, onnxruntime-node and webgpu by name. The VSIX has them in dist/node_modules, without other platforms'
 * binaries, so that the same import works in a checkout and in an installed extension. ggml and koffi have a package for each platform;
 * npm installs this machine's, and those of other targets are fetched from the registry by the versions and digests of the lock file.
 */
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { notices } from './notices.ts';
import { hostTarget, projectRoot } from './shared/paths.ts';
import { npm, run } from './shared/process.ts';

export const maxPackageBytes = 60 * 2 ** 20;

const targets = {
  'linux-x64': { onnxruntime: 'linux/x64', dawn: 'linux-x64', ggml: 'linux-x64' },
  'linux-arm64': { onnxruntime: 'linux/arm64', dawn: 'linux-arm64', ggml: 'linux-arm64' },
  'darwin-arm64': { onnxruntime: 'darwin/arm64', dawn: 'darwin-universal', ggml: 'mac-arm64-metal' },
  // onnxruntime-node has no binary for Intel Macs since 1.24. The engine uses its other backends there.
  'darwin-x64': { onnxruntime: undefined, dawn: 'darwin-universal', ggml: 'mac-x64' },
  'win32-x64': { onnxruntime: 'win32/x64', dawn: 'win32-x64', ggml: 'win-x64' },
  'win32-arm64': { onnxruntime: 'win32/arm64', dawn: 'win32-arm64', ggml: 'win-arm64' },
} as const;
export type Target = keyof typeof targets;

/** Manifest fields that an installed extension doesn't need. */
const developmentKeys = ['scripts', 'dependencies', 'devDependencies', 'allowScripts'];
/** Files to omit: source maps, typings, and duplicates of libraries that npm packed instead of symbolic links. */
const unused = /\.map$|\.d\.ts$|libonnxruntime\.\d+\.\d+\.\d+\.dylib$/;
/**
 * Of ggml's package: the libraries that the engine opens. Of those for x64, four stay out that differ little from the next one down in what
 * they use, for processors that are rare: 2 MB.
 */
const ggmlLibrary = /ggml-(base|cpu(?!-(cannonlake|cooperlake|ivybridge|piledriver)))[\w.-]*\.(so|dylib|dll)$/;
/** Of koffi's package: onnxruntime-node has no binary for musl either. */
const muslLibrary = /[\\/]musl_\w+$/;
const documents = /^(README\.md|CHANGELOG\.md|LICENSE|\.vscodeignore|media|l10n|package\.nls(\.[\w-]+)?\.json)$/;

/** The gallery has no suffixes of versions: odd minor versions are pre-releases, even ones releases, as VS Code's documentation advises. */
export const isPreRelease = (version: string): boolean => Number(version.split('.')[1]) % 2 === 1;

export async function packageExtension(target: Target, out: string): Promise<string> {
  const staging = join(projectRoot, '.cache', 'package', target);
  rmSync(staging, { recursive: true, force: true });
  mkdirSync(staging, { recursive: true });
  const dist = join(staging, 'dist');
  const build = ['esbuild.mjs', '--production', `--outdir=${relative(projectRoot, dist)}`];
  await run(process.execPath, build, { cwd: projectRoot });
  const native = await copyNativeModules(target, join(dist, 'node_modules'));
  stageDocuments(staging);
  const inputs = z.array(z.string()).parse(readJson(join(dist, 'inputs.json')));
  writeFileSync(
    join(staging, 'ThirdPartyNotices.txt'),
    notices(
      inputs,
      native.map(({ folder }) => folder),
    ),
  );
  mkdirSync(dirname(out), { recursive: true });
  const vsce = join(projectRoot, 'node_modules', '@vscode', 'vsce', 'vsce');
  const { version } = z.object({ version: z.string() }).parse(readJson(join(projectRoot, 'package.json')));
  const options = ['package', '--no-dependencies', '--no-rewrite-relative-links', '--allow-missing-repository'];
  if (isPreRelease(version)) options.push('--pre-release');
  await run(process.execPath, [vsce, ...options, '--target', target, '--out', out], { cwd: staging, output: 'quiet' });
  rmSync(staging, { recursive: true });
  return out;
}

export interface NativePackage {
  readonly name: string;
  /** Where it was copied from, relative to the project. */
  readonly folder: string;
}

/** Returns the packages it copied. */
export async function copyNativeModules(target: Target, nodeModules: string): Promise<NativePackage[]> {
  const { onnxruntime, dawn, ggml } = targets[target];
  const copy = (path: string) =>
    cpSync(join(projectRoot, 'node_modules', path), join(nodeModules, path), {
      recursive: true,
      filter: (from) => !unused.test(from),
    });
  const script = (path: string) => {
    copy(path);
    for (const name of readdirSync(join(nodeModules, path), { recursive: true, encoding: 'utf8' }))
      if (name.endsWith('.js')) removeMapReference(join(nodeModules, path, name));
  };
  copy('webgpu/package.json');
  copy('webgpu/index.js');
  copy(`webgpu/dist/${dawn}`);
  const copied = [...installed('webgpu', 'koffi'), ...(await copyGgml(target, ggml, nodeModules))];
  copy('koffi/package.json');
  // Of its sources, what Node runs: the library itself is a package a platform.
  const scripts = readdirSync(join(projectRoot, 'node_modules/koffi'), { recursive: true, encoding: 'utf8' });
  for (const path of scripts.filter((each) => /^(index|src[\\/]koffi[\\/].+)\.c?js$/.test(each))) copy(`koffi/${path}`);
  if (onnxruntime === undefined) return copied;
  copy('onnxruntime-node/package.json');
  script('onnxruntime-node/dist');
  copy(`onnxruntime-node/bin/napi-v6/${onnxruntime}`);
  copy('onnxruntime-common/package.json');
  script('onnxruntime-common/dist/cjs');
  script('onnxruntime-common/dist/esm');
  return [...copied, ...installed('onnxruntime-node', 'onnxruntime-common')];
}

const installed = (...names: readonly string[]): NativePackage[] =>
  names.map((name) => ({ name, folder: join('node_modules', name) }));

/** ggml's libraries and koffi's binary. Returns the packages it copied. */
async function copyGgml(target: Target, ggml: string, nodeModules: string): Promise<NativePackage[]> {
  const copied: NativePackage[] = [];
  for (const name of [`@node-llama-cpp/${ggml}`, `@koromix/koffi-${target}`]) {
    const folder = await platformPackage(name);
    copied.push({ name, folder: relative(projectRoot, folder) });
    cpSync(folder, join(nodeModules, name), {
      recursive: true,
      filter: (from) =>
        !muslLibrary.test(from) && (!from.includes(`${sep}bins${sep}${ggml}${sep}`) || ggmlLibrary.test(from)),
    });
  }
  return copied;
}

/** Where npm put it; of another platform, a folder with the package as the lock file names it. */
async function platformPackage(name: string): Promise<string> {
  const installed = join(projectRoot, 'node_modules', name);
  if (existsSync(installed)) return installed;
  const { version, integrity } = z
    .object({
      packages: z.record(z.string(), z.object({ version: z.string().optional(), integrity: z.string().optional() })),
    })
    .transform(({ packages }) => packages[`node_modules/${name}`] ?? {})
    .parse(readJson(join(projectRoot, 'package-lock.json')));
  if (version === undefined || integrity === undefined) throw new Error(`The lock file doesn't name ${name}.`);
  const folder = join(projectRoot, '.cache', 'platforms', `${name.replace('/', '-')}-${version}`);
  const unpacked = join(folder, 'package');
  if (existsSync(join(unpacked, 'package.json'))) return unpacked;
  mkdirSync(folder, { recursive: true });
  await npm(['pack', `${name}@${version}`, '--pack-destination', folder, '--silent'], { cwd: projectRoot });
  const archive = readdirSync(folder).find((file) => file.endsWith('.tgz'));
  if (archive === undefined) throw new Error(`npm packed no archive of ${name}.`);
  const digest = createHash('sha512')
    .update(readFileSync(join(folder, archive)))
    .digest('base64');
  if (integrity !== `sha512-${digest}`) throw new Error(`${name} ${version} is not what the lock file names.`);
  await run('tar', ['-xzf', archive], { cwd: folder });
  return unpacked;
}

/** The map itself is not shipped, and debuggers would look for it. */
function removeMapReference(path: string): void {
  const text = readFileSync(path, 'utf8');
  writeFileSync(path, text.replace(/\n?\/\/# sourceMappingURL=.*\n?$/, '\n'));
}

function stageDocuments(staging: string): void {
  for (const name of readdirSync(projectRoot).filter((each) => documents.test(each)))
    cpSync(join(projectRoot, name), join(staging, name), { recursive: true });
  const manifest = z.record(z.string(), z.unknown()).parse(readJson(join(projectRoot, 'package.json')));
  for (const key of developmentKeys) delete manifest[key];
  writeFileSync(join(staging, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
}

function readJson(path: string): unknown {
  return JSON.parse(readFileSync(path, 'utf8'));
}

export const targetNames: readonly string[] = Object.keys(targets);

export function isTarget(name: string): name is Target {
  return Object.hasOwn(targets, name);
}

export function defaultPackagePath(target: string): string {
  return join(projectRoot, 'dist', `hearth-${target}.vsix`);
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { target: { type: 'string', default: hostTarget }, out: { type: 'string' } },
  });
  if (!isTarget(values.target)) {
    console.error(`No package for ${values.target}. Targets: ${targetNames.join(', ')}.`);
    process.exit(1);
  }
  const file = await packageExtension(values.target, values.out ?? defaultPackagePath(values.target));
  const bytes = statSync(file).size;
  console.log(`${relative(process.cwd(), file)}: ${(bytes / 2 ** 20).toFixed(1)} MiB`);
  if (bytes > maxPackageBytes) {
    console.error(`The package exceeds the limit of ${maxPackageBytes / 2 ** 20} MiB.`);
    process.exit(1);
  }
}
