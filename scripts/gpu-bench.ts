/**
 * `npm run gpu-bench` packs everything to test and measure the GPU engine on a bare Linux GPU host (x86-64, glibc) without
 * downloads: Node, the bundles, the kernel tests, Dawn, a Vulkan loader, llama.cpp's Vulkan and CUDA builds from npm's
 * node-llama-cpp as the peer, and a generator of random checkpoints. Writes archives under 60 MB and `run.sh` to dist/gpu-bench.
 *
 * On the host, put all files in an empty folder and run `sh run.sh`. It takes the options of scripts/gpu-bench/run.ts.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { build } from 'esbuild';
import { kernelTests } from './shared/kernelTests.ts';
import { projectRoot } from './shared/paths.ts';
import { npm, run } from './shared/process.ts';

const archiveBytes = 55_000_000;
const peerVersion = '3.22.1';
const out = join(projectRoot, 'dist', 'gpu-bench');
const peer = join(projectRoot, '.cache', 'bench', 'gpu-peer');
const staging = join(projectRoot, '.cache', 'gpu-bench');

/** NVIDIA's Vulkan driver links against X11 even without a screen. */
const systemLibraries = [
  'libvulkan.so.1',
  'libX11.so.6',
  'libXext.so.6',
  'libxcb.so.1',
  'libXau.so.6',
  'libXdmcp.so.6',
  'libbsd.so.0',
  'libmd.so.0',
];
const libraryFolder = '/usr/lib/x86_64-linux-gnu';

/** Registers the driver if a container lacks its manifest. The host's own libraries take precedence. */
const runScript = `#!/bin/sh
# Unpacks the archives in this folder and runs the benchmark: sh run.sh [OPTIONS]
set -e
cd "$(dirname "$0")"
[ -d bench ] || cat hearth-gpu-bench.tar.gz.* | tar xzf -
export LD_LIBRARY_PATH="\${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$PWD/bench/lib"
if [ -z "$VK_ICD_FILENAMES$VK_DRIVER_FILES" ] && ! ls /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json >/dev/null 2>&1; then
  echo '{"file_format_version":"1.0.0","ICD":{"library_path":"libGLX_nvidia.so.0","api_version":"1.3.0"}}' > bench/nvidia_icd.json
  export VK_ICD_FILENAMES="$PWD/bench/nvidia_icd.json"
fi
exec bench/node bench/run.mjs "$@"
`;

const banner = {
  js: "import { createRequire as hearthCreateRequire } from 'node:module'; const require = hearthCreateRequire(import.meta.url);",
};

async function bundle(bench: string): Promise<void> {
  const tests = kernelTests.map((name) => `${name}.test.ts`);
  await build({
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    banner,
    logLevel: 'warning',
    absWorkingDir: projectRoot,
    outdir: bench,
    outExtension: { '.js': '.mjs' },
    external: ['webgpu', 'onnxruntime-node'],
    alias: { vitest: './scripts/gpu-bench/vitest.ts' },
    entryPoints: {
      ...Object.fromEntries(['run', 'hearth', 'peer'].map((name) => [name, `scripts/gpu-bench/${name}.ts`])),
      ...Object.fromEntries(tests.map((name) => [`test/gpu/${basename(name, '.ts')}`, `test/gpu/${name}`])),
    },
  });
  cpSync(join(projectRoot, 'test/fixtures/gguf'), join(bench, 'test/fixtures/gguf'), { recursive: true });
}

async function fetchPeer(): Promise<void> {
  if (existsSync(join(peer, 'node_modules', 'node-llama-cpp'))) return;
  mkdirSync(peer, { recursive: true });
  writeFileSync(join(peer, 'package.json'), '{ "private": true, "type": "module" }\n');
  const packages = ['node-llama-cpp', '@node-llama-cpp/linux-x64-vulkan', '@node-llama-cpp/linux-x64-cuda'];
  const options = ['install', '--omit=optional', '--ignore-scripts', '--no-audit', '--no-fund', '--force'];
  await npm([...options, ...packages.map((name) => `${name}@${peerVersion}`)], { cwd: peer, output: 'quiet' });
}

function stageLibraries(bench: string): string[] {
  const modules = join(bench, 'node_modules');
  cpSync(join(peer, 'node_modules'), modules, { recursive: true });
  for (const file of ['package.json', 'index.js', 'dist/linux-x64']) {
    cpSync(join(projectRoot, 'node_modules/webgpu', file), join(modules, 'webgpu', file), { recursive: true });
  }
  const node = join(projectRoot, 'node_modules/node/bin/node');
  cpSync(existsSync(node) ? node : process.execPath, join(bench, 'node'));
  mkdirSync(join(bench, 'lib'));
  const missing = systemLibraries.filter((name) => !existsSync(join(libraryFolder, name)));
  for (const name of systemLibraries.filter((each) => !missing.includes(each))) {
    copyFileSync(join(libraryFolder, name), join(bench, 'lib', name));
  }
  return missing;
}

function archive(): string[] {
  const whole = join(out, 'hearth-gpu-bench.tar.gz');
  const { status } = spawnSync('tar', ['czf', whole, '-C', staging, 'bench'], { stdio: 'inherit' });
  if (status !== 0) throw new Error('tar failed');
  const bytes = readFileSync(whole);
  rmSync(whole);
  const names: string[] = [];
  for (let at = 0; at < bytes.length; at += archiveBytes) {
    const name = `hearth-gpu-bench.tar.gz.${String(names.length).padStart(2, '0')}`;
    writeFileSync(join(out, name), bytes.subarray(at, at + archiveBytes));
    names.push(name);
  }
  return names;
}

if (process.platform !== 'linux' || process.arch !== 'x64')
  throw new Error('The archives can only be packed on Linux x86-64.');
for (const folder of [staging, out]) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
}
const bench = join(staging, 'bench');
await fetchPeer();
await bundle(bench);
const missing = stageLibraries(bench);
if (missing.length > 0) console.error(`Left out, since this machine lacks them: ${missing.join(', ')}.`);
const names = archive();
writeFileSync(join(out, 'run.sh'), runScript);
await run('sh', ['-n', join(out, 'run.sh')]);
for (const name of [...names, 'run.sh'])
  console.log(`${(statSync(join(out, name)).size / 1e6).toFixed(1).padStart(6)} MB  dist/gpu-bench/${name}`);
