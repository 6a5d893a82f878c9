import { cancelled } from '../errors.ts';
import { generateParams } from '../protocol/engineProtocol.ts';
import type { Command } from './command.ts';
import { json, samplingOf, samplingOptions, stream, streaming, withEngine } from './session.ts';

export const generate: Command = {
  name: 'generate',
  usage: '--prompt TEXT',
  summary: 'Answers a prompt, or continues it with --raw.',
  options: [
    { name: 'prompt', value: 'TEXT', help: 'the prompt' },
    { name: 'raw', help: 'continue the text without the chat template; special tokens in it are parsed' },
    ...samplingOptions,
  ],
  async run(values, terminal) {
    values.none();
    const maxTokens = values.count('max-tokens');
    const params = generateParams.parse({
      stream,
      prompt: values.required('prompt'),
      raw: values.switch('raw'),
      sampling: samplingOf(values),
      ...(maxTokens !== undefined && { maxTokens }),
    });
    const machine = values.switch('json');
    await withEngine(values, terminal, machine ? undefined : streaming(terminal), async ({ engine, card }) => {
      const answer = await engine.generate(params, terminal.signal);
      if (answer.finish === 'cancelled') throw cancelled();
      if (machine) json(terminal, { model: card.id, backend: card.backend, ...answer });
      else terminal.out('\n');
    });
  },
};
