import { cancelled } from '../errors.ts';
import { citing, contextBudget, plan, quote, type Reader, repositorySources } from '../index/question/planner.ts';
import type { Repository } from '../index/repository/repository.ts';
import { chatParams, thinkingMode } from '../protocol/engineProtocol.ts';
import type { Command } from './command.ts';
import { withIndex } from './indexFolder.ts';
import { json, remoteOption, samplingOf, samplingOptions, stream, streaming, withAnswerer } from './session.ts';

export const chat: Command = {
  name: 'chat',
  usage: 'QUESTION',
  summary: 'Answers a question, optionally about a folder.',
  options: [
    {
      name: 'workspace',
      value: 'DIR',
      help: 'search this folder for the question; add the results and a repository map to the prompt',
    },
    {
      name: 'think',
      value: 'MODE',
      help: `thinking mode, if the model supports it: ${thinkingMode.options.join(', ')} (off)`,
    },
    { name: 'thinking-tokens', value: 'N', help: 'end thinking after N tokens (no limit)' },
    remoteOption,
    ...samplingOptions,
  ],
  async run(values, terminal) {
    const question = values.only('The question');
    const thinking = values.oneOf('think', thinkingMode.options) ?? 'off';
    const thinkingTokens = values.number('thinking-tokens', { least: 0, integer: true });
    const maxTokens = values.count('max-tokens');
    const machine = values.switch('json');
    const directory = values.text('workspace');
    await withAnswerer(values, terminal, machine ? undefined : streaming(terminal), async ({ engine, card }) => {
      const countTokens = (texts: string[]) => engine.countTokens({ texts });
      const context =
        directory === undefined
          ? undefined
          : await withIndex({ directory, values, terminal }, (repository) =>
              workspaceContext(repository, question, { ...card, countTokens }),
            );
      if (context) terminal.err(`${context.note}\n`);
      if (thinking !== 'off' && !card.thinkingModes.includes(thinking)) {
        const known = card.thinkingModes.join(', ');
        terminal.err(`${card.name} does not support --think ${thinking}; using the nearest of ${known}.\n`);
      }
      const content = [context?.text ?? '', question].filter((part) => part !== '').join('\n\n');
      const params = chatParams.parse({
        stream,
        messages: [{ role: 'user', content }],
        thinking,
        sampling: samplingOf(values),
        ...(thinkingTokens !== undefined && { thinkingTokens }),
        ...(maxTokens !== undefined && { maxTokens }),
      });
      const answer = await engine.chat(params, terminal.signal);
      if (answer.finish === 'cancelled') throw cancelled();
      if (machine) json(terminal, { model: card.id, backend: card.backend, files: context?.files ?? [], ...answer });
      else terminal.out('\n');
    });
  },
};

// What goes with a question about a folder: what its index finds, chosen as the extension does.

interface WorkspaceContext {
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
