/** Parses a source file into chunks, definitions and imports. */
import { type Chunk, chunksOf } from './chunks.ts';
import { definitionQueries, type Grammar, grammarOf } from './grammars.ts';
import { type FileSymbols, symbolsOf } from './symbols.ts';
import { createReader, type Node, type Reader } from './treeSitter.ts';

export interface SourceParts extends FileSymbols {
  readonly chunks: readonly Chunk[];
}

/** A syntax tree takes about 30 times the text's memory. Larger files are split at blank lines. */
const maxParsedChars = 1_000_000;

const readers = new Map<Grammar, Promise<Reader>>();

export async function partsOf(path: string, text: string): Promise<SourceParts> {
  const lines = text.split('\n');
  const grammar = text.length <= maxParsedChars ? grammarOf(path) : undefined;
  if (grammar === undefined) return { chunks: chunksOf(lines, undefined), definitions: [], imports: [] };
  const { query } = await readerOf(grammar);
  return withTree(grammar, text, (root) => ({ chunks: chunksOf(lines, root), ...symbolsOf(query.matches(root)) }));
}

/** Runs `use` on the syntax tree of `text`, then frees the tree. */
export async function withTree<Result>(grammar: Grammar, text: string, use: (root: Node) => Result): Promise<Result> {
  const { parser } = await readerOf(grammar);
  const tree = parser.parse(text);
  if (tree === null) throw new Error('The parser returned no tree.');
  try {
    return use(tree.rootNode);
  } finally {
    tree.delete();
  }
}

export function readerOf(grammar: Grammar): Promise<Reader> {
  const known = readers.get(grammar) ?? createReader(grammar, definitionQueries[grammar]);
  readers.set(grammar, known);
  return known;
}
