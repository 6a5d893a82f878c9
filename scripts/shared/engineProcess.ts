/** Starts an engine process and connects to it, for tests and scripts. */
import { type ChildProcess, fork } from 'node:child_process';
import {
  CancellationTokenSource,
  createMessageConnection,
  IPCMessageReader,
  IPCMessageWriter,
  type MessageConnection,
  ResponseError,
} from 'vscode-jsonrpc/node';
import type { z } from 'zod';
import { HearthError } from '../../engine/errors.ts';
import {
  childMemoryVariables,
  childNodeOptions,
  clientNotices,
  type EngineRequests,
  type engineNotices,
  engineRequests,
} from '../../engine/protocol/engineProtocol.ts';
import { type Client, failureOf, listen, notifier, proxy } from '../../engine/protocol/rpc.ts';

type Handlers = {
  readonly [Name in keyof typeof clientNotices]?: (value: z.output<(typeof clientNotices)[Name]>) => void;
};

export interface EngineProcess {
  readonly child: ChildProcess;
  readonly connection: MessageConnection;
  readonly requests: Client<EngineRequests, AbortSignal>;
  readonly notify: ReturnType<typeof notifier<typeof engineNotices>>;
  on(handlers: Handlers): void;
  /** Closes the channel; the engine then ends by itself. */
  stop(): Promise<void>;
}

export function startEngine(
  entry: string,
  options: { readonly env?: NodeJS.ProcessEnv; readonly stderr?: 'inherit' | 'ignore' } = {},
): EngineProcess {
  const child = fork(entry, [], {
    execArgv: childNodeOptions,
    env: { ...process.env, ...childMemoryVariables, ...options.env },
    stdio: ['ignore', 'ignore', options.stderr ?? 'inherit', 'ipc'],
  });
  const connection = createMessageConnection(new IPCMessageReader(child), new IPCMessageWriter(child));
  connection.listen();
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const refuse = (method: string, problem: string): Error => new Error(`Invalid answer to '${method}': ${problem}`);
  return {
    child,
    connection,
    requests: proxy(
      engineRequests,
      (method, params, signal?: AbortSignal) => send(connection, method, params, signal, exited),
      refuse,
    ),
    notify: notifier(connection, () => {}),
    on: (handlers) => listen(connection, clientNotices, handlers, (line) => console.error(line)),
    async stop() {
      if (child.connected) child.disconnect();
      await exited;
      connection.dispose();
    },
  };
}

async function send(
  connection: MessageConnection,
  method: string,
  params: unknown,
  signal: AbortSignal | undefined,
  exited: Promise<void>,
): Promise<unknown> {
  const source = new CancellationTokenSource();
  const cancel = (): void => source.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  const gone = exited.then((): never => {
    throw new HearthError('unavailable', 'The engine process ended before it answered.');
  });
  try {
    return await Promise.race([connection.sendRequest<unknown>(method, params, source.token), gone]);
  } catch (error) {
    throw error instanceof ResponseError ? (failureOf(error) ?? new Error(error.message)) : error;
  } finally {
    signal?.removeEventListener('abort', cancel);
    source.dispose();
  }
}
