import { extname } from 'node:path';
import { summariseParams } from '../server/protocol.ts';
import type { Command } from './command.ts';
import { languageOf, readSource } from './files.ts';
import { json, stream, streaming, withEngine } from './session.ts';

export const summarise: Command = {
  name: 'summarise',
  usage: 'FILE',
  summary: 'Summarises a file, part by part if it is longer than the context.',
  options: [{ name: 'max-tokens', value: 'N', help: 'longest summary in tokens (512)' }],
  async run(values, terminal) {
    const path = values.only('FILE');
    const maxTokens = values.count('max-tokens');
    const params = summariseParams.parse({
      stream,
      path,
      text: await readSource(path),
      languageId: languageOf(extname(path)),
      ...(maxTokens !== undefined && { maxTokens }),
    });
    const machine = values.switch('json');
    await withEngine(values, terminal, machine ? undefined : streaming(terminal), async ({ engine, card }) => {
      const summary = await engine.summarise(params, terminal.signal);
      if (machine) json(terminal, { model: card.id, backend: card.backend, ...summary });
      else terminal.out('\n');
    });
  },
};
