/** Whether a text is well formed, as far as its grammar can tell. */
import { grammarOf } from './grammars.ts';
import { withTree } from './source.ts';
import type { Node } from './treeSitter.ts';

/** Parsing takes about 0.3 ms a thousand characters; an editor sends some thousand. */
const maxChars = 64_000;

/** How many places do not parse; undefined where no grammar is known for the file, or it is too long to ask. */
export async function syntaxErrors(path: string, text: string): Promise<number | undefined> {
  const grammar = grammarOf(path);
  if (grammar === undefined || text.length > maxChars) return undefined;
  return withTree(grammar, text, countErrors);
}

function countErrors(node: Node): number {
  if (!node.hasError) return 0;
  const own = node.isError || node.isMissing ? 1 : 0;
  return node.children.reduce((sum, child) => sum + (child ? countErrors(child) : 0), own);
}
