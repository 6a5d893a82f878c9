import { limits } from '../limits.ts';
import type { Multiline } from '../settings.ts';

/** Everything about the place of the cursor that decides whether to ask, what to ask and what of the answer to show. */
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
  const before = linesOf(document, anchoredStart(position.line), position.line);
  const after = linesOf(document, position.line + 1, position.line + 1 + limits.completion.suffixLines);
  return {
    languageId: document.languageId,
    prefix: cutFront([...before, linePrefix].join('\n')),
    suffix: [lineSuffix, ...after].join('\n').slice(0, limits.completion.suffixChars),
    linePrefix,
    lineSuffix,
  };
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
  return text.slice(Math.ceil(excess / step) * step);
}

function linesOf(document: Document, start: number, end: number): string[] {
  const lines: string[] = [];
  for (let line = start; line < Math.min(end, document.lineCount); line++) lines.push(document.lineAt(line).text);
  return lines;
}

const comment = /^\s*(\/\/|\/\*|\*|#(?!include|define|if|endif|pragma|region|!)|--|<!--|"""|;;|%)/;
const decoration = /^\s*(\/\/|\/\*|\*|#|--|;|<!--)*\s*[-=*#_~/]{3,}\s*$/;
const closersOnly = /^[\s)\]}>"'`;,:]*$/;
const word = /[\p{L}\p{N}_$]/u;

/**
 * Whether a suggestion could be useful here. Not: in the middle of a word; before more text on the line, unless the model
 * can fill a gap; in an empty file; on ruled lines; in a comment that nothing but comments precede; after blank lines.
 */
export function worthAsking(moment: Moment, fillInTheMiddle: boolean): boolean {
  const { linePrefix, lineSuffix, prefix, suffix } = moment;
  if (word.test(linePrefix.at(-1) ?? '') && word.test(lineSuffix[0] ?? '')) return false;
  if (!fillInTheMiddle && !closersOnly.test(lineSuffix)) return false;
  if (prefix.trim() === '' && suffix.trim() === '') return false;
  if (decoration.test(linePrefix) || /\*\/\s*$|-->\s*$/.test(linePrefix)) return false;
  if (comment.test(linePrefix) && onlyComments(prefix)) return false;
  return !/\n[ \t]*\n[ \t]*\n[ \t]*$/.test(prefix);
}

const onlyComments = (text: string): boolean =>
  text.split('\n').every((line) => line.trim() === '' || comment.test(line));

const blockLanguages = new Set(['python', 'yaml', 'ruby', 'lua', 'elixir', 'nim', 'gdscript', 'shellscript', 'julia']);

/** A line that opens a block: what follows belongs to it. */
export function opensBlock(line: string, languageId: string): boolean {
  const text = line.trimEnd();
  if (/[{([]$|=>$/.test(text)) return true;
  return blockLanguages.has(languageId) && /(:|\b(do|then|else|begin)|\|)$/.test(text);
}

/** Whether to ask for several lines: at the start of a body, after a comment that says what is to come, or always. */
export function wantsSeveralLines(moment: Moment, setting: Multiline): boolean {
  if (setting !== 'auto') return setting === 'always';
  if (!closersOnly.test(moment.lineSuffix)) return false;
  if (opensBlock(moment.linePrefix, moment.languageId)) return true;
  if (moment.linePrefix.trim() !== '') return false;
  const above = lastFilledLine(moment.prefix);
  return above !== undefined && (opensBlock(above, moment.languageId) || comment.test(above));
}

function lastFilledLine(prefix: string): string | undefined {
  return prefix
    .split('\n')
    .slice(0, -1)
    .findLast((line) => line.trim() !== '');
}
