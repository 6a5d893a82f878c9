/**
 * Keeps a completion from breaking the file's syntax, by comparing the syntax trees with and without it. Brackets that it
 * opens and doesn't finish are closed; if that doesn't help, its end is cut off.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { checkedAt, type ErrorsWith } from '../index/syntax/check.ts';
import type { Shaped } from './completionShape.ts';

export interface Place {
  readonly prefix: string;
  readonly suffix: string;
  readonly path?: string | undefined;
}

/** Each candidate is parsed, which takes about a millisecond. */
const maxCandidates = 12;

/**
 * @param isCutOff the model was stopped before its end.
 * @returns the longest prefix with which the file has the fewest errors; empty if the file parses without the completion
 * but with no prefix of it.
 */
export async function withoutBreaking(shaped: Shaped, place: Place, isCutOff: boolean): Promise<string> {
  const { path, prefix } = place;
  if (path === undefined || shaped.text === '') return shaped.text;
  const candidates = candidatesOf(shaped, prefix, isCutOff);
  const best = await checkedAt({ ...place, path }, (errorsWith) => fewestErrors(candidates, errorsWith));
  return best ?? shaped.text;
}

async function fewestErrors(candidates: readonly string[], errorsWith: ErrorsWith): Promise<string> {
  const before = errorsWith('');
  let best = candidates[0] ?? '';
  let fewest = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    // Lets other requests run between two parses.
    await nextTurn();
    const errors = errorsWith(candidate);
    if (errors < fewest) [best, fewest] = [candidate, errors];
    if (errors === 0) break;
  }
  // The code around the cursor is unfinished, so the parser can't tell better than the model.
  return before === 0 && fewest > 0 ? '' : best;
}

function candidatesOf({ text, uncut }: Shaped, prefix: string, isCutOff: boolean): string[] {
  const whole = uncut === undefined ? [text] : [text, uncut, ...between(text, uncut)];
  const lines = text.split('\n');
  const shorter = lines.slice(1).map((_, i) =>
    lines
      .slice(0, lines.length - 1 - i)
      .join('\n')
      .trimEnd(),
  );
  // A second statement behind a finished one begins at a word.
  const atMarks = [...(lines.at(-1) ?? '').matchAll(/[)\]};,]+\s*$|[)\]}]|\s+(?=\S)/g)].reverse();
  const inLine = atMarks.map(({ index }) => text.slice(0, text.length - (lines.at(-1) ?? '').length + index).trimEnd());
  const all = isCutOff
    ? [...whole, ...whole.map((own) => closed(own, prefix)), ...shorter.flatMap((own) => [own, closed(own, prefix)])]
    : [...whole, ...inLine.slice(0, 6), ...shorter, ...whole.map((own) => closed(own, prefix))];
  return [...new Set(all)].filter((own) => own.trim() !== '').slice(0, maxCandidates);
}

/** Texts from the shorter to the longer one that end with a bracket: some of those that were cut off may be missing. */
function between(shorter: string, longer: string): string[] {
  if (!longer.startsWith(shorter)) return [];
  const marks = [...longer.slice(shorter.length).matchAll(/[)\]}]/g)].slice(0, 3);
  return marks.map(({ index }) => longer.slice(0, shorter.length + index + 1));
}

const closers: Readonly<Record<string, string>> = { '(': ')', '[': ']', '{': '}' };

/** With the brackets that it opened closed: on the same line, or each block on a line of its own as deep as it began. */
function closed(text: string, prefix: string): string {
  const open: { readonly bracket: string; readonly indentation: string }[] = [];
  let line = prefix.slice(prefix.lastIndexOf('\n') + 1);
  let indentation = indentationOf(line);
  for (const char of text) {
    if (char === '\n') {
      line = '';
      indentation = '';
      continue;
    }
    line += char;
    indentation = indentationOf(line);
    if (char in closers) open.push({ bracket: char, indentation });
    else if (char === closers[open.at(-1)?.bracket ?? '']) open.pop();
  }
  return open.reverse().reduce((whole, own) => {
    const closer = closers[own.bracket] ?? '';
    return own.bracket === '{' && text.includes('\n') ? `${whole}\n${own.indentation}${closer}` : whole + closer;
  }, text);
}

const indentationOf = (line: string): string => /^[ \t]*/.exec(line)?.[0] ?? '';
