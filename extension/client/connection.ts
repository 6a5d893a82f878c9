import { type ChildProcess, fork } from 'node:child_process';
import { createInterface } from 'node:readline';
import {
  type CancellationToken,
  ConnectionError,
  createMessageConnection,
  ErrorCodes,
  IPCMessageReader,
  IPCMessageWriter,
  type MessageConnection,
  type MessageReader,
  type MessageWriter,
  ResponseError,
} from 'vscode-jsonrpc/node';
import type { z } from 'zod';
import { childMemoryVariables, childNodeOptions } from '../../engine/protocol/engineProtocol.ts';
import { failureOf, heartbeatVariable, listen, type Notices } from '../../engine/protocol/rpc.ts';
import { limits } from '../limits.ts';
import type { Log } from '../parts.ts';
import { EngineFailure, engineEnded, reportedFailure, sentence } from './failure.ts';

export interface Launch {
  /** Absolute path of the engine's bundle. */
  entry: string;
  /** Added to the extension host's environment. */
  env: Readonly<Record<string, string>>;
  nodeOptions?: readonly string[];
  /** Whether windows that would start the same engine share one (sharedEngine.ts), and how long it outlives the last of them. */
  shared?: { readonly graceMs: number };
}

/** Adds options and variables that keep the process's memory small. */
export const sparing = ({ env, ...rest }: Launch): Launch => ({
  ...rest,
  env: { ...childMemoryVariables, ...env },
  nodeOptions: childNodeOptions,
});

/** What carries a connection: the channel of a child process, or the sockets of a shared engine. */
export interface Wire {
  readonly pid: number | undefined;
  readonly reader: MessageReader;
  readonly writer: MessageWriter;
  /** Settles when the process has ended, or this window has left it, and all its messages have been delivered. */
  readonly ended: Promise<string>;
  /** The folder of a shared engine. */
  readonly folder?: string;
  /** Calls `beat` at every sign of life. */
  watch(beat: () => void): void;
  /** This window no longer needs the process. */
  leave(): void;
  kill(): void;
}

/** One life of the engine process and the typed channel to it. It is never reused after the process ended. */
export class EngineConnection {
  /** Settles when the process has ended and all its messages have been delivered. */
  readonly ended: Promise<string>;
  readonly #wire: Wire;
  readonly #rpc: MessageConnection;
  readonly #log: Log;
  readonly #pending = new Set<(error: EngineFailure) => void>();
  #over = false;
  #stopping = false;

  constructor(wire: Wire, log: Log) {
    this.#log = log;
    this.#wire = wire;
    this.#watchHeartbeat();
    this.#rpc = createMessageConnection(wire.reader, wire.writer, {
      error: (message) => log.error(message),
      warn: (message) => log.warn(message),
      info: (message) => log.info(message),
      log: (message) => log.debug(message),
    });
    this.#rpc.onError(([error]) => log.warn(`Channel to the engine: ${error.message}`));
    this.ended = this.#whenEnded();
    this.#rpc.listen();
  }

  get pid(): number | undefined {
    return this.#wire.pid;
  }

  /** The folder of a shared engine. */
  get folder(): string | undefined {
    return this.#wire.folder;
  }

  /** Calls `handlers` for valid notifications; others are logged and dropped. */
  listen<Table extends Notices>(
    table: Table,
    handlers: { readonly [Name in keyof Table]?: (value: z.output<Table[Name]>) => void },
  ): void {
    listen(this.#rpc, table, handlers, (line) => this.#log.warn(line));
  }

  /** One request; its result is not yet validated. @throws EngineFailure */
  request(method: string, params: unknown, token: CancellationToken | undefined): Promise<unknown> {
    return this.#raceEnd(this.#send(method, params, token));
  }

  /** Drops the notification if the process has ended. */
  notify(method: string, params: unknown): void {
    if (this.#over) return;
    this.#rpc.sendNotification(method, params).catch((error: unknown) => {
      this.#log.debug(`'${method}' did not reach the engine: ${sentence(error)}`);
    });
  }

  /** Leaves the process, which ends unless other windows share it. Kills it if it does not end by itself. */
  async stop(): Promise<void> {
    if (this.#over) return;
    this.#stopping = true;
    this.#wire.leave();
    const gone = await withTimeout(this.ended, limits.engine.stopMs);
    if (gone === undefined) this.kill();
  }

  /** Ends the process, even if other windows share it. */
  async end(): Promise<void> {
    this.#stopping = true;
    this.kill();
    await withTimeout(this.ended, limits.engine.stopMs);
  }

  kill(): void {
    this.#wire.kill();
  }

  #send(method: string, params: unknown, token: CancellationToken | undefined): Promise<unknown> {
    if (this.#over) return Promise.reject(this.#gone());
    const sent: Promise<unknown> =
      token === undefined ? this.#rpc.sendRequest(method, params) : this.#rpc.sendRequest(method, params, token);
    return sent.catch((error: unknown) => {
      const failure = toFailure(error);
      throw failure.code === 'engine-ended' ? this.#gone() : failure;
    });
  }

  /** Rejects as soon as the process has ended: the connection itself would leave the request pending for ever. */
  #raceEnd<T>(answer: Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#pending.add(reject);
      answer.then(resolve, reject).finally(() => this.#pending.delete(reject));
    });
  }

  async #whenEnded(): Promise<string> {
    const how = await this.#wire.ended;
    // The connection delivers one message per turn of the event loop.
    await new Promise((resolve) => setTimeout(resolve, 0));
    this.#over = true;
    for (const reject of [...this.#pending]) reject(this.#gone());
    this.#rpc.dispose();
    return how;
  }

  /** A requested stop rejects pending requests as cancelled. */
  #gone(): EngineFailure {
    return this.#stopping ? new EngineFailure('cancelled', 'The engine was stopped.') : engineEnded();
  }

  /** Kills a stopped process (SIGSTOP, a frozen container), so that it is replaced. Watches from the first heartbeat on. */
  #watchHeartbeat(): void {
    let silentLooks = 0;
    let timer: NodeJS.Timeout | undefined;
    const look = (): void => {
      if (++silentLooks < limits.engine.silentLooks) return;
      clearInterval(timer);
      this.#log.error(`Process ${this.pid} has stopped and is killed: it sent no heartbeat for ${silentLooks} s.`);
      this.kill();
    };
    this.#wire.watch(() => {
      silentLooks = 0;
      if (!this.#over) timer ??= setInterval(look, limits.engine.heartbeatLookMs);
    });
    void this.#wire.ended.then(() => clearInterval(timer));
  }
}

/** After stdin, stdout, stderr and the channel. */
const heartbeatFd = 4;

/** A child process of this window with an inherited channel. */
export function childWire(launch: Launch, log: Log): Wire {
  const child = fork(launch.entry, [], {
    // The extension host is Electron on the desktop and Node in a remote; both run a script as Node this way.
    execPath: process.execPath,
    execArgv: [...(launch.nodeOptions ?? [])],
    env: { ...process.env, ...launch.env, ELECTRON_RUN_AS_NODE: '1', [heartbeatVariable]: `${heartbeatFd}` },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc', 'pipe'],
    windowsHide: true,
  });
  for (const [stream, write] of [
    [child.stdout, (line: string) => log.info(line)],
    [child.stderr, (line: string) => log.warn(line)],
  ] as const) {
    if (stream === null) continue;
    createInterface({ input: stream }).on('line', (line) => write(line.slice(0, limits.engine.logLineChars)));
  }
  return {
    pid: child.pid,
    reader: new IPCMessageReader(child),
    writer: new IPCMessageWriter(child),
    ended: endOf(child),
    watch: (beat) => void child.stdio[heartbeatFd]?.on('data', beat),
    // The engine ends by itself when its channel closes.
    leave: () => void (child.connected && child.disconnect()),
    kill: () => void child.kill('SIGKILL'),
  };
}

async function endOf(child: ChildProcess): Promise<string> {
  const how = await new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(`could not run: ${error.message}`));
    child.once('exit', (code, signal) => resolve(signal ? `signal ${signal}` : `exit status ${code}`));
  });
  // Messages may still be in the channel when the process ends.
  if (child.connected) {
    await withTimeout(new Promise((resolve) => child.once('disconnect', resolve)), limits.engine.drainMs);
  }
  return how;
}

function toFailure(error: unknown): EngineFailure {
  if (error instanceof EngineFailure) return error;
  if (error instanceof ResponseError) {
    if (error.code === ErrorCodes.PendingResponseRejected) return engineEnded();
    const code = failureOf(error)?.code;
    if (code !== undefined) return reportedFailure(code, error.message, error);
    return new EngineFailure('internal', error.message, { cause: error });
  }
  // Thrown by the channel itself: closed, disposed, or the write failed because the process is going away.
  if (error instanceof ConnectionError || isChannelError(error)) return engineEnded();
  return new EngineFailure('internal', sentence(error), { cause: error });
}

function isChannelError(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'ERR_IPC_CHANNEL_CLOSED' || code === 'ERR_IPC_DISCONNECTED' || code === 'EPIPE';
}

/** The value, or undefined if it takes longer than `ms`. */
export async function withTimeout<T>(value: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), ms);
  });
  try {
    return await Promise.race([value, late]);
  } finally {
    clearTimeout(timer);
  }
}
