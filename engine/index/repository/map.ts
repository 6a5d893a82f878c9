/** Finds symbols by name: their definitions and references. */
import type { DatabaseSync, SQLOutputValue, StatementSync } from 'node:sqlite';
import { limits } from '../../limits.ts';
import { symbolKinds } from '../../protocol/indexProtocol.ts';
import { grammarOf } from '../syntax/grammars.ts';
import { type Definition, withTree } from '../syntax/source.ts';
import { importersOf } from './imports.ts';
import { Layout } from './layout.ts';
import type { PathClass } from './query.ts';
import { questionTerms, WordIndex, withoutAccents } from './wordIndex.ts';

export interface SymbolPlace extends Definition {
  readonly path: string;
}

export interface Reference {
  readonly path: string;
  /** From 1. */
  readonly line: number;
  /** From 0, in UTF-16 units. */
  readonly column: number;
  /** The line, without its indentation. */
  readonly text: string;
}

/** Reads a file of the index; undefined if it is gone. */
export type ReadText = (path: string) => string | undefined;

const columns = 'path, name, kind, container, symbols.first_line, symbols.last_line, name_line';

export class Names {
  readonly #named: StatementSync;
  readonly #beginning: StatementSync;
  readonly #among: StatementSync;
  readonly #ofFile: StatementSync;
  readonly #mentioning: StatementSync;
  readonly #read: ReadText;

  constructor(database: DatabaseSync, read: ReadText) {
    const from = `SELECT ${columns} FROM symbols JOIN files ON files.id = symbols.file`;
    this.#named = database.prepare(`${from} WHERE name = ? COLLATE NOCASE ORDER BY name = ? DESC, path LIMIT ?`);
    this.#beginning = database.prepare(
      `${from} WHERE name >= ? COLLATE NOCASE AND name < ? COLLATE NOCASE ORDER BY length(name), path LIMIT ?`,
    );
    this.#among = database.prepare(
      `WITH found AS (SELECT rowid AS chunk FROM terms WHERE terms MATCH ? ORDER BY rank LIMIT 200)
       SELECT DISTINCT ${columns} FROM found JOIN chunks ON chunks.id = found.chunk JOIN files ON files.id = chunks.file
       JOIN symbols ON symbols.file = chunks.file
         AND name_line BETWEEN chunks.first_line AND chunks.last_line`,
    );
    this.#ofFile = database.prepare(`${from} WHERE path = ? ORDER BY name_line`);
    this.#mentioning = database.prepare(
      `SELECT DISTINCT files.path AS path FROM terms JOIN chunks ON chunks.id = terms.rowid
       JOIN files ON files.id = chunks.file WHERE terms MATCH ? LIMIT ?`,
    );
    this.#read = read;
  }

  /** Definitions with exactly this name; the same case first. */
  definitions(name: string, limit: number): SymbolPlace[] {
    return this.#named.all(name, name, limit).map(placeOf);
  }

  outline(path: string): SymbolPlace[] {
    return this.#ofFile.all(path).map(placeOf);
  }

  /** For a quick pick: symbols with this name, this prefix, or these words. */
  symbols(text: string, limit: number): SymbolPlace[] {
    const typed = text.trim();
    if (typed === '') return [];
    const found = [
      ...this.definitions(typed, limit),
      ...this.#beginning.all(typed, `${typed}\u{10ffff}`, limit).map(placeOf),
      ...this.#ofWords(typed),
    ];
    const distinct = new Map(found.map((own) => [`${own.path}:${own.nameLine}:${own.name}`, own]));
    return [...distinct.values()].slice(0, limit);
  }

  /** Places where code uses the name, without its definitions. */
  async references(name: string, limit: number): Promise<Reference[]> {
    const term = name.toLowerCase();
    if (!/^[\p{L}\p{N}_$]+$/u.test(term)) return [];
    const defined = new Set(
      this.definitions(name, limits.repository.results).map((own) => `${own.path}:${own.nameLine}`),
    );
    const found: Reference[] = [];
    let parsed = 0;
    for (const row of this.#mentioning.all(`body : "${term}"`, limits.repository.results)) {
      const path = String(row['path']);
      const text = this.#read(path);
      if (text === undefined || !text.includes(name)) continue;
      const places = placesOf(text, name);
      const inCode = parsed++ < limits.repository.parsedForReferences ? await codeOnly(path, text, places) : places;
      for (const at of inCode) {
        const own = referenceAt(path, text, at);
        if (!defined.has(`${path}:${own.line}`)) found.push(own);
        if (found.length === limit) return found;
      }
    }
    return found;
  }

  /** Symbols whose names contain every word of the text; the closest names first. */
  #ofWords(typed: string): SymbolPlace[] {
    const terms = questionTerms(typed);
    if (terms.length === 0) return [];
    const match = terms.map((term) => `names : "${term}"`).join(' AND ');
    const matching = this.#among
      .all(match)
      .map(placeOf)
      .filter(({ name }) => {
        const lower = name.toLowerCase();
        const own = `${lower} ${withoutAccents(lower)}`;
        return terms.every((term) => own.includes(term));
      });
    return matching.sort((a, b) => a.name.length - b.name.length);
  }
}

function placeOf(row: Record<string, SQLOutputValue>): SymbolPlace {
  const kind = symbolKinds.find((known) => known === row['kind']) ?? 'variable';
  return {
    path: String(row['path']),
    name: String(row['name']),
    kind,
    container: String(row['container']),
    firstLine: Number(row['first_line']),
    lastLine: Number(row['last_line']),
    nameLine: Number(row['name_line']),
  };
}

/** Offsets of the whole word. */
function placesOf(text: string, name: string): number[] {
  const escaped = name.replaceAll('$', '\\$');
  return [...text.matchAll(new RegExp(`(?<![\\p{L}\\p{N}_$])${escaped}(?![\\p{L}\\p{N}_$])`, 'gu'))].map(
    ({ index }) => index,
  );
}

async function codeOnly(path: string, text: string, places: readonly number[]): Promise<readonly number[]> {
  const grammar = grammarOf(path);
  if (!grammar) return places;
  return withTree(grammar, text, (root) =>
    places.filter((at) => !/comment|string_(content|fragment)|^string$/.test(root.descendantForIndex(at)?.type ?? '')),
  );
}

function referenceAt(path: string, text: string, at: number): Reference {
  const start = text.lastIndexOf('\n', at - 1) + 1;
  const end = text.indexOf('\n', at);
  let line = 1;
  for (let i = text.indexOf('\n'); i >= 0 && i < at; i = text.indexOf('\n', i + 1)) line++;
  return { path, line, column: at - start, text: text.slice(start, end < 0 ? undefined : end).trim() };
}

// A map of the repository: its most referenced files with the names they define, within a budget of characters.

export interface MapRequest {
  readonly maxChars: number;
  /** Files to list first, such as those of a question. */
  readonly focus?: readonly string[] | undefined;
}

export interface RepositoryMap {
  readonly text: string;
  /** Files in the map, and all indexed files. */
  readonly files: number;
  readonly ofFiles: number;
}

/** Largest share of the map for one file, so that a file of constants does not fill it. */
const fileShare = 0.1;
const leastFileChars = 200;

export function repositoryMap(
  database: DatabaseSync,
  names: Names,
  { maxChars, focus = [] }: MapRequest,
): RepositoryMap {
  const paths = rankedPaths(database, importersOf(database), focus);
  const entries: { path: string; text: string }[] = [];
  let chars = 0;
  for (const path of paths) {
    const text = entryOf(path, names.outline(path), Math.max(leastFileChars, maxChars * fileShare));
    if (chars + text.length > maxChars) {
      if (chars > maxChars / 2) break;
      continue;
    }
    chars += text.length;
    entries.push({ path, text });
  }
  // Sorted by path, so that the map changes little between questions and the prompt's prefix stays cached.
  entries.sort((a, b) => (a.path < b.path ? -1 : 1));
  return { text: entries.map(({ text }) => text).join(''), files: entries.length, ofFiles: paths.length };
}

/** Sources by number of references, then tests and documents; without configuration and third-party code. */
function rankedPaths(
  database: DatabaseSync,
  importers: ReadonlyMap<string, number>,
  focus: readonly string[],
): string[] {
  const first = new Set(focus);
  const layout = new Layout(database);
  layout.refresh();
  const references = referencesTo(database);
  const rows = database.prepare("SELECT path FROM files WHERE skipped = ''").all();
  const ranked = rows.flatMap((row) => {
    const path = String(row['path']);
    const kind = layout.classOf(path);
    const focused = first.has(path);
    if (!focused && kind !== undefined && leftOut.has(kind)) return [];
    const weight = 2 * Math.log1p(importers.get(path) ?? 0) + Math.log1p(references.get(path) ?? 0);
    return [{ path, group: focused ? 0 : kind === undefined ? 1 : 2, weight, depth: path.split('/').length }];
  });
  ranked.sort((a, b) => a.group - b.group || b.weight - a.weight || a.depth - b.depth || (a.path < b.path ? -1 : 1));
  return ranked.map(({ path }) => path);
}

const leftOut: ReadonlySet<PathClass> = new Set<PathClass>(['built', 'data', 'changelog', 'vendored']);

/**
 * References by path: chunks that contain a name that the file defines, divided among all files that define the name.
 */
function referencesTo(database: DatabaseSync): Map<string, number> {
  const rows = database
    .prepare(
      "SELECT path, lower(name) AS name FROM symbols JOIN files ON files.id = symbols.file WHERE container = '' LIMIT ?",
    )
    .all(limits.repository.mapSymbols)
    .map((row) => ({ path: String(row['path']), name: String(row['name']) }));
  const defined = new Map<string, number>();
  for (const { name } of rows) defined.set(name, (defined.get(name) ?? 0) + 1);
  const chunks = new Map(new WordIndex(database).terms([...defined.keys()]).map((own) => [own.term, own.chunks]));
  const references = new Map<string, number>();
  for (const { path, name } of rows) {
    const own = Math.max(0, (chunks.get(name) ?? 0) - 1) / (defined.get(name) ?? 1);
    references.set(path, (references.get(path) ?? 0) + own);
  }
  return references;
}

/** The path, then one line for each top-level name, with its members. */
function entryOf(path: string, outline: readonly SymbolPlace[], maxChars: number): string {
  let text = `${path}\n`;
  for (const own of outline.filter(({ container }) => container === '')) {
    const members = outline.filter(({ container, kind }) => container === own.name && kind === 'method');
    const list = members.length > 0 ? `: ${members.map(({ name }) => name).join(', ')}` : '';
    const line = `  ${own.kind} ${own.name}${list}\n`;
    if (text.length + line.length > maxChars) return `${text}  …\n`;
    text += line;
  }
  return text;
}
