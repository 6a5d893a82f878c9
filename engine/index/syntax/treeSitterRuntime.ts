/** The tree-sitter runtime, imported on demand. It is CommonJS whose exports Node cannot name: they are its default. */
import treeSitter from '@vscode/tree-sitter-wasm';

export const { Language, Parser, Query } = treeSitter;
