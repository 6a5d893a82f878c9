/** Counts syntax errors of a file with inserted text. */
import { grammarOf } from './grammars.ts';
import { readerOf } from './source.ts';
import type { Node, Parser, Tree } from './treeSitter.ts';

/** Parsing takes about 0.3 ms for a thousand characters; editors send about ten thousand. */
const maxChars = 64_000;

/** Counts the syntax errors of the file with a text inserted at the cursor. */
export type ErrorsWith = (inserted: string) => number;

/**
 * Parses the file once, then reparses it incrementally for each inserted text.
 * @returns undefined if the file has no grammar or is too long.
 */
export async function checkedAt<Result>(
  { path, prefix, suffix }: { readonly path: string; readonly prefix: string; readonly suffix: string },
  use: (errorsWith: ErrorsWith) => Promise<Result>,
): Promise<Result | undefined> {
  const grammar = grammarOf(path);
  if (grammar === undefined || prefix.length + suffix.length > maxChars) return undefined;
  const { parser } = await readerOf(grammar);
  const tree = parse(parser, prefix + suffix);
  try {
    return await use((inserted) => {
      if (inserted === '') return countErrors(tree.rootNode);
      const edited = withInsertion(tree, prefix, inserted);
      const after = parse(parser, prefix + inserted + suffix, edited);
      const errors = countErrors(after.rootNode);
      for (const used of [edited, after]) used.delete();
      return errors;
    });
  } finally {
    tree.delete();
  }
}

function parse(parser: Parser, text: string, old?: Tree): Tree {
  const tree = parser.parse(text, old);
  if (tree === null) throw new Error('The parser returned no tree.');
  return tree;
}

function withInsertion(tree: Tree, prefix: string, inserted: string): Tree {
  const edited = tree.copy();
  const start = positionAt(prefix);
  edited.edit({
    startIndex: prefix.length,
    oldEndIndex: prefix.length,
    newEndIndex: prefix.length + inserted.length,
    startPosition: start,
    oldEndPosition: start,
    newEndPosition: positionAt(prefix + inserted),
  });
  return edited;
}

function positionAt(text: string): { row: number; column: number } {
  const lines = text.split('\n');
  return { row: lines.length - 1, column: lines.at(-1)?.length ?? 0 };
}

function countErrors(node: Node): number {
  if (!node.hasError) return 0;
  const own = node.isError || node.isMissing ? 1 : 0;
  return node.children.reduce((sum, child) => sum + (child ? countErrors(child) : 0), own);
}
