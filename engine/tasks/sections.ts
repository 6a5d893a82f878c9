/** Cuts a file that is longer than the context into sections, at boundaries of its structure. */
import type { SummariseParams } from '../protocol/engineProtocol.ts';

export type SymbolRange = NonNullable<SummariseParams['symbols']>[number];

export interface Section {
  /** One-based, end inclusive. Parts of one long line share its number. */
  readonly startLine: number;
  readonly endLine: number;
  /** Symbols that begin in it. */
  readonly names: readonly string[];
  readonly text: string;
}

interface Piece {
  readonly line: number;
  readonly text: string;
  readonly tokens: number;
}

/**
 * Consecutive sections that together are the whole text, each of at most `maxTokens` as `countTokens` counts its lines.
 * A cut falls before a symbol if it can, else before an unindented line after an empty one, after any empty line, or
 * wherever the indentation is least; never in the first half of what fits.
 */
export function sectionsOf(
  text: string,
  symbols: readonly SymbolRange[],
  countTokens: (text: string) => number,
  maxTokens: number,
): Section[] {
  const pieces = piecesOf(text, countTokens, maxTokens);
  const symbolStarts = new Set(symbols.map(({ startLine }) => startLine));
  const sections: Section[] = [];
  let start = 0;
  while (start < pieces.length) {
    const end = bestCut(pieces, symbolStarts, start, maxTokens);
    sections.push(sectionOf(pieces.slice(start, end), symbols));
    start = end;
  }
  return sections;
}

/** Lines with their line breaks; a line too long for a section in several pieces. */
function piecesOf(text: string, countTokens: (text: string) => number, maxTokens: number): Piece[] {
  const lines = text.split('\n');
  return lines.flatMap((content, line) => {
    const whole = line < lines.length - 1 ? `${content}\n` : content;
    return halvedUntilFits(whole, countTokens, maxTokens).map((piece) => ({ line, ...piece }));
  });
}

interface Counted {
  readonly text: string;
  readonly tokens: number;
}

function halvedUntilFits(text: string, countTokens: (text: string) => number, maxTokens: number): Counted[] {
  // Avoids counting the tokens of a megabyte: no vocabulary has 64 characters a token.
  const tokens = text.length > maxTokens * 64 ? Number.POSITIVE_INFINITY : countTokens(text);
  if (tokens <= maxTokens || text.length < 2) return [{ text, tokens }];
  let middle = text.length >> 1;
  // Doesn't split a surrogate pair.
  if (isHighSurrogate(text.charCodeAt(middle - 1))) middle++;
  if (middle >= text.length) return [{ text, tokens }];
  const halves = [text.slice(0, middle), text.slice(middle)];
  return halves.flatMap((half) => halvedUntilFits(half, countTokens, maxTokens));
}

const isHighSurrogate = (code: number): boolean => code >= 0xd800 && code < 0xdc00;

/** The end of the section that begins at `start`: the best cut in the second half of the text that fits. */
function bestCut(
  pieces: readonly Piece[],
  symbolStarts: ReadonlySet<number>,
  start: number,
  maxTokens: number,
): number {
  let tokens = pieces[start]?.tokens ?? 0;
  let best = start + 1;
  let bestRank = Number.NEGATIVE_INFINITY;
  for (let end = start + 1; end < pieces.length; end++) {
    if (2 * tokens < maxTokens) best = end;
    else {
      const rank = jointRank(pieces, symbolStarts, end);
      if (rank >= bestRank) [best, bestRank] = [end, rank];
    }
    tokens += pieces[end]?.tokens ?? 0;
    if (tokens > maxTokens) return best;
  }
  return pieces.length;
}

/** How good a cut before piece `at` is. */
function jointRank(pieces: readonly Piece[], symbolStarts: ReadonlySet<number>, at: number): number {
  const piece = pieces[at];
  const previous = pieces[at - 1];
  if (!piece || !previous) return Number.NEGATIVE_INFINITY;
  if (piece.line === previous.line) return -1000;
  if (symbolStarts.has(piece.line)) return 1000;
  if (piece.text.trim() === '') return -500;
  const indentation = piece.text.length - piece.text.trimStart().length;
  return (previous.text.trim() === '' ? 100 : 0) - Math.min(indentation, 99);
}

function sectionOf(pieces: readonly Piece[], symbols: readonly SymbolRange[]): Section {
  const startLine = pieces[0]?.line ?? 0;
  const endLine = pieces.at(-1)?.line ?? 0;
  const names = symbols.filter((symbol) => symbol.startLine >= startLine && symbol.startLine <= endLine);
  return {
    startLine: startLine + 1,
    endLine: endLine + 1,
    names: names.map(({ name }) => name),
    text: pieces.map(({ text }) => text).join(''),
  };
}
