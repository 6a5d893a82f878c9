/** Runs an engine in the command's process: loads a model, prints its output, unloads it. */

import { once } from 'node:events';
import { defaultModelId } from '../catalogue/catalogue.ts';
import { HearthError } from '../errors.ts';
import { servedName } from '../http/fields.ts';
import { newToken, startHttpServer, tokenInFile } from '../http/server.ts';
import type { Delta, DeltaStreams, Progress } from '../protocol/engineProtocol.ts';
import { bySuitability, loadParams, type ModelCard, type ModelEntry } from '../protocol/models.ts';
import { Streams } from '../protocol/rpc.ts';
import { RemoteEngine } from '../runtime/remote/remoteEngine.ts';
import { Engine } from '../runtime/service.ts';
import { type Command, ProgressLine, type Terminal, type Values } from './command.ts';

/** Stream id of a command's only request. */
export const stream = 'cli';

interface Session {
  readonly engine: Engine;
  readonly card: ModelCard;
}

/** Prints the deltas of an answer. */
type Show = (delta: Delta) => void;

/** Loads the named or the default model, downloading it if needed, and unloads it after `run`. */
export async function withEngine<Result>(
  values: Values,
  terminal: Terminal,
  show: Show | undefined,
  run: (session: Session) => Promise<Result>,
): Promise<Result> {
  // Validates the options before a download starts.
  const settings = loadSettings(values);
  const progress = new ProgressLine(terminal);
  const engine = new Engine({
    onDelta: (delta) => {
      progress.end();
      show?.(delta);
    },
    onProgress: (step) => report(progress, step),
    onModelChange: ({ message }) => terminal.err(`\n${message}\n`),
  });
  try {
    const model = await chooseModel(engine, values, terminal);
    const card = await engine.load(loadParams.parse({ model, ...settings }), terminal.signal);
    progress.end();
    return await run({ engine, card });
  } finally {
    progress.end();
    await engine.unload();
  }
}

export function report(line: ProgressLine, { message, done, total, unit }: Progress): void {
  if (done >= total) line.end();
  else line.show(message, done, total, unit);
}

async function chooseModel(engine: Engine, values: Values, terminal: Terminal): Promise<string> {
  const named = values.text('model');
  if (named !== undefined) return named;
  const models = await engine.models.list();
  // Another program's models answer only if they are named.
  const best = bySuitability(models, 'chat').find(({ state, owner }) => state === 'present' && owner === undefined);
  if (best) return best.id;
  const fallback = models.find(({ id }) => id === defaultModelId);
  if (!fallback) throw new HearthError('not-found', 'No model found. Choose one with --model.');
  terminal.err(`No model on this machine yet. Downloading ${sizeOf(fallback)}.\n`);
  await engine.models.pull(fallback.id, { signal: terminal.signal });
  return fallback.id;
}

export const sizeOf = ({ name, downloadBytes }: ModelEntry): string =>
  `${name} (${downloadBytes >= 1e9 ? `${(downloadBytes / 1e9).toFixed(1)} GB` : `${Math.ceil(downloadBytes / 1e6)} MB`})`;

function loadSettings(values: Values) {
  const contextTokens = values.number('context', { least: 16, integer: true });
  const threads = values.count('threads');
  const cachePrecision = values.cachePrecision();
  return {
    backend: values.backend(),
    ...(contextTokens !== undefined && { contextTokens }),
    ...(threads !== undefined && { threads }),
    ...(cachePrecision !== undefined && { cachePrecision }),
  };
}

/** Options for sampling. */
export const samplingOptions = [
  { name: 'max-tokens', value: 'N', help: 'maximum answer length in tokens' },
  { name: 'temperature', value: 'T', help: 'sampling temperature; 0 is greedy (the model’s default)' },
  { name: 'seed', value: 'S', help: 'random seed; the same seed gives the same text' },
] as const;

export function samplingOf(values: Values): { temperature?: number; seed?: number } {
  const temperature = values.number('temperature', { least: 0, integer: false });
  const seed = values.number('seed', { least: Number.MIN_SAFE_INTEGER, integer: true });
  return { ...(temperature !== undefined && { temperature }), ...(seed !== undefined && { seed }) };
}

/** Streams an answer to stdout and its thinking to stderr, in grey on a terminal. */
export function streaming(terminal: Terminal): Show {
  const [grey, plain] = terminal.interactive ? ['\u001b[90m', '\u001b[39m'] : ['', ''];
  return ({ kind, text }) => {
    if (kind === 'thinking') terminal.err(`${grey}${text}${plain}`);
    else terminal.out(text);
  };
}

export const json = (terminal: Terminal, value: unknown): void => terminal.out(`${JSON.stringify(value, null, 2)}\n`);

// A command is answered by the local engine, or by the server of `--remote`.

interface Answerer {
  readonly engine: Pick<Engine, 'chat' | 'complete' | 'countTokens' | 'summarise'>;
  readonly card: ModelCard;
}

export const remoteOption = {
  name: 'remote',
  value: 'URL',
  help: 'use an OpenAI-compatible server (https://HOST/v1); set its token in $HEARTH_REMOTE_TOKEN',
} as const;

export async function withAnswerer(
  values: Values,
  terminal: Terminal,
  show: Show | undefined,
  run: (answerer: Answerer) => Promise<void>,
): Promise<void> {
  const url = values.text('remote');
  if (url === undefined) return withEngine(values, terminal, show, run);
  const progress = new ProgressLine(terminal);
  const options = {
    onDelta: (delta: Parameters<Show>[0]) => {
      progress.end();
      show?.(delta);
    },
    onProgress: (step: Parameters<typeof report>[1]) => report(progress, step),
  };
  const token = process.env['HEARTH_REMOTE_TOKEN'];
  const contextTokens = values.number('context', { least: 16, integer: true });
  const params = { url, token, model: values.text('model'), contextTokens };
  const engine = await RemoteEngine.connect(params, options, terminal.signal);
  try {
    await run({ engine, card: engine.card });
  } finally {
    progress.end();
  }
}

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
