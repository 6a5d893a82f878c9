/** Loads the tree-sitter runtime and grammars that VS Code ships, on first use. */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Language, Parser, Query } from '@vscode/tree-sitter-wasm';
import type { Grammar } from './grammars.ts';

export type { Node, Parser, QueryMatch, Tree } from '@vscode/tree-sitter-wasm';

export interface Reader {
  readonly parser: Parser;
  readonly query: Query;
}

/** esbuild.mjs copies the grammars next to the bundles. */
const wasmFolder = import.meta.url.endsWith('.ts')
  ? dirname(createRequire(import.meta.url).resolve('@vscode/tree-sitter-wasm'))
  : fileURLToPath(new URL('./grammars', import.meta.url));

type Runtime = typeof import('./treeSitterRuntime.ts');
let runtime: Promise<Runtime> | undefined;

/** A parser for one grammar, with a query. */
export async function createReader(grammar: Grammar, querySource: string): Promise<Reader> {
  runtime ??= start();
  const { Language, Parser, Query } = await runtime;
  const language: Language = await Language.load(await readFile(join(wasmFolder, `tree-sitter-${grammar}.wasm`)));
  return { parser: new Parser().setLanguage(language), query: new Query(language, querySource) };
}

async function start(): Promise<Runtime> {
  const loaded = await import('./treeSitterRuntime.ts');
  await loaded.Parser.init({ locateFile: (name: string) => join(wasmFolder, name) });
  return loaded;
}
