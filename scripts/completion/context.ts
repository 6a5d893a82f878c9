/**
 * Builds the context that the extension would add: definitions of nearby names, similar stretches of the file itself, chunks
 * from the index, and similar stretches of visited files. The index replaces VS Code's definition provider, and three files of
 * the same folder replace visited files.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, extname, join } from 'node:path';
import type { SymbolPlace } from '../../engine/index/repository/map.ts';
import type { Repository } from '../../engine/index/repository/repository.ts';
import { farParts, fitting, namesNear, type Snippet, similarStretches } from '../../extension/completion/moment.ts';
import { limits } from '../../extension/limits.ts';
import { type HeldOut, namesIn } from './heldOut.ts';

const visitedFiles = 3;
/** Definitions per name, because the first of several is often the wrong one. */
const definitionsPerName = 2;

type Place = Pick<HeldOut, 'path' | 'line' | 'lines'>;

export const snippetsFor = (repository: Repository, folder: string, held: HeldOut, maxChars: number): Snippet[] =>
  fitting(foundSnippets(repository, folder, held), aroundOf(held), maxChars);

/** The definitions of names in the true rest of the line that the prompt's part of the file lacks. Real retrieval cannot know these. */
export function oracleSnippets(
  repository: Repository,
  folder: string,
  { path, line, lines, expected }: HeldOut,
): Snippet[] {
  const firstShown = Math.max(0, line - limits.completion.nearLines.above);
  const shown = new Set(namesIn(lines.slice(firstShown, line + 1).join('\n')));
  const needed = namesIn(expected).filter((name) => !shown.has(name));
  return needed.flatMap((name) => {
    const places = repository.definitions(name, 20).filter((own) => own.name === name);
    const unseen = places.filter((own) => own.path !== path || own.firstLine > line + 1 || own.lastLine < firstShown);
    return unseen.slice(0, definitionsPerName).map((own) => ({ path: own.path, text: headOf(folder, own) }));
  });
}

/** Snippets that the extension would find, most useful first. */
export function foundSnippets(repository: Repository, folder: string, place: Place): Snippet[] {
  const { indexHits, similarSnippets } = limits.completion;
  const { path, line } = place;
  const around = aroundOf(place);
  const passages = repository.search(around, indexHits).filter((own) => own.path !== path);
  const far = farParts(documentOf(place), line).map((text) => ({ path, text }));
  return [
    ...definitions(repository, folder, place),
    ...similarStretches(around, far, far.length),
    ...passages.slice(0, similarSnippets + 1).map(({ path, text }) => ({ path, text })),
    ...similarStretches(around, visited(folder, path), similarSnippets),
  ];
}

const documentOf = ({ lines }: Place) => ({
  lineCount: lines.length,
  lineAt: (at: number) => ({ text: lines[at] ?? '' }),
});

export function aroundOf({ line, lines }: Pick<Place, 'line' | 'lines'>): string {
  const { aroundLines, belowLines } = limits.completion;
  return lines.slice(Math.max(0, line - aroundLines), line + 1 + belowLines).join('\n');
}

function definitions(repository: Repository, folder: string, place: Place): Snippet[] {
  const found = namesNear(documentOf(place), place.line).flatMap(({ name }) => {
    const [only, ...others] = repository.definitions(name, 2);
    // The index can't choose between several definitions, as an editor could.
    if (!only || others.length > 0 || only.path === place.path) return [];
    return [{ path: only.path, text: headOf(folder, only) }];
  });
  return found.slice(0, limits.completion.definitions);
}

function headOf(folder: string, { path, firstLine, lastLine }: SymbolPlace): string {
  const last = Math.min(Math.max(lastLine, firstLine + 4), firstLine + limits.completion.definitionLines - 1);
  return linesOf(folder, path)
    .slice(firstLine - 1, last)
    .join('\n');
}

function visited(folder: string, path: string): Snippet[] {
  const directory = join(folder, dirname(path));
  const names = (existsSync(directory) ? readdirSync(directory) : []).filter((name) => extname(name) === extname(path));
  const others = names.map((name) => join(dirname(path), name)).filter((other) => other !== path);
  return others.slice(0, visitedFiles).map((other) => ({
    path: other,
    text: linesOf(folder, other).slice(0, limits.completion.visitedLines).join('\n'),
  }));
}

const linesOf = (folder: string, path: string): string[] => readFileSync(join(folder, path), 'utf8').split('\n');
