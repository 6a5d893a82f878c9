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
  const versions = isVersion(lines, added) ? [] : versionsOf(lines, added, surroundings.symbols);
  if (versions.length > 0) return withVersions(lines, versions).join(eol);
  const range = replaced(lines, added, surroundings);
  const at = range?.start ?? Math.min(surroundings.cursorLine, lines.length);
  const removed = range === undefined ? 0 : range.end - range.start + 1;
  const indented = reindented(added, range === undefined ? '' : indentOf(lines.slice(range.start, range.end + 1)));
  return lines.toSpliced(at, removed, ...indented).join(eol);
}

/** A definition of the code, and the lines in whose place it stands; an empty range is before its start. */
interface Version {
  readonly code: readonly string[];
  readonly start: number;
  readonly removed: number;
}

/**
 * Of several definitions, where each of them goes: in the place of its own symbol, or behind the one that the code has
 * before it. Empty: they are fewer than two, or stand in each other's way, or the file has none of them.
 */
function versionsOf(
  lines: readonly string[],
  code: readonly string[],
  symbols: readonly NamedRange[],
): readonly Version[] {
  const parts = definitionsOf(code);
  const ranges = parts.map((part) => sameSymbol(lines, part, symbols));
  const first = ranges.find((range) => range !== undefined);
  if (parts.length < 2 || first === undefined) return [];
  let end = first.start;
  const versions = parts.map((part, index): Version => {
    const range = ranges[index];
    if (range === undefined)
      return { code: end === first.start ? [...part, ''] : ['', ...part], start: end, removed: 0 };
    end = range.end + 1;
    return { code: part, start: range.start, removed: end - range.start };
  });
  const ordered = versions.toSorted((a, b) => a.start - b.start);
  const apart = ordered.every(({ start, removed }, i) => start + removed <= (ordered[i + 1]?.start ?? lines.length));
  return apart ? ordered : [];
}

function withVersions(lines: readonly string[], versions: readonly Version[]): string[] {
  return versions.reduceRight(
    (text, { code, start, removed }) => {
      const indented = reindented(code, indentOf(lines.slice(start, start + removed)));
      return text.toSpliced(start, removed, ...indented);
    },
    [...lines],
  );
}

/** The code cut before each definition at its left edge; what stands directly above one belongs to it. */
function definitionsOf(code: readonly string[]): string[][] {
  const left = indentOf(code);
  const heads = code.flatMap((line, index) =>
    indentOf([line]) === left && definedName(line) !== undefined ? [index] : [],
  );
  const starts = heads.map((head, index) => {
    if (index === 0) return 0;
    const ends = (line: string): boolean =>
      line.trim() === '' || indentOf([line]) !== left || /^\s*(?:[)\]}]|end\b)/.test(line);
    const above = code.slice(0, head).findLastIndex(ends);
    return Math.max(above + 1, (heads[index - 1] ?? 0) + 1);
  });
  return starts.map((start, index) => withoutBlankEnds(code.slice(start, starts[index + 1])));
}

function withoutBlankEnds(lines: readonly string[]): string[] {
  const isFilled = (line: string): boolean => line.trim() !== '';
  return lines.slice(Math.max(0, lines.findIndex(isFilled)), lines.findLastIndex(isFilled) + 1);
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
  if (definedNames(code.join('\n')).length > 1 && isVersion(lines, code)) return wholeOf(lines);
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

const modifiers =
  /^(?:(?:export|default|async|public|private|protected|internal|static|final|abstract|override|readonly|declare|inline|unsafe|pub(?:\([\w ]+\))?)\s+)+/;
const definition =
  /^(?:(?:def|class|function\*?|fn|func(?:\s*\([^)]*\))?|fun|interface|type|enum|struct|trait|impl|module|object|record|namespace|const|let|var)\s+)([A-Za-z_$][\w$]*)/;

/** The name that a line defines, by the words of common languages. */
function definedName(line: string): string | undefined {
  return definition.exec(line.trim().replace(modifiers, ''))?.[1];
}

/** Names that the code defines at its own left edge. */
export function definedNames(code: string): string[] {
  const lines = code.split(/\r?\n/);
  return lines.filter((line) => indentOf([line]) === indentOf(lines)).flatMap((line) => definedName(line) ?? []);
}

/**
 * The symbol that the code defines first. Comments, decorators and imports may stand before it; modifiers may differ.
 * Nested symbols are nearer than what holds them.
 */
function sameSymbol(
  lines: readonly string[],
  code: readonly string[],
  symbols: readonly NamedRange[],
): LineRange | undefined {
  const head = headOf(code);
  const bare = (line: string) => line.trim().replace(modifiers, '');
  const named = symbols.filter(({ name, start, end: last }) => {
    // Language extensions count decorators and comments as part of a symbol.
    const own =
      lines
        .slice(start, last + 1)
        .map(bare)
        .find((line) => line.includes(name)) ?? '';
    const end = own.indexOf(name) + name.length;
    return own !== '' && bare(head).startsWith(own.slice(0, end)) && !/[\w$]/.test(bare(head).charAt(end));
  });
  const nearest = named.sort((a, b) => a.end - a.start - (b.end - b.start))[0];
  return nearest ?? indentedBody(lines, definedName(head));
}

/** The first line that defines something, else the first that is not empty. */
function headOf(code: readonly string[]): string {
  const left = indentOf(code);
  const head = code.find((line) => indentOf([line]) === left && definedName(line) !== undefined);
  return head ?? filled(code)[0] ?? '';
}

/** Where nobody knows the file's symbols: the only line that defines the name, and what is indented below it. */
function indentedBody(lines: readonly string[], name: string | undefined): LineRange | undefined {
  const starts = lines.flatMap((line, index) => (name !== undefined && definedName(line) === name ? [index] : []));
  const [start] = starts;
  if (start === undefined || starts.length > 1) return undefined;
  const width = indentOf([lines[start] ?? '']).length;
  let end = start;
  for (let at = start + 1; at < lines.length; at += 1) {
    const line = lines[at] ?? '';
    if (line.trim() === '') continue;
    const closes = indentOf([line]).length === width && /^\s*(?:[)\]}{]|end\b)/.test(line);
    if (indentOf([line]).length <= width && !closes) break;
    end = at;
    // A bracket that opens nothing again is the end, as is `end`.
    if (closes && /^\s*(?:[)\]}]+[;,)]*|end)\s*$/.test(line)) break;
  }
  return { start, end };
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

/** Of the first line that is not blank. */
export const indentOf = (lines: readonly string[]): string =>
  /^\s*/.exec(lines.find((line) => line.trim() !== '') ?? '')?.[0] ?? '';

/** Models write code without base indentation, so adds the indentation of the target. */
function reindented(code: readonly string[], indent: string): string[] {
  const own = indentOf(code);
  if (own !== '' || indent === '') return [...code];
  return code.map((line) => (line.trim() === '' ? line : `${indent}${line}`));
}
