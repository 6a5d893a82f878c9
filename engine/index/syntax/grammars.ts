import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import type { Language, Parser, Query } from '@vscode/tree-sitter-wasm';

/**
 * Grammars by file type, and queries for definitions and imports. A definition is captured by its kind and its name as
 * `@name`; an import's target is captured as `@import`.
 */

export const grammars = [
  'bash',
  'c-sharp',
  'cpp',
  'css',
  'go',
  'java',
  'javascript',
  'php',
  'python',
  'ruby',
  'rust',
  'tsx',
  'typescript',
] as const;
export type Grammar = (typeof grammars)[number];

const extensions: Readonly<Record<Grammar, readonly string[]>> = {
  bash: ['sh', 'bash'],
  'c-sharp': ['cs'],
  // C uses the C++ grammar, because the package has no C grammar.
  cpp: ['c', 'h', 'cc', 'cpp', 'cxx', 'hh', 'hpp', 'hxx', 'inl', 'ino', 'cu', 'cuh'],
  css: ['css'],
  go: ['go'],
  java: ['java'],
  javascript: ['js', 'mjs', 'cjs', 'jsx'],
  php: ['php'],
  python: ['py', 'pyi'],
  ruby: ['rb', 'rake'],
  rust: ['rs'],
  tsx: ['tsx'],
  typescript: ['ts', 'mts', 'cts'],
};

const byExtension = new Map(grammars.flatMap((grammar) => extensions[grammar].map((ending) => [ending, grammar])));

/** @param path ends in a file name. @returns undefined if no grammar is known. */
export function grammarOf(path: string): Grammar | undefined {
  const dot = path.lastIndexOf('.');
  return dot < 0 ? undefined : byExtension.get(path.slice(dot + 1).toLowerCase());
}

const ecmaScript = `
  (function_declaration name: (identifier) @name) @function
  (generator_function_declaration name: (identifier) @name) @function
  (method_definition name: (_) @name) @method
  (variable_declarator name: (identifier) @name value: [(arrow_function) (function_expression)]) @function
  (program (lexical_declaration (variable_declarator name: (identifier) @name) @constant))
  (program (variable_declaration (variable_declarator name: (identifier) @name) @constant))
  (export_statement (lexical_declaration (variable_declarator name: (identifier) @name) @constant))
  (assignment_expression
    left: (member_expression property: (property_identifier) @name)
    right: [(arrow_function) (function_expression) (class)]) @function
  (pair key: (property_identifier) @name value: [(arrow_function) (function_expression)]) @method
  (import_statement source: (string (string_fragment) @import))
  (export_statement source: (string (string_fragment) @import))
  (call_expression
    function: [(identifier) (import)] @callee
    arguments: (arguments . (string (string_fragment) @import))
    (#match? @callee "^(require|import)$"))`;

const typeScript = `${ecmaScript}
  (function_signature name: (identifier) @name) @function
  (class_declaration name: (type_identifier) @name) @class
  (abstract_class_declaration name: (type_identifier) @name) @class
  (interface_declaration name: (type_identifier) @name) @interface
  (type_alias_declaration name: (type_identifier) @name) @type
  (enum_declaration name: (identifier) @name) @enum
  (method_signature name: (_) @name) @method
  (abstract_method_signature name: (_) @name) @method
  (public_field_definition name: (_) @name) @field`;

export const definitionQueries: Readonly<Record<Grammar, string>> = {
  bash: '(function_definition name: (word) @name) @function',
  'c-sharp': `
    (class_declaration name: (identifier) @name) @class
    (interface_declaration name: (identifier) @name) @interface
    (struct_declaration name: (identifier) @name) @struct
    (record_declaration name: (identifier) @name) @class
    (enum_declaration name: (identifier) @name) @enum
    (delegate_declaration name: (identifier) @name) @type
    (method_declaration name: (identifier) @name) @method
    (constructor_declaration name: (identifier) @name) @method
    (property_declaration name: (identifier) @name) @field
    (using_directive [(identifier) (qualified_name)] @import)`,
  cpp: `
    (function_definition declarator: (function_declarator declarator: (_) @name)) @function
    (function_definition
      declarator: (pointer_declarator declarator: (function_declarator declarator: (_) @name))) @function
    (function_definition
      declarator: (reference_declarator (function_declarator declarator: (_) @name))) @function
    (class_specifier name: (_) @name body: (_)) @class
    (struct_specifier name: (_) @name body: (_)) @struct
    (union_specifier name: (_) @name body: (_)) @struct
    (enum_specifier name: (_) @name body: (_)) @enum
    (type_definition declarator: (type_identifier) @name) @type
    (alias_declaration name: (type_identifier) @name) @type
    (namespace_definition name: (_) @name) @module
    (preproc_def name: (identifier) @name) @constant
    (preproc_function_def name: (identifier) @name) @function
    (translation_unit (declaration declarator: (init_declarator declarator: (identifier) @name)) @variable)
    (preproc_include path: (_) @import)`,
  css: '',
  go: `
    (function_declaration name: (identifier) @name) @function
    (method_declaration name: (field_identifier) @name) @method
    (type_spec name: (type_identifier) @name) @type
    (type_alias name: (type_identifier) @name) @type
    (source_file (const_declaration (const_spec name: (identifier) @name) @constant))
    (source_file (var_declaration (var_spec name: (identifier) @name) @variable))
    (import_spec path: (interpreted_string_literal) @import)`,
  java: `
    (class_declaration name: (identifier) @name) @class
    (interface_declaration name: (identifier) @name) @interface
    (enum_declaration name: (identifier) @name) @enum
    (record_declaration name: (identifier) @name) @class
    (annotation_type_declaration name: (identifier) @name) @interface
    (method_declaration name: (identifier) @name) @method
    (constructor_declaration name: (identifier) @name) @method
    (field_declaration declarator: (variable_declarator name: (identifier) @name)) @field
    (import_declaration (scoped_identifier) @import)`,
  javascript: `${ecmaScript}
    (class_declaration name: (identifier) @name) @class
    (field_definition property: (_) @name) @field`,
  php: `
    (function_definition name: (name) @name) @function
    (class_declaration name: (name) @name) @class
    (interface_declaration name: (name) @name) @interface
    (trait_declaration name: (name) @name) @class
    (enum_declaration name: (name) @name) @enum
    (method_declaration name: (name) @name) @method
    (namespace_use_clause (qualified_name) @import)`,
  python: `
    (function_definition name: (identifier) @name) @function
    (class_definition name: (identifier) @name) @class
    (module (expression_statement (assignment left: (identifier) @name)) @constant)
    (import_statement name: (dotted_name) @import)
    (import_statement name: (aliased_import name: (dotted_name) @import))
    (import_from_statement module_name: (_) @import)`,
  ruby: `
    (method name: (_) @name) @method
    (singleton_method name: (_) @name) @method
    (class name: (_) @name) @class
    (module name: (_) @name) @module
    (program (assignment left: (constant) @name) @constant)
    (call
      method: (identifier) @callee
      arguments: (argument_list (string (string_content) @import))
      (#match? @callee "^require"))`,
  rust: `
    (function_item name: (identifier) @name) @function
    (function_signature_item name: (identifier) @name) @function
    (struct_item name: (type_identifier) @name) @struct
    (enum_item name: (type_identifier) @name) @enum
    (union_item name: (type_identifier) @name) @struct
    (trait_item name: (type_identifier) @name) @interface
    (type_item name: (type_identifier) @name) @type
    (mod_item name: (identifier) @name body: (_)) @module
    (const_item name: (identifier) @name) @constant
    (static_item name: (identifier) @name) @variable
    (macro_definition name: (identifier) @name) @function
    (use_declaration argument: (_) @import)`,
  tsx: typeScript,
  typescript: typeScript,
};

// Loads the tree-sitter runtime and grammars that VS Code ships, on first use.

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
let isSparing = false;

/** A parser for one grammar, with a query. */
export async function createReader(grammar: Grammar, querySource: string): Promise<Reader> {
  runtime ??= start();
  const { Language, Parser, Query } = await runtime;
  const language: Language = await Language.load(await readFile(join(wasmFolder, `tree-sitter-${grammar}.wasm`)));
  return { parser: new Parser().setLanguage(language), query: new Query(language, querySource) };
}

async function start(): Promise<Runtime> {
  const loaded = await import('./treeSitterRuntime.ts');
  const locateFile = (name: string): string => join(wasmFolder, name);
  await loaded.Parser.init(isSparing ? { locateFile, ...{ instantiateWasm } } : { locateFile });
  return loaded;
}

/** A hook of Emscripten (emscripten.org/docs/api_reference/module.html#Module.instantiateWasm). */
function instantiateWasm(imports: object, receive: (instance: object, module: object) => unknown): unknown {
  const module = optimisedModule(join(wasmFolder, 'tree-sitter.wasm'));
  return receive(new WebAssembly.Instance(module, imports), module);
}

/** TypeScript's libraries declare it for browsers only. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object, imports: object) => object;
};

/** Compiles at once with V8's optimising compiler, which otherwise compiles a function only after many calls. */
function optimisedModule(path: string): object {
  for (const flag of ['--no-liftoff', '--no-wasm-lazy-compilation']) setFlagsFromString(flag);
  try {
    return new WebAssembly.Module(readFileSync(path));
  } finally {
    for (const flag of ['--liftoff', '--wasm-lazy-compilation']) setFlagsFromString(flag);
  }
}

/**
 * Keeps the memory of an indexing process small from now on. V8 doesn't optimise grammars: optimising a lexer, which is
 * one huge function, takes 500 MB for a moment. V8 does optimise tree-sitter's runtime, which parses all languages, in
 * half a second with 36 MB; that is nearly as fast as optimising both. The heap is collected once it is 30 % larger
 * than the live objects, because garbage of one large file would otherwise stay for long.
 */
export function spareMemory(): void {
  isSparing = true;
  for (const flag of ['--no-wasm-tier-up', '--no-wasm-dynamic-tiering', '--heap-growing-percent=30']) {
    setFlagsFromString(flag);
  }
}
