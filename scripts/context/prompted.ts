/** Finds which lines of a repository reach the model with a question: index and planner, combined as in the extension. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  contextBudget,
  estimatedTokens,
  isAboutOpenFile,
  plan,
  type Reader,
  repositorySources,
  type Source,
} from '../../engine/index/question/planner.ts';
import { Repository } from '../../engine/index/repository/repository.ts';

export interface Shown {
  readonly path: string;
  readonly firstLine: number;
  readonly lastLine: number;
}

export interface Prompted {
  /** Files, best first. */
  readonly find: (question: string, limit: number) => string[];
  /** `open`: the path of the file in the editor. */
  readonly shown: (question: string, reader: Reader, open: string | undefined) => Promise<Shown[]>;
  readonly close: () => Promise<void>;
}

export async function promptedOf(folder: string): Promise<Prompted> {
  const repository = await Repository.open({ database: ':memory:', folders: [{ name: '', directory: folder }] });
  repository.indexer.rescan();
  await repository.settled();
  let last: { readonly question: string; readonly found: readonly Source[] } | undefined;
  return {
    find: (question, limit) => [
      ...new Set(
        repository
          .search(question, 2 * limit)
          .map(({ path }) => path)
          .slice(0, 2 * limit),
      ),
    ],
    shown: async (question, reader, open) => {
      if (last?.question !== question) {
        const asked = { text: question, earlier: [], explicit: false, mapLabel: 'map' };
        last = { question, found: await repositorySources(repository, asked) };
      }
      const { found } = last;
      const sources = [...(open === undefined ? [] : [editorSource(folder, open)]), ...found];
      const candidates = sources.map((own) => ({ ...own, tokens: estimatedTokens(own.lines.join('\n')) }));
      const { chosen } = plan(candidates, contextBudget(reader, 0), isAboutOpenFile(question));
      return chosen.flatMap(({ candidate: { path, firstLine }, start, end }) =>
        firstLine === 0 ? [] : [{ path, firstLine: firstLine + start, lastLine: firstLine + end }],
      );
    },
    close: () => repository.close(),
  };
}

/** Like `focusSource` of the extension. */
function editorSource(folder: string, path: string): Source {
  const lines = readFileSync(join(folder, path), 'utf8').split(/\r?\n/);
  const about = { label: path, path, languageId: '', lines, firstLine: 1, fileLines: lines.length };
  return { id: 'open', tier: 'editor', ...about, centre: Math.min(20, lines.length - 1), divisible: true };
}
