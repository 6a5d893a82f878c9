// Builds everything that ships into dist/: the extension (CommonJS, as VS Code loads it), the engine process, the
// command line, and the webview's script and style. `--watch` rebuilds on change, `--production` minifies, `--outdir DIR`.
import { cpSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import * as esbuild from 'esbuild';
import { grammars } from './engine/index/syntax/grammars.ts';

const { values } = parseArgs({
  options: {
    watch: { type: 'boolean', default: false },
    production: { type: 'boolean', default: false },
    outdir: { type: 'string', default: 'dist' },
  },
});
const { watch, production, outdir } = values;

const common = {
  bundle: true,
  sourcemap: !production,
  // Keeps names, so that a user's log is readable.
  minifyWhitespace: production,
  minifySyntax: production,
  // VS Code's watch task waits for the lines that mark the beginning and end of a build.
  logLevel: watch ? 'info' : 'warning',
  outdir,
  metafile: true,
  // KaTeX's style names each font in three formats; every browser of VS Code reads the first.
  loader: { '.wgsl': 'text', '.txt': 'text', '.woff2': 'file', '.woff': 'empty', '.ttf': 'empty' },
  assetNames: 'fonts/[name]',
};
// Native modules stay in node_modules; the package carries the one platform's binaries.
const external = ['vscode', 'koffi', 'onnxruntime-node', 'webgpu'];
// Bundled CommonJS dependencies call require() and read __filename inside an ES module.
const banner = {
  js: [
    "import { createRequire as hearthCreateRequire } from 'node:module';",
    "import { fileURLToPath as hearthFileURLToPath } from 'node:url';",
    'const require = hearthCreateRequire(import.meta.url);',
    'const __filename = hearthFileURLToPath(import.meta.url);',
  ].join('\n'),
};
const node = { ...common, platform: 'node', target: 'node20', external };

// The page loads the script as a function, and passes its text to the diagram frame.
const asFunction = { banner: { js: 'globalThis.hearthDiagrams = () => {' }, footer: { js: '};' } };

const builds = [
  { ...node, format: 'cjs', entryPoints: { extension: 'extension/extension.ts' }, outExtension: { '.js': '.cjs' } },
  {
    ...node,
    format: 'esm',
    // Modules imported on demand are separate files, so that a start reads only what it needs.
    splitting: true,
    entryPoints: {
      engine: 'engine/main.ts',
      indexer: 'engine/indexer.ts',
      cli: 'engine/cli.ts',
      grammarThread: 'engine/sampling/grammarThread.ts',
      ggmlWorker: 'engine/backend/ggml/thread.ts',
      onnxWorker: 'engine/backend/onnx/graphThread.ts',
    },
    outExtension: { '.js': '.mjs' },
    banner,
  },
  ...['chat', 'diagrams'].map((name) => ({
    ...common,
    ...{ platform: 'browser', target: 'es2022', format: 'iife', entryPoints: { [name]: `media/${name}.ts` } },
    // Mermaid is 7 MB, and nobody needs its names in a log.
    minifyIdentifiers: production && name === 'diagrams',
    ...(name === 'diagrams' && asFunction),
  })),
];

for (const name of ['tree-sitter', ...grammars.map((grammar) => `tree-sitter-${grammar}`)]) {
  cpSync(`node_modules/@vscode/tree-sitter-wasm/wasm/${name}.wasm`, join(outdir, 'grammars', `${name}.wasm`));
}

if (watch) {
  for (const options of builds) await (await esbuild.context(options)).watch();
} else {
  const results = await Promise.all(builds.map((options) => esbuild.build(options)));
  for (const { metafile } of results) requireOwnImportsOnDemand(metafile);
  // scripts/package.ts reads from it whose licences the package must carry.
  const inputs = new Set(results.flatMap(({ metafile }) => Object.keys(metafile.inputs)));
  writeFileSync(join(outdir, 'inputs.json'), JSON.stringify([...inputs]));
  // Chunks are named by their content, so those of earlier builds must be removed.
  const built = new Set(results.flatMap(({ metafile }) => Object.keys(metafile.outputs).map((path) => basename(path))));
  for (const name of readdirSync(outdir))
    if (/\.mjs(\.map)?$/.test(name) && !built.has(name)) rmSync(join(outdir, name));
}

/**
 * esbuild gives a CommonJS package that is split off nothing but a default export, while Node and the types name others.
 * So a package is never imported on demand itself: a module of ours is, which imports the package as it starts.
 */
function requireOwnImportsOnDemand(metafile) {
  for (const [importer, { imports }] of Object.entries(metafile.inputs)) {
    const wrong = imports.find(({ kind, path }) => kind === 'dynamic-import' && path.startsWith('node_modules/'));
    if (wrong && !importer.startsWith('node_modules/')) {
      throw new Error(`${importer} imports ${wrong.path} on demand: let a module of ours do so, and import that.`);
    }
  }
}
