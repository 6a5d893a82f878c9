/** The other end of the channel, for tests and scripts: starts an engine process and talks to it. */
import { type ChildProcess, fork } from 'node:child_process';
import {
  CancellationTokenSource,
  createMessageConnection,
  IPCMessageReader,
  IPCMessageWriter,
  type MessageConnection,
  type NotificationType,
  type RequestType,
  type RequestType0,
  ResponseError,
} from 'vscode-jsonrpc/node';
import type { z } from 'zod';
import { type ErrorCode, errorCodes, HearthError } from '../errors.ts';
import { engineNodeOptions, errorData } from '../protocol/engineProtocol.ts';

type ErrorData = z.infer<typeof errorData>;

export interface EngineProcess {
  readonly child: ChildProcess;
  readonly connection: MessageConnection;
  request<Params, Result>(
    type: RequestType<Params, Result, ErrorData>,
    params: Params,
    signal?: AbortSignal,
  ): Promise<Result>;
  request0<Result>(type: RequestType0<Result, ErrorData>): Promise<Result>;
  on<Params>(type: NotificationType<Params>, handle: (params: Params) => void): void;
  /** Closes the channel, upon which the engine ends by itself. */
  stop(): Promise<void>;
}

export function startEngine(
  entry: string,
  options: { readonly env?: NodeJS.ProcessEnv; readonly stderr?: 'inherit' | 'ignore' } = {},
): EngineProcess {
  const child = fork(entry, [], {
    execArgv: engineNodeOptions,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'ignore', options.stderr ?? 'inherit', 'ipc'],
  });
  const connection = createMessageConnection(new IPCMessageReader(child), new IPCMessageWriter(child));
  connection.listen();
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  return {
    child,
    connection,
    request: (type, params, signal) => sendCancellable(connection, type.method, params, signal, exited),
    request0: (type) => untilExit(connection.sendRequest(type), exited),
    on: (type, handle) => void connection.onNotification(type, handle),
    async stop() {
      if (child.connected) child.disconnect();
      await exited;
      connection.dispose();
    },
  };
}

async function sendCancellable<Result>(
  connection: MessageConnection,
  method: string,
  params: unknown,
  signal: AbortSignal | undefined,
  exited: Promise<void>,
): Promise<Result> {
  const source = new CancellationTokenSource();
  const cancel = (): void => source.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    return await untilExit(connection.sendRequest<Result>(method, params, source.token), exited);
  } finally {
    signal?.removeEventListener('abort', cancel);
    source.dispose();
  }
}

async function untilExit<Result>(answer: Promise<Result>, exited: Promise<void>): Promise<Result> {
  const gone = exited.then((): never => {
    throw new HearthError('unavailable', 'The engine process ended before it answered.');
  });
  try {
    return await Promise.race([answer, gone]);
  } catch (error) {
    throw error instanceof ResponseError ? errorFromResponse(error) : error;
  }
}

/** The typed error that the engine threw. */
function errorFromResponse(response: ResponseError<unknown>): Error {
  const data = errorData.safeParse(response.data);
  const code = data.success ? data.data.code : undefined;
  if (isErrorCode(code)) return new HearthError(code, response.message);
  return new Error(response.message);
}

const isErrorCode = (code: string | undefined): code is ErrorCode => errorCodes.some((known) => known === code);
