/** A map of the repository: its most imported files with the names they define, within a budget of characters. */
import type { DatabaseSync } from 'node:sqlite';
import { type ImportGraph, importGraph } from './imports.ts';
import type { Names, SymbolPlace } from './names.ts';

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
  const paths = rankedPaths(database, importGraph(database), focus);
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

/** Focus, then the most imported, then the least deep. */
function rankedPaths(database: DatabaseSync, { importers }: ImportGraph, focus: readonly string[]): string[] {
  const first = new Set(focus);
  const rows = database
    .prepare("SELECT path FROM files WHERE skipped = ''")
    .all()
    .map((row) => String(row['path']));
  const ranked = rows.map((path) => ({
    path,
    focused: first.has(path) ? 1 : 0,
    importers: importers.get(path) ?? 0,
    depth: path.split('/').length,
  }));
  ranked.sort(
    (a, b) => b.focused - a.focused || b.importers - a.importers || a.depth - b.depth || (a.path < b.path ? -1 : 1),
  );
  return ranked.map(({ path }) => path);
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
