import { once } from 'node:events';
import { servedName } from '../http/fields.ts';
import { newToken, startHttpServer, tokenInFile } from '../http/server.ts';
import { DeltaRoutes } from '../runtime/deltaRoutes.ts';
import type { Command } from './command.ts';
import { json, withEngine } from './session.ts';

/** Free on most machines: in no list of well-known ports. */
const defaultPort = 8642;

export const serve: Command = {
  name: 'serve',
  usage: '',
  summary: 'Answers OpenAI’s API on this machine (loopback alone) until it is interrupted.',
  options: [
    { name: 'port', value: 'N', help: `where to listen; 0: any free port (${defaultPort})` },
    {
      name: 'token-file',
      value: 'FILE',
      help: 'keep the token there, for its owner alone (a new token, printed once)',
    },
  ],
  async run(values, terminal) {
    values.none();
    const port = values.number('port', { least: 0, integer: true }) ?? defaultPort;
    const file = values.text('token-file');
    const token = file === undefined ? newToken() : await tokenInFile(file);
    const routes = new DeltaRoutes();
    await withEngine(
      values,
      terminal,
      (delta) => void routes.deliver(delta),
      async ({ engine, card }) => {
        const log = (line: string): void => terminal.err(`${line}\n`);
        const server = await startHttpServer({ engine, routes, port, token, log });
        try {
          const address = `${server.address}/v1`;
          const model = servedName(card);
          const known = file === undefined ? { token } : { tokenFile: file };
          if (values.switch('json')) json(terminal, { address, model, ...known });
          else terminal.out(`${model} answers at ${address}; ${Object.entries(known).flat().join(': ')}\n`);
          if (!terminal.signal.aborted) await once(terminal.signal, 'abort');
        } finally {
          await server.close();
        }
      },
    );
  },
};
