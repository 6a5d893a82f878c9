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
  /** Code that replaces nothing is inserted before this line. */
  cursorLine: number;
}

/** The file with the code inserted. */
export function place(file: string, code: string, surroundings: Surroundings): string {
  const eol = file.includes('\r\n') ? '\r\n' : '\n';
  const lines = file.split(/\r?\n/);
  const added = code.replace(/\r?\n$/, '').split(/\r?\n/);
  const definitions = new Definitions(lines, surroundings.symbols);
  const versions = isVersion(lines, added) ? [] : versionsOf(lines, added, definitions);
  if (versions.length > 0) return withVersions(lines, versions).join(eol);
  const range = replaced(lines, added, definitions, surroundings.selection);
  const at = range?.start ?? Math.min(surroundings.cursorLine, lines.length);
  const removed = range === undefined ? 0 : range.end - range.start + 1;
  const indented = reindented(added, range === undefined ? '' : indentOf(lines.slice(range.start, range.end + 1)));
  return lines.toSpliced(at, removed, ...indented).join(eol);
}

/** A definition in the code, and the lines that it replaces; an empty range inserts before its start. */
interface Version {
  readonly code: readonly string[];
  readonly start: number;
  readonly removed: number;
}

/**
 * Where each of several definitions goes: in place of its own symbol, or after the definition before it in the code.
 * Empty if there are fewer than two, they overlap, or the file has none of them.
 */
function versionsOf(lines: readonly string[], code: readonly string[], definitions: Definitions): readonly Version[] {
  const parts = definitionsOf(code);
  const ranges = parts.map((part) => definitions.sameSymbol(part));
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
  const pieces: (readonly string[])[] = [];
  let end = 0;
  for (const { code, start, removed } of versions) {
    const old = lines.slice(start, start + removed);
    pieces.push(lines.slice(end, start), reindented(code, indentOf(old)));
    end = start + removed;
  }
  return [...pieces, lines.slice(end)].flat();
}

/** The code split before each definition at its left edge; lines directly above a definition belong to it. */
function definitionsOf(code: readonly string[]): string[][] {
  const left = indentOf(code);
  const heads = code.flatMap((line, index) =>
    indentOf([line]) === left && definedName(line) !== undefined ? [index] : [],
  );
  const starts = heads.map((head, index) => {
    if (index === 0) return 0;
    const ends = (line: string): boolean =>
      line.trim() === '' || indentOf([line]) !== left || /^\s*(?:[)\]}]|end\b)/.test(line);
    const from = (heads[index - 1] ?? 0) + 1;
    return from + code.slice(from, head).findLastIndex(ends) + 1;
  });
  return starts.map((start, index) => withoutBlankEnds(code.slice(start, starts[index + 1])));
}

function withoutBlankEnds(lines: readonly string[]): string[] {
  const isFilled = (line: string): boolean => line.trim() !== '';
  return lines.slice(Math.max(0, lines.findIndex(isFilled)), lines.findLastIndex(isFilled) + 1);
}

/**
 * The lines that the code replaces: the symbol that it defines, the part between its first and last line, the whole file, or
 * the selection; undefined if the code is new.
 */
function replaced(
  lines: readonly string[],
  code: readonly string[],
  definitions: Definitions,
  selection: LineRange | undefined,
): LineRange | undefined {
  if (definedNames(code.join('\n')).length > 1 && isVersion(lines, code)) return wholeOf(lines);
  return definitions.sameSymbol(code) ?? sameEnds(lines, code) ?? (isVersion(lines, code) ? wholeOf(lines) : selection);
}

/** Without the empty line after the last line end. */
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

/** Without modifiers, which may differ. */
const bare = (line: string): string => line.trim().replace(modifiers, '');
/** A longer line counts as no definition. */
const headChars = 500;

/** The definitions of a file. Computed once, since an answer may have as many definitions as the file. */
class Definitions {
  readonly #lines: readonly string[];
  /** Symbols by the line that names them, up to the end of the name. */
  readonly #symbols = new Map<string, NamedRange[]>();
  /** Lines by the name that they define. */
  readonly #starts = new Map<string, number[]>();

  constructor(lines: readonly string[], symbols: readonly NamedRange[]) {
    this.#lines = lines;
    for (const symbol of symbols) {
      const { name, start, end } = symbol;
      // Language extensions count decorators and comments as part of a symbol.
      for (let at = start; at <= end && at < lines.length; at++) {
        const own = bare(lines[at] ?? '');
        const found = own.indexOf(name);
        if (found < 0) continue;
        add(this.#symbols, own.slice(0, found + name.length), symbol);
        break;
      }
    }
    for (const [index, line] of lines.entries()) {
      const name = definedName(line);
      if (name !== undefined) add(this.#starts, name, index);
    }
  }

  /**
   * The symbol that the code defines first. Comments, decorators and imports may precede it. Prefers nested symbols to those
   * that contain them.
   */
  sameSymbol(code: readonly string[]): LineRange | undefined {
    const head = headOf(code);
    const text = bare(head).slice(0, headChars);
    const named: NamedRange[] = [];
    for (let end = 1; end <= text.length; end++)
      if (!/[\w$]/.test(text.charAt(end))) named.push(...(this.#symbols.get(text.slice(0, end)) ?? []));
    const nearest = named.sort((a, b) => a.end - a.start - (b.end - b.start))[0];
    return nearest ?? indentedBody(this.#lines, this.#starts.get(definedName(head) ?? '') ?? []);
  }
}

function add<Value>(map: Map<string, Value[]>, key: string, value: Value): void {
  const values = map.get(key);
  if (values) values.push(value);
  else map.set(key, [value]);
}

/** The first line that defines something, otherwise the first that is not empty. */
function headOf(code: readonly string[]): string {
  const left = indentOf(code);
  const head = code.find((line) => indentOf([line]) === left && definedName(line) !== undefined);
  return head ?? filled(code)[0] ?? '';
}

/** If the file's symbols are unknown: the only line that defines the name, and the indented lines below it. */
function indentedBody(lines: readonly string[], starts: readonly number[]): LineRange | undefined {
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
    // A closing bracket that opens nothing is the end, as is `end`.
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

/** If the code has half of the file's lines, it is a new version of the file. */
function isVersion(lines: readonly string[], code: readonly string[]): boolean {
  const own = filled(lines);
  const known = new Set(filled(code));
  return own.length > 0 && own.filter((line) => known.has(line)).length >= own.length / 2;
}

/** Indentation of the first line that is not blank. */
export const indentOf = (lines: readonly string[]): string =>
  /^\s*/.exec(lines.find((line) => line.trim() !== '') ?? '')?.[0] ?? '';

/** Adds the target's indentation, because models write code without base indentation. */
function reindented(code: readonly string[], indent: string): string[] {
  const own = indentOf(code);
  if (own !== '' || indent === '') return [...code];
  return code.map((line) => (line.trim() === '' ? line : `${indent}${line}`));
}

// Patches: unified diffs, and blocks of SEARCH and REPLACE.

interface Replacement {
  readonly before: readonly string[];
  readonly after: readonly string[];
  /** The line given by the diff, from 0. It may be wrong: models count badly. */
  readonly line: number | undefined;
}

const diffHeader = /^(?:diff |index |--- |\+\+\+ |old mode|new mode|new file|deleted file|similarity|rename )/;

/** Whether a block with that fence is a patch and not the new text. */
export const isPatch = (code: string, language: string): boolean =>
  /^(?:diff|patch|udiff)$/.test(language) || /^diff --git |^--- .+\n\+\+\+ |^<{5,9} ?SEARCH\r?$/m.test(code);

/** The file with the patch applied; undefined if a part of it is not in the file, or more than once. */
export function patched(file: string, patch: string): string | undefined {
  const eol = file.includes('\r\n') ? '\r\n' : '\n';
  let lines = file === '' ? [] : file.split(/\r?\n/);
  let shift = 0;
  const parts = replacements(patch);
  for (const { before, after, line } of parts) {
    const at = before.length === 0 && lines.length === 0 ? 0 : foundAt(lines, before, line && line + shift);
    if (at === undefined) return undefined;
    lines = lines.toSpliced(at, before.length, ...after);
    shift += after.length - before.length;
  }
  return parts.length === 0 ? undefined : lines.join(eol);
}

function replacements(patch: string): Replacement[] {
  const lines = patch.replace(/\n$/, '').split(/\r?\n/);
  return lines.some((line) => searchMark.test(line)) ? searched(lines) : hunksOf(lines);
}

const searchMark = /^<{5,9} ?SEARCH$/;

function searched(lines: readonly string[]): Replacement[] {
  const found: Replacement[] = [];
  let [before, after]: [string[], string[]] = [[], []];
  let side: string[] | undefined;
  for (const line of lines) {
    if (searchMark.test(line)) {
      [before, after] = [[], []];
      side = before;
    } else if (side === before && /^={5,9}$/.test(line)) side = after;
    else if (side === after && /^>{5,9} ?REPLACE$/.test(line)) {
      found.push({ before, after, line: undefined });
      side = undefined;
    } else side?.push(line);
  }
  return found;
}

function hunksOf(lines: readonly string[]): Replacement[] {
  const parts: { before: string[]; after: string[]; line: number | undefined }[] = [];
  for (const text of lines) {
    const hunk = /^@@(?: -(\d+))?/.exec(text);
    if (hunk) parts.push({ before: [], after: [], line: hunk[1] === undefined ? undefined : Number(hunk[1]) - 1 });
    if (hunk || text.startsWith('\\') || (diffHeader.test(text) && isEmpty(parts.at(-1)))) continue;
    if (parts.length === 0) parts.push({ before: [], after: [], line: undefined });
    const [sign, rest] = [text.charAt(0), text.slice(1)];
    if (sign !== '+') parts.at(-1)?.before.push(sign === '-' || sign === ' ' ? rest : text);
    if (sign !== '-') parts.at(-1)?.after.push(sign === '+' || sign === ' ' ? rest : text);
  }
  return parts;
}

const isEmpty = (part: Replacement | undefined): boolean =>
  part === undefined || part.before.length + part.after.length === 0;

/** The only place of these lines, or the one nearest to `line` of several. Ignores trailing blanks. */
function foundAt(lines: readonly string[], wanted: readonly string[], line: number | undefined): number | undefined {
  const isAt = (start: number) => wanted.every((text, index) => lines[start + index]?.trimEnd() === text.trimEnd());
  const places = wanted.length === 0 ? [] : lines.flatMap((_, start) => (isAt(start) ? [start] : []));
  if (line === undefined) return places.length === 1 ? places[0] : undefined;
  return places.toSorted((a, b) => Math.abs(a - line) - Math.abs(b - line))[0];
}
