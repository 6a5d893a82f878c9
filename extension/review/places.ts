/** Where a line of a diff is in a document, and where it goes when that is edited. Pure; lines count from 0. */
import type * as vscode from 'vscode';
import type { DiffLine } from './diff.ts';

/** A line with its neighbours, as the diff has them. */
export interface Anchor {
  readonly before: readonly string[];
  readonly text: string;
  readonly after: readonly string[];
  /** Its line in the diff's new file. */
  readonly line: number;
}

const neighbours = 3;

/** A removed line is not in the document: the line that follows it there stands for it, or else the one before. */
export function anchorOf(line: DiffLine, lines: readonly DiffLine[]): Anchor | undefined {
  const current = lines.filter(({ kind }) => kind !== 'removed');
  const found = current.findIndex((own) => own === line || (line.kind === 'removed' && own.line >= line.line));
  const at = found < 0 ? current.length - 1 : found;
  const own = current[at];
  if (own === undefined) return undefined;
  // Other hunks of a part are elsewhere.
  const textsOf = (from: number, to: number): string[] =>
    current.flatMap((each, i) =>
      i >= from && i < to && Math.abs(each.line - own.line) === Math.abs(i - at) ? [each.text] : [],
    );
  return {
    before: textsOf(at - neighbours, at),
    text: own.text,
    after: textsOf(at + 1, at + 1 + neighbours),
    line: own.line - 1,
  };
}

/** The line with the same text and most of the same neighbours, the nearest of several; undefined if it is gone. */
export function locate(anchor: Anchor, lines: readonly string[], near = anchor.line): number | undefined {
  const found = lines.flatMap((text, at) =>
    text === anchor.text ? [{ at, score: agreement(anchor, lines, at) }] : [],
  );
  const [best] = found.sort((a, b) => b.score - a.score || Math.abs(a.at - near) - Math.abs(b.at - near));
  // Other lines have the same text by chance.
  const alone = found.length === 1 && /\w{3}/.test(anchor.text);
  return best !== undefined && (best.score > 0 || alone) ? best.at : undefined;
}

function agreement({ before, after }: Anchor, lines: readonly string[], at: number): number {
  const above = before.filter((text, i) => lines[at - before.length + i] === text);
  const below = after.filter((text, i) => lines[at + 1 + i] === text);
  return above.length + below.length;
}

type Change = Pick<vscode.TextDocumentContentChangeEvent, 'range' | 'text'>;

/** Where a line is after an edit of its document; undefined if the edit took it. */
export function moved(line: number, { range: { start, end }, text }: Change): number | undefined {
  const added = text.split('\n').length - 1;
  const isAbove = end.line < line || (end.line === line && end.character === 0);
  if (isAbove) return line + added - (end.line - start.line);
  if (start.line > line) return line;
  const isTaken = (start.line < line || start.character === 0) && end.line > line;
  if (isTaken) return undefined;
  return start.line === line ? line : start.line + added;
}
