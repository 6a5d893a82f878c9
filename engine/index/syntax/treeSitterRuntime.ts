/** The tree-sitter runtime, imported on demand. Node cannot detect the exports of its CommonJS, so they are in `default`. */
import treeSitter from '@vscode/tree-sitter-wasm';

export const { Language, Parser, Query } = treeSitter;
