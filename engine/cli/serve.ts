import { once } from 'node:events';
import { servedName } from '../http/fields.ts';
import { newToken, startHttpServer, tokenInFile } from '../http/server.ts';
import type { DeltaStreams } from '../protocol/engineProtocol.ts';
import { Streams } from '../protocol/rpc.ts';
import type { Command } from './command.ts';
import { json, withEngine } from './session.ts';

/** Not a well-known port, so it is free on most machines. */
const defaultPort = 8642;

export const serve: Command = {
  name: 'serve',
  usage: '',
  summary: 'Serves an OpenAI-compatible API on loopback until interrupted.',
  options: [
    { name: 'port', value: 'N', help: `port; 0 chooses a free one (${defaultPort})` },
    {
      name: 'token-file',
      value: 'FILE',
      help: 'store the token in this file, readable only by its owner (default: a new token, printed once)',
    },
  ],
  async run(values, terminal) {
    values.none();
    const port = values.number('port', { least: 0, integer: true }) ?? defaultPort;
    const file = values.text('token-file');
    const token = file === undefined ? newToken() : await tokenInFile(file);
    const streams: DeltaStreams = new Streams();
    await withEngine(
      values,
      terminal,
      (delta) => streams.receiver(delta.stream)?.(delta),
      async ({ engine, card }) => {
        const log = (line: string): void => terminal.err(`${line}\n`);
        const server = await startHttpServer({ engine, streams, port, token, log });
        try {
          const address = `${server.address}/v1`;
          const model = servedName(card);
          const known = file === undefined ? { token } : { tokenFile: file };
          if (values.switch('json')) json(terminal, { address, model, ...known });
          else terminal.out(`Serving ${model} at ${address}; ${Object.entries(known).flat().join(': ')}\n`);
          if (!terminal.signal.aborted) await once(terminal.signal, 'abort');
        } finally {
          await server.close();
        }
      },
    );
  },
};
