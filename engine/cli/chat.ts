import { cancelled } from '../errors.ts';
import { chatParams, thinkingMode } from '../protocol/engineProtocol.ts';
import type { Command } from './command.ts';
import { withIndex } from './indexFolder.ts';
import { json, remoteOption, samplingOf, samplingOptions, stream, streaming, withAnswerer } from './session.ts';
import { workspaceContext } from './workspace.ts';

export const chat: Command = {
  name: 'chat',
  usage: 'QUESTION',
  summary: 'Answers a question, about a folder if one is given.',
  options: [
    {
      name: 'workspace',
      value: 'DIR',
      help: 'include what a search of the folder finds for the question, and a map of it',
    },
    {
      name: 'think',
      value: 'MODE',
      help: `think first, as far as the model can: ${thinkingMode.options.join(', ')} (off)`,
    },
    { name: 'thinking-tokens', value: 'N', help: 'end thinking after so many tokens (as long as it takes)' },
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
        terminal.err(`${card.name} does not know --think ${thinking}; the nearest of ${known} is used.\n`);
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
