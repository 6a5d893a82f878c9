import { mkdir, rm, symlink } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { build } from 'esbuild';

const root = resolve(import.meta.dirname, '../../..');

/** Bundles an entry point as the product is bundled, in a folder from which native modules are found. */
export async function bundle(entry: string): Promise<{ path: string; remove: () => Promise<void> }> {
  const directory = join(root, 'node_modules', '.cache', 'hearth-test', `${process.pid}-${Date.now()}`);
  await mkdir(directory, { recursive: true });
  const path = join(directory, basename(entry).replace(/\.ts$/, '.mjs'));
  await Promise.all([
    compile(entry, path),
    // The processor's backend finds its thread beside whatever loads it.
    compile('engine/backend/onnx/graphThread.ts', join(directory, 'onnxWorker.mjs')),
    compile('engine/sampling/grammarThread.ts', join(directory, 'grammarThread.mjs')),
  ]);
  await symlink(join(root, 'node_modules/@vscode/tree-sitter-wasm/wasm'), join(directory, 'grammars'));
  return { path, remove: () => rm(directory, { recursive: true, force: true }) };
}

async function compile(entry: string, outfile: string): Promise<void> {
  await build({
    entryPoints: [join(root, entry)],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    external: ['onnxruntime-node', 'webgpu'],
    loader: { '.wgsl': 'text' },
    banner: {
      js: [
        "import { createRequire as hearthCreateRequire } from 'node:module';",
        'const require = hearthCreateRequire(import.meta.url);',
        'const __filename = import.meta.filename;',
      ].join('\n'),
    },
    logLevel: 'error',
  });
}
