/** Finds where code from an answer belongs in a file. Pure. */

/** Lines from 0, end inclusive. */
export interface LineRange {
  start: number;
  end: number;
}

export interface NamedRange extends LineRange {
  name: string;
}

export interface Surroundings {
  /** The selection that the question was about, if any. */
  selection: LineRange | undefined;
  symbols: readonly NamedRange[];
  /** Where code goes that replaces nothing: before that line. */
  cursorLine: number;
}

/** The file with the code in it. */
export function place(file: string, code: string, surroundings: Surroundings): string {
  const eol = file.includes('\r\n') ? '\r\n' : '\n';
  const lines = file.split(/\r?\n/);
  const added = code.replace(/\r?\n$/, '').split(/\r?\n/);
  const range = replaced(lines, added, surroundings);
  const at = range?.start ?? Math.min(surroundings.cursorLine, lines.length);
  const removed = range === undefined ? 0 : range.end - range.start + 1;
  const indented = reindented(added, range === undefined ? '' : indentOf(lines.slice(range.start, range.end + 1)));
  return lines.toSpliced(at, removed, ...indented).join(eol);
}

/**
 * The lines that the code is a new version of: of the symbol that it defines, of the stretch between its first and last
 * line, of the whole file, of the selection; undefined where it is new.
 */
function replaced(
  lines: readonly string[],
  code: readonly string[],
  surroundings: Surroundings,
): LineRange | undefined {
  const { selection, symbols } = surroundings;
  return (
    sameSymbol(lines, code, symbols) ?? sameEnds(lines, code) ?? (isVersion(lines, code) ? wholeOf(lines) : selection)
  );
}

/** Without what follows the last line end. */
const wholeOf = (lines: readonly string[]): LineRange => ({
  start: 0,
  end: lines.length - (lines.length > 1 && lines.at(-1) === '' ? 2 : 1),
});
const filled = (lines: readonly string[]): string[] => lines.map((line) => line.trim()).filter((line) => line !== '');

/** A symbol whose first line, up to its name, is the first line of the code. Nested ones are nearer than what holds them. */
function sameSymbol(
  lines: readonly string[],
  code: readonly string[],
  symbols: readonly NamedRange[],
): LineRange | undefined {
  const head = filled(code)[0] ?? '';
  const named = symbols.filter(({ name, start }) => {
    const own = (lines[start] ?? '').trim();
    const end = own.indexOf(name) + name.length;
    return own.includes(name) && head.startsWith(own.slice(0, end)) && !/\w/.test(head.charAt(end));
  });
  return named.sort((a, b) => a.end - a.start - (b.end - b.start))[0];
}

/** First and last line of the code, each once in the file and in that order. */
function sameEnds(lines: readonly string[], code: readonly string[]): LineRange | undefined {
  const wanted = filled(code);
  if (wanted.length < 3) return undefined;
  const [first, last] = [wanted[0] ?? '', wanted.at(-1) ?? ''];
  const starts = lines.flatMap((line, index) => (line.trim() === first ? [index] : []));
  const start = starts[0];
  // A lone bracket does not identify a place.
  if (starts.length !== 1 || start === undefined || !/\w/.test(last)) return undefined;
  const end = lines.findIndex((line, index) => index > start && line.trim() === last);
  return end < 0 ? undefined : { start, end };
}

/** Half of the file's lines are in the code: it is the file, changed. */
function isVersion(lines: readonly string[], code: readonly string[]): boolean {
  const own = filled(lines);
  const known = new Set(filled(code));
  return own.length > 0 && own.filter((line) => known.has(line)).length >= own.length / 2;
}

const indentOf = (lines: readonly string[]): string =>
  /^\s*/.exec(lines.find((line) => line.trim() !== '') ?? '')?.[0] ?? '';

/** Models write code without base indentation, so adds the indentation of the target. */
function reindented(code: readonly string[], indent: string): string[] {
  const own = indentOf(code);
  if (own !== '' || indent === '') return [...code];
  return code.map((line) => (line.trim() === '' ? line : `${indent}${line}`));
}
