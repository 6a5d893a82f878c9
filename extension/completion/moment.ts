import { importsIn } from '../../engine/index/question/planner.ts';
import { limits } from '../limits.ts';

/** Everything about the cursor's place that decides whether to ask the engine, and with what prompt. */
export interface Moment {
  languageId: string;
  /** Text before and after the cursor, cut to the engine's limits. */
  prefix: string;
  suffix: string;
  /** The cursor's line, before and after the cursor. */
  linePrefix: string;
  lineSuffix: string;
}

/** The part of vscode.TextDocument that is needed. */
interface Document extends Lines {
  readonly languageId: string;
}

interface Lines {
  readonly lineCount: number;
  lineAt(line: number): { readonly text: string };
}

/**
 * `inserted`: the item selected in the suggestion widget, which replaces the text from its start to the cursor. The
 * suggestion then continues that item.
 */
export function momentAt(
  document: Document,
  position: { readonly line: number; readonly character: number },
  inserted?: { text: string; startCharacter: number },
): Moment {
  const line = document.lineAt(position.line).text;
  const linePrefix = inserted
    ? line.slice(0, inserted.startCharacter) + inserted.text
    : line.slice(0, position.character);
  const lineSuffix = line.slice(position.character);
  const start = anchoredStart(position.line);
  const imports = importsIn(linesOf(document, 0, Math.min(start, limits.completion.importLines)).join('\n'));
  const before = [...imports, ...linesOf(document, start, position.line)];
  const after = linesOf(document, position.line + 1, position.line + 1 + limits.completion.suffixLines);
  return {
    languageId: document.languageId,
    prefix: cutFront([...before, linePrefix].join('\n')),
    suffix: cutEnd([lineSuffix, ...after].join('\n')),
    linePrefix,
    lineSuffix,
  };
}

/** Names on the cursor's line, then on the one above, each once, those nearest to the line's end first. */
export function namesNear(
  document: Pick<Lines, 'lineAt'>,
  line: number,
): { line: number; character: number; name: string }[] {
  const names = new Map<string, { line: number; character: number; name: string }>();
  for (const at of [line, line - 1].filter((own) => own >= 0)) {
    const matches = [...document.lineAt(at).text.matchAll(/[\p{L}_$][\p{L}\p{N}_$]{2,}/gu)].toReversed();
    for (const { index, 0: name } of matches)
      if (!names.has(name)) names.set(name, { line: at, character: index, name });
  }
  return [...names.values()].slice(0, limits.completion.namesLookedUp);
}

/** Cells of a notebook as one document, with an empty line between two, and the line at which `own` begins. */
export function joined(cells: readonly Document[], own: Document): { document: Document; firstLine: number } {
  const lines: string[] = [];
  let firstLine = 0;
  for (const cell of cells) {
    if (lines.length > 0) lines.push('');
    if (cell === own) firstLine = lines.length;
    lines.push(...linesOf(cell, 0, cell.lineCount));
  }
  const lineAt = (line: number) => ({ text: lines[line] ?? '' });
  return { document: { languageId: own.languageId, lineCount: lines.length, lineAt }, firstLine };
}

/** Moves in steps, so that the prompt's beginning stays the same from one key to the next. */
function anchoredStart(line: number): number {
  const { prefixLines, anchorLines } = limits.completion;
  return Math.max(0, Math.ceil((line - prefixLines) / anchorLines) * anchorLines);
}

/** In steps for the same reason. */
function cutFront(text: string): string {
  const excess = text.length - limits.completion.prefixChars;
  if (excess <= 0) return text;
  const step = Math.ceil(limits.completion.prefixChars / 4);
  return text.slice(Math.ceil(excess / step) * step).replace(/^[\uDC00-\uDFFF]/, '');
}

/** Never cuts between the halves of a surrogate pair. */
const cutEnd = (text: string): string => text.slice(0, limits.completion.suffixChars).replace(/[\uD800-\uDBFF]$/, '');

function linesOf(document: Lines, start: number, end: number): string[] {
  const lines: string[] = [];
  for (let line = start; line < Math.min(end, document.lineCount); line++) lines.push(document.lineAt(line).text);
  return lines;
}

const closersOnly = /^[\s)\]}>"'`;,:]*$/;
const word = /[\p{L}\p{N}_$]/u;

/**
 * A first check whether to ask the engine, which decides in detail. Not in the middle of a word, not before more text on the
 * line unless the model was trained to fill in code, and not in an empty file.
 */
export function worthAsking({ linePrefix, lineSuffix, prefix, suffix }: Moment, fillInTheMiddle: boolean): boolean {
  if (word.test(linePrefix.at(-1) ?? '') && word.test(lineSuffix[0] ?? '')) return false;
  if (!fillInTheMiddle && !closersOnly.test(lineSuffix)) return false;
  return prefix.trim() !== '' || suffix.trim() !== '';
}

// Parts of other files that resemble the lines at the cursor, in lists that change as little as possible.

export interface Snippet {
  path: string;
  text: string;
}

const windowLines = 20;
/** Below this, two parts share only the language's keywords. */
const leastLikeness = 0.2;

/** The part of each file that is most like `around`, the best file first, at most `count`. */
export function similarStretches(around: string, files: readonly Snippet[], count: number): Snippet[] {
  const wanted = wordsOf(around);
  const best = files.map(({ path, text }) => ({ path, ...bestWindow(wanted, text.split('\n')) }));
  return best
    .filter(({ likeness }) => likeness >= leastLikeness)
    .sort((a, b) => b.likeness - a.likeness)
    .slice(0, count)
    .map(({ path, text }) => ({ path, text }));
}

function bestWindow(
  wanted: ReadonlySet<string>,
  lines: readonly string[],
  count = windowLines,
): { likeness: number; text: string } {
  let best = { likeness: 0, text: '' };
  for (let start = 0; start < lines.length; start += Math.floor(count / 2)) {
    const text = lines.slice(start, start + count).join('\n');
    const likeness = jaccard(wanted, wordsOf(text));
    if (likeness > best.likeness) best = { likeness, text };
  }
  return best;
}

const wordsOf = (text: string): Set<string> => new Set(text.match(/[\p{L}\p{N}_$]{2,}/gu) ?? []);

/** Jaccard index (1912): size of the intersection over size of the union. */
function jaccard(a: ReadonlySet<string>, b: ReadonlySet<string>): number {
  let shared = 0;
  for (const word of a) if (b.has(word)) shared += 1;
  return shared / Math.max(1, a.size + b.size - shared);
}

/** As many snippets as fit; of the first that does not, the lines most like `around` that fit. */
export function fitting(snippets: readonly Snippet[], around: string, maxChars: number): Snippet[] {
  const wanted = wordsOf(around);
  let room = maxChars;
  return snippets.flatMap(({ path, text }) => {
    const cut = cutTo(room, text, wanted);
    if (cut === undefined) return [];
    room -= cut.length;
    return [{ path, text: cut }];
  });
}

/** Line counts to try. Fewer lines seldom hold a whole statement. */
const cutLines = [windowLines, 14, 10, 7, 5];

function cutTo(room: number, text: string, wanted: ReadonlySet<string>): string | undefined {
  if (text.length <= room) return text;
  const lines = text.split('\n');
  for (const count of cutLines.filter((own) => own < lines.length)) {
    // If no window shares a word, the beginning shows best what the file is.
    const best = bestWindow(wanted, lines, count).text || lines.slice(0, count).join('\n');
    if (best.length <= room) return best;
  }
  return undefined;
}

/**
 * The parts of the open file that the prompt lacks: the text below the cursor (fill-in-the-middle models get a few lines of it,
 * others none) and the text far above. Both start on a grid counted from the file's end, so that typing at the cursor moves neither.
 */
export function farParts(document: Lines, line: number): string[] {
  const { nearLines, visitedLines } = limits.completion;
  const grid = windowLines / 2;
  const onGrid = (at: number): number => document.lineCount - Math.floor((document.lineCount - at) / grid) * grid;
  const belowStart = onGrid(line + nearLines.below);
  const below = linesOf(document, belowStart, belowStart + visitedLines);
  const above = linesOf(document, anchoredStart(line), line - nearLines.above);
  return [below, above].filter((lines) => lines.length > 0).map((lines) => lines.join('\n'));
}

/**
 * The new list in the old order: kept snippets keep their place and new ones come last, so that the prompt's beginning stays
 * the same and the prefix cache matches.
 */
export function keepOrder(before: readonly Snippet[], now: readonly Snippet[]): Snippet[] {
  const same = (a: Snippet) => (b: Snippet) => a.path === b.path && a.text === b.text;
  const kept = before.filter((old) => now.some(same(old)));
  return [...kept, ...now.filter((own) => !kept.some(same(own)))];
}

/**
 * The snippets of each file's prompt. They stay the same while the user types, because the engine prefills everything after a
 * changed snippet again. After a pause they change to those of the cursor's new place, once the engine has prefilled these.
 */
export class SnippetLists {
  /** By document, most recent last. */
  readonly #lists = new Map<string, readonly Snippet[]>();

  of(document: string): readonly Snippet[] | undefined {
    return this.#lists.get(document);
  }

  keep(document: string, snippets: readonly Snippet[]): void {
    this.#lists.delete(document);
    this.#lists.set(document, snippets);
    const [oldest] = this.#lists.keys();
    if (oldest !== undefined && this.#lists.size > limits.completion.visitedFiles) this.#lists.delete(oldest);
  }
}
