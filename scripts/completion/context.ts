/**
 * Builds the context that the extension would add: definitions of nearby names, similar chunks of visited files, and chunks
 * from the index. The index replaces VS Code's definition provider, and three files of the same folder replace visited files.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, extname, join } from 'node:path';
import type { Repository } from '../../engine/index/repository/repository.ts';
import { fitting, type Snippet, similarStretches } from '../../extension/completion/moment.ts';
import { limits } from '../../extension/limits.ts';
import type { HeldOut } from './heldOut.ts';

const visitedFiles = 3;

type Place = Pick<HeldOut, 'path' | 'line' | 'lines'>;

export const snippetsFor = (repository: Repository, folder: string, held: HeldOut, maxChars: number): Snippet[] =>
  fitting(foundSnippets(repository, folder, held), aroundOf(held), maxChars);

/** The likeliest to help first. */
export function foundSnippets(repository: Repository, folder: string, place: Place): Snippet[] {
  const { similarSnippets } = limits.completion;
  const { path } = place;
  const around = aroundOf(place);
  const passages = repository.search(around, similarSnippets + 1).filter((own) => own.path !== path);
  return [
    ...definitions(repository, folder, place),
    ...similarStretches(around, visited(folder, path), similarSnippets),
    ...passages.map(({ path, text }) => ({ path, text })),
  ];
}

export function aroundOf({ line, lines }: Place): string {
  const { aroundLines, belowLines } = limits.completion;
  return lines.slice(Math.max(0, line - aroundLines), line + 1 + belowLines).join('\n');
}

function definitions(repository: Repository, folder: string, { path, line, lines }: Place): Snippet[] {
  const near = lines.slice(Math.max(0, line - 1), line + 1).join('\n');
  const names = [...near.matchAll(/[\p{L}_$][\p{L}\p{N}_$]{2,}/gu)].map(([name]) => name);
  return names.slice(-limits.completion.definitions).flatMap((name) => {
    const [place, ...others] = repository.definitions(name, 2);
    // The index can't choose between several definitions, as an editor could.
    if (!place || others.length > 0 || place.path === path) return [];
    const last = Math.min(Math.max(place.lastLine, place.firstLine + 4), place.firstLine + 19);
    return [
      {
        path: place.path,
        text: linesOf(folder, place.path)
          .slice(place.firstLine - 1, last)
          .join('\n'),
      },
    ];
  });
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
