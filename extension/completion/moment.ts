import { importsIn } from '../../engine/index/question/imports.ts';
import { limits } from '../limits.ts';

/** Everything about the place of the cursor that decides whether to ask, and what. */
export interface Moment {
  languageId: string;
  /** Text before and after the cursor, cut to what the engine gets. */
  prefix: string;
  suffix: string;
  /** The cursor's line, before and after the cursor. */
  linePrefix: string;
  lineSuffix: string;
}

/** The part of vscode.TextDocument that is needed. */
interface Document {
  readonly languageId: string;
  readonly lineCount: number;
  lineAt(line: number): { readonly text: string };
}

/**
 * `inserted`: text that stands in for what is between its start and the cursor, when the suggestion widget has an item
 * selected. The suggestion then continues that item.
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

/** No character of two halves is cut into them. */
const cutEnd = (text: string): string => text.slice(0, limits.completion.suffixChars).replace(/[\uD800-\uDBFF]$/, '');

function linesOf(document: Document, start: number, end: number): string[] {
  const lines: string[] = [];
  for (let line = start; line < Math.min(end, document.lineCount); line++) lines.push(document.lineAt(line).text);
  return lines;
}

const closersOnly = /^[\s)\]}>"'`;,:]*$/;
const word = /[\p{L}\p{N}_$]/u;

/**
 * Whether it could be worth asking the engine, which looks closer. Not in the middle of a word, not before more text on the
 * line unless the model can fill a gap, and not in an empty file.
 */
export function worthAsking({ linePrefix, lineSuffix, prefix, suffix }: Moment, fillInTheMiddle: boolean): boolean {
  if (word.test(linePrefix.at(-1) ?? '') && word.test(lineSuffix[0] ?? '')) return false;
  if (!fillInTheMiddle && !closersOnly.test(lineSuffix)) return false;
  return prefix.trim() !== '' || suffix.trim() !== '';
}
