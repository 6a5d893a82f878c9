// Builds everything that ships into dist/: the extension (CommonJS, as VS Code loads it), the engine process, the
// command line, and the webview's script and style. `--watch` rebuilds on change, `--production` minifies.
import * as esbuild from 'esbuild';

const watch = process.argv.includes('--watch');
const production = process.argv.includes('--production');

const common = {
  bundle: true,
  sourcemap: !production,
  minify: production,
  logLevel: 'warning',
  outdir: 'dist',
  loader: { '.wgsl': 'text', '.txt': 'text' },
};
// Native modules stay in node_modules; the package carries the one platform's binaries.
const external = ['vscode', 'onnxruntime-node', 'webgpu'];
// Bundled CommonJS dependencies call require() inside an ES module.
const banner = {
  js: "import { createRequire as hearthCreateRequire } from 'node:module'; const require = hearthCreateRequire(import.meta.url);",
};
const node = { ...common, platform: 'node', target: 'node20', external };

const builds = [
  { ...node, format: 'cjs', entryPoints: { extension: 'extension/extension.ts' }, outExtension: { '.js': '.cjs' } },
  {
    ...node,
    format: 'esm',
    entryPoints: { engine: 'engine/main.ts', cli: 'engine/cli.ts' },
    outExtension: { '.js': '.mjs' },
    banner,
  },
  { ...common, platform: 'browser', target: 'es2022', format: 'iife', entryPoints: { chat: 'media/chat.ts' } },
];

for (const options of builds) {
  if (watch) await (await esbuild.context(options)).watch();
  else await esbuild.build(options);
}
