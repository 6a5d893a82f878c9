/** A map of the repository: its most referenced files with the names they define, within a budget of characters. */
import type { DatabaseSync } from 'node:sqlite';
import { limits } from '../../limits.ts';
import { importersOf } from './imports.ts';
import { Layout } from './layout.ts';
import type { Names, SymbolPlace } from './names.ts';
import type { PathClass } from './query.ts';
import { WordIndex } from './wordIndex.ts';

export interface MapRequest {
  readonly maxChars: number;
  /** Files to put first, say those of a question. */
  readonly focus?: readonly string[] | undefined;
}

export interface RepositoryMap {
  readonly text: string;
  /** Files in it, of all that are indexed. */
  readonly files: number;
  readonly ofFiles: number;
}

/** One file takes at most this share, so that a file of constants does not fill the map. */
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
  // By path, so that the map changes little from one question to the next and a prompt's beginning stays cached.
  entries.sort((a, b) => (a.path < b.path ? -1 : 1));
  return { text: entries.map(({ text }) => text).join(''), files: entries.length, ofFiles: paths.length };
}

/** Sources by how much refers to them, then tests and documents; without configuration and what came from elsewhere. */
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

const leftOut: ReadonlySet<PathClass> = new Set<PathClass>(['data', 'changelog', 'vendored']);

/** By path: chunks that hold the names it defines, each shared among the files that define it. */
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

/** The path, then its outer names a line each, members behind their container. */
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
