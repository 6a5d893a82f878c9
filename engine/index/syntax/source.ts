/** Parses a source file into chunks, definitions and imports. */
import { type SymbolKind, symbolKinds } from '../../protocol/indexProtocol.ts';
import {
  createReader,
  definitionQueries,
  type Grammar,
  grammarOf,
  type Node,
  type Parser,
  type QueryMatch,
  type Reader,
  type Tree,
} from './grammars.ts';

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

function readerOf(grammar: Grammar): Promise<Reader> {
  const known = readers.get(grammar) ?? createReader(grammar, definitionQueries[grammar]);
  readers.set(grammar, known);
  return known;
}

// Splits a file into chunks along its syntax: keeps definitions whole if they fit, merges small neighbours, and splits large
// definitions at their members (Zhang et al., "cAST: Enhancing code retrieval-augmented generation with structural
// chunking", 2025).

/** Lines start at 1, end inclusive. */
interface Chunk {
  readonly firstLine: number;
  readonly lastLine: number;
}

/** About one screen, or 500 to 1000 tokens. */
const maxLines = 50;
const maxChars = 3000;

/** A range of lines, starting at 0, end inclusive. `node` is set if the range contains exactly one node. */
interface Unit {
  readonly first: number;
  readonly last: number;
  readonly node: Node | undefined;
}

/** @param root undefined if the language has no grammar; then the file is split at blank lines. */
export function chunksOf(lines: readonly string[], root: Node | undefined): Chunk[] {
  const size = new LineSizes(lines);
  // A final line break does not start another line.
  const last = lines.length - (lines.at(-1) === '' ? 2 : 1);
  const whole: Unit = { first: 0, last, node: root };
  const pieces = size.fits(0, last) ? [whole] : cut(whole, size, lines);
  return pieces
    .filter(({ first, last }) => size.chars(first, last) > last - first + 1)
    .map(({ first, last }) => ({ firstLine: first + 1, lastLine: last + 1 }));
}

class LineSizes {
  /** Character offset of each line. */
  readonly #before: number[] = [0];

  constructor(lines: readonly string[]) {
    let total = 0;
    for (const line of lines) {
      total += line.length + 1;
      this.#before.push(total);
    }
  }

  chars(first: number, last: number): number {
    return (this.#before[last + 1] ?? 0) - (this.#before[first] ?? 0);
  }

  fits(first: number, last: number): boolean {
    return last - first < maxLines && this.chars(first, last) <= maxChars;
  }
}

function cut(unit: Unit, size: LineSizes, lines: readonly string[]): Unit[] {
  const units = unit.node ? unitsOf(unit, unit.node) : [];
  if (units.length < 2) {
    const [only] = units;
    // Descends if one child fills the node, such as the class in `export class …`.
    if (only?.node && only.node.id !== unit.node?.id) return cut({ ...unit, node: only.node }, size, lines);
    return cutAtBlankLines(unit, size, lines);
  }
  const pieces: Unit[] = [];
  let pending: Unit | undefined;
  for (const next of units) {
    if (pending && size.fits(pending.first, next.last)) {
      pending = { first: pending.first, last: next.last, node: undefined };
      continue;
    }
    if (pending) pieces.push(pending);
    pending = undefined;
    if (size.fits(next.first, next.last)) pending = next;
    else pieces.push(...cut(next, size, lines));
  }
  if (pending) pieces.push(pending);
  return pieces;
}

const rowsOf = ({ startPosition, endPosition }: Node): number => endPosition.row - startPosition.row;

/** Splits `unit` into one unit a child. A comment belongs to the following child. */
function unitsOf({ first, last }: Unit, node: Node): Unit[] {
  const starts: { row: number; node: Node }[] = [];
  let commentRow: number | undefined;
  let previousEnd = first - 1;
  for (const child of node.children) {
    if (!child) continue;
    const row = child.startPosition.row;
    const begin = commentRow ?? row;
    if (/comment/.test(child.type)) {
      // A comment at the end of a line belongs to that line.
      if (row > previousEnd) commentRow ??= row;
      continue;
    }
    commentRow = undefined;
    const before = starts.at(-1);
    // A split is possible only before a child that starts a line. If children share a line, as in `class A {…}`, the longest is kept for further splits.
    if (begin > previousEnd || !before) starts.push({ row: begin, node: child });
    else if (rowsOf(child) > rowsOf(before.node)) before.node = child;
    previousEnd = child.endPosition.column === 0 ? child.endPosition.row - 1 : child.endPosition.row;
  }
  return starts.map(({ row, node: child }, i) => ({
    first: i === 0 ? first : row,
    last: (starts[i + 1]?.row ?? last + 1) - 1,
    node: child,
  }));
}

/** Splits into ranges of the maximum size, each ending at the last blank line of its second half. */
function cutAtBlankLines({ first, last }: Unit, size: LineSizes, lines: readonly string[]): Unit[] {
  const pieces: Unit[] = [];
  let start = first;
  while (start <= last) {
    let end = start;
    while (end < last && size.fits(start, end + 1)) end++;
    if (end < last) {
      for (let line = end; line > start + (end - start) / 2; line--) {
        if (lines[line]?.trim() !== '') continue;
        end = line;
        break;
      }
    }
    pieces.push({ first: start, last: end, node: undefined });
    start = end + 1;
  }
  return pieces;
}

// Extracts the definitions and imports of a parsed file.

export interface Definition {
  readonly name: string;
  readonly kind: SymbolKind;
  /** Names of the enclosing definitions, outermost first, joined by dots; '' at top level. */
  readonly container: string;
  /** Lines start at 1, end inclusive. */
  readonly firstLine: number;
  readonly lastLine: number;
  /** Line of the name. */
  readonly nameLine: number;
}

interface FileSymbols {
  readonly definitions: readonly Definition[];
  /** Import targets as written, without quotes. */
  readonly imports: readonly string[];
}

/** Longer names are generated, or a parse error. */
const maxNameChars = 200;

/** A definition with its range, which determines nesting. */
interface Found {
  readonly definition: Definition;
  readonly start: number;
  readonly end: number;
}

function symbolsOf(matches: readonly QueryMatch[]): FileSymbols {
  const found = new Map<string, Found>();
  const imports = new Set<string>();
  for (const match of matches) {
    const own = foundIn(match);
    if (own) {
      // Query patterns overlap: a constant that holds a function matches both.
      const key = `${own.definition.nameLine} ${own.definition.name}`;
      if ((found.get(key)?.definition.kind ?? 'constant') === 'constant') found.set(key, own);
    }
    const imported = match.captures.find(({ name }) => name === 'import')?.node.text;
    if (imported !== undefined) imports.add(imported.replaceAll(/^["'<]|["'>]$/g, ''));
  }
  return { definitions: withContainers([...found.values()]), imports: [...imports] };
}

function foundIn({ captures }: QueryMatch): Found | undefined {
  const named = captures.find(({ name }) => name === 'name')?.node;
  const whole = captures.find(({ name }) => isKind(name));
  if (!named || !whole || !isKind(whole.name)) return undefined;
  const name = plainName(named.text);
  if (name === '' || name.length > maxNameChars) return undefined;
  const { startIndex: start, endIndex: end, startPosition, endPosition } = whole.node;
  const firstLine = startPosition.row + 1;
  // The node of a C macro includes its line break and so ends on the next line.
  const lastLine = Math.max(firstLine, endPosition.row + (endPosition.column === 0 ? 0 : 1));
  const nameLine = named.startPosition.row + 1;
  return { definition: { name, kind: whole.name, container: '', firstLine, lastLine, nameLine }, start, end };
}

const isKind = (name: string): name is SymbolKind => symbolKinds.some((kind) => kind === name);

/** The name that callers use: `inner` for `Outer::inner<T>`, `secret` for `#secret`. */
function plainName(text: string): string {
  const scope = text.lastIndexOf('::');
  const last = scope < 0 ? text : text.slice(scope + 2);
  return /[\p{L}_$~][\p{L}\p{N}_$]*/u.exec(last)?.[0] ?? '';
}

function withContainers(found: Found[]): Definition[] {
  found.sort((a, b) => a.start - b.start || b.end - a.end);
  const open: Found[] = [];
  return found.map((own) => {
    while ((open.at(-1)?.end ?? Number.POSITIVE_INFINITY) < own.end) open.pop();
    const container = open.map(({ definition }) => definition.name).join('.');
    open.push(own);
    return { ...own.definition, container };
  });
}

// Counts syntax errors of a file with inserted text.

/** Parsing takes about 0.3 ms for a thousand characters; editors send about ten thousand. */
const maxCheckedChars = 64_000;

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
  if (grammar === undefined || prefix.length + suffix.length > maxCheckedChars) return undefined;
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
