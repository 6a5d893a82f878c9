/** Symbols by name: where they are defined, and where they are mentioned. */
import type { DatabaseSync, SQLOutputValue, StatementSync } from 'node:sqlite';
import { limits } from '../../limits.ts';
import { symbolKinds } from '../../protocol/indexProtocol.ts';
import { grammarOf } from '../syntax/grammars.ts';
import { type Definition, withTree } from '../syntax/source.ts';
import { questionTerms, withoutAccents } from './terms.ts';

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

/** Reads a file of the index; undefined when it is gone. */
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

  /** Exactly so named, in this case first. */
  definitions(name: string, limit: number): SymbolPlace[] {
    return this.#named.all(name, name, limit).map(placeOf);
  }

  outline(path: string): SymbolPlace[] {
    return this.#ofFile.all(path).map(placeOf);
  }

  /** For a box that one types into: so named, so beginning, or of these words. */
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

  /** Where the name stands as code, its definitions left out. */
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

  /** Every word of the text is a part of the name; the closest names first. */
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
