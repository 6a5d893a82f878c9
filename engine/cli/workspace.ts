/** What goes with a question about a folder: what its index finds, chosen as the extension does. */
import { citing, contextBudget, plan, quote, type Reader, repositorySources } from '../index/question/planner.ts';
import type { Repository } from '../index/repository/repository.ts';

export interface WorkspaceContext {
  /** Placed before the question in the prompt. */
  readonly text: string;
  /** Files that `text` quotes. */
  readonly files: readonly string[];
  /** Tells the user what was included. */
  readonly note: string;
}

const mapLabel = 'Repository map';

export async function workspaceContext(
  repository: Repository,
  question: string,
  reader: Reader & { countTokens(texts: string[]): number[] | Promise<number[]> },
): Promise<WorkspaceContext> {
  await repository.embeddingsOpened();
  const sources = await repositorySources(repository, { text: question, earlier: [], explicit: false, mapLabel });
  const counts = await reader.countTokens(sources.map(({ lines }) => lines.join('\n')));
  const candidates = sources.map((source, i) => ({ ...source, tokens: counts[i] ?? 0 }));
  const { chosen } = plan(candidates, contextBudget(reader, 0));
  const quoted = chosen.map(({ candidate, start, text }) => {
    const { path, languageId, firstLine, within } = candidate;
    return { path, languageId, text, firstLine: firstLine === 0 ? 0 : firstLine + start, whole: false, within };
  });
  const found = quoted.filter(({ firstLine }) => firstLine > 0);
  const places = found.map(
    ({ path, firstLine, text }) => `${path}:${firstLine}-${firstLine + text.split('\n').length - 1}`,
  );
  return {
    text: [...quoted.map(quote), ...(found.length > 0 ? [citing] : [])].join('\n\n'),
    files: [...new Set(found.map(({ path }) => path))],
    note:
      found.length === 0
        ? 'The search found nothing in this folder; the question is sent without context.'
        : `Included from ${repository.state.files} files: ${places.join(', ')}.`,
  };
}
