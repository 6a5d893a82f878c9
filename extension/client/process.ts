import * as vscode from 'vscode';
import type { CancellationToken } from 'vscode-jsonrpc/node';
import type { z } from 'zod';
import { engineRequests, protocolVersion } from '../../engine/protocol/engineProtocol.ts';
import { type Client, type Notices, proxy, type Requests } from '../../engine/protocol/rpc.ts';
import { limits } from '../limits.ts';
import type { Log } from '../parts.ts';
import { childWire, EngineConnection, type Launch, type Wire } from './connection.ts';
import { EngineFailure, engineEnded, engineGivenUp, sentence } from './failure.ts';
import { joinEngine, sharedFolder } from './sharedEngine.ts';

/** How long to wait before restarting the engine after a crash. Pure: the caller passes the time. */
export class Backoff {
  #crashes = 0;

  /**
   * Wait in milliseconds after a crash of a run that lasted `ranMs`; undefined: give up.
   */
  next(ranMs: number): number | undefined {
    if (ranMs >= limits.engine.healthyAfterMs) this.#crashes = 0;
    const delayMs = limits.engine.restartDelaysMs[this.#crashes];
    this.#crashes += 1;
    return delayMs;
  }

  reset(): void {
    this.#crashes = 0;
  }
}

export type ProcessState =
  | { kind: 'stopped' }
  | { kind: 'starting' }
  | { kind: 'running' }
  /** Crashed; restarts after the delay. */
  | { kind: 'waiting'; delayMs: number }
  /** Stays stopped until `restart` is called. */
  | { kind: 'failed'; message: string };

/** The requests of `table` to a process. */
type ClientOf = <Table extends Requests>(table: Table) => Client<Table, CancellationToken>;

/** The purpose of a process. */
interface ProcessRole {
  /** Name in the log. */
  name: string;
  /** The first request to it. A process of the wrong version, or one that cannot work here, is not restarted. */
  greet(clientOf: ClientOf): Promise<unknown>;
}

const engineRole: ProcessRole = { name: 'The engine', greet: checkVersion };

type Subscription = (connection: EngineConnection) => void;

/**
 * Keeps the engine, or another child process, alive: starts it on first use, restarts it after a crash with growing delays,
 * gives up after the last delay, and ends it with the extension.
 */
export class EngineProcess {
  readonly #launch: () => Launch;
  readonly #log: Log;
  readonly #role: ProcessRole;
  readonly #backoff = new Backoff();
  readonly #subscriptions: Subscription[] = [];
  readonly #changed = new vscode.EventEmitter<ProcessState>();
  readonly onState = this.#changed.event;
  #current: ProcessState = { kind: 'stopped' };
  /** The current process. Any other process was asked to end. */
  #live: EngineConnection | undefined;
  /** Resolves once `live`, or the one that a pending restart will start, answers. */
  #ready: Promise<EngineConnection> | undefined;
  #cancelWait: (() => void) | undefined;
  #startedAtMs = 0;
  /** Incremented by a stop, so that a start still under way notices it. */
  #attempts = 0;

  /** `launch` is called at every start, so that changed settings take effect with the next process. */
  constructor(launch: () => Launch, log: Log, role: ProcessRole = engineRole) {
    this.#launch = launch;
    this.#log = log;
    this.#role = role;
  }

  get state(): ProcessState {
    return this.#current;
  }

  get pid(): number | undefined {
    return this.#live?.pid;
  }

  /** Applies to the running process and to every later one. */
  listen<Table extends Notices>(
    table: Table,
    handlers: { readonly [Name in keyof Table]?: (value: z.output<Table[Name]>) => void },
  ): void {
    const subscribe: Subscription = (connection) => connection.listen(table, handlers);
    this.#subscriptions.push(subscribe);
    if (this.#live !== undefined) subscribe(this.#live);
  }

  /** A client for the requests of `table`. Each request starts the process if none runs. @throws EngineFailure */
  client<Table extends Requests>(table: Table): Client<Table, CancellationToken> {
    return this.#clientOf(table, () => this.start());
  }

  /** Notifies the running process, if there is one. */
  notify(method: string, params: unknown): void {
    this.#live?.notify(method, params);
  }

  /** The running process. Starts it if there is none, waits for a pending restart, fails after the last one. */
  start(): Promise<EngineConnection> {
    if (this.#current.kind === 'failed')
      return Promise.reject(new EngineFailure('engine-given-up', this.#current.message));
    this.#ready ??= this.#open();
    return this.#ready;
  }

  /** Forgets past crashes and starts a new process. Ends a shared process too, unless this window is to use another one. */
  async restart(): Promise<void> {
    const connection = this.#live;
    if (connection?.folder !== undefined && connection.folder === folderOf(this.#launch(), this.#log)) {
      this.#forget();
      await connection.end();
    }
    await this.stop();
    this.#backoff.reset();
    await this.start();
  }

  async stop(): Promise<void> {
    const connection = this.#live;
    this.#forget();
    this.#become({ kind: 'stopped' });
    await connection?.stop();
  }

  dispose(): void {
    void this.stop();
    this.#changed.dispose();
  }

  async #open(): Promise<EngineConnection> {
    this.#become({ kind: 'starting' });
    this.#startedAtMs = performance.now();
    const attempt = ++this.#attempts;
    const wire = await this.#connect(attempt);
    const connection = new EngineConnection(wire, this.#log);
    if (attempt !== this.#attempts) {
      void connection.stop();
      throw engineEnded();
    }
    this.#live = connection;
    for (const subscribe of this.#subscriptions) subscribe(connection);
    void connection.ended.then((how) => {
      if (this.#live === connection) this.#afterEnd(how);
    });
    try {
      await this.#handshake(connection);
    } catch (error) {
      if (error instanceof EngineFailure && (error.code === 'protocol' || error.code === 'unsupported')) {
        this.#fail(error.message);
      }
      connection.kill();
      throw error;
    }
    if (this.#live !== connection) throw engineEnded();
    this.#log.info(`${this.#role.name} runs as process ${connection.pid}.`);
    this.#become({ kind: 'running' });
    return connection;
  }

  async #connect(attempt: number): Promise<Wire> {
    const launch = this.#launch();
    const folder = folderOf(launch, this.#log);
    if (folder === undefined) return childWire(launch, this.#log);
    try {
      return await joinEngine(launch, folder, this.#log);
    } catch (error) {
      if (attempt === this.#attempts) this.#afterEnd(sentence(error));
      throw engineEnded();
    }
  }

  #clientOf<Table extends Requests>(
    table: Table,
    open: () => Promise<EngineConnection>,
  ): Client<Table, CancellationToken> {
    const send = async (method: string, params: unknown, token: CancellationToken | undefined): Promise<unknown> =>
      (await open()).request(method, params, token);
    return proxy(table, send, (method, problem) => {
      this.#log.error(`Invalid response to '${method}': ${problem}`);
      return new EngineFailure(
        'protocol',
        vscode.l10n.t('The engine sent a response that this version of Hearth does not understand.'),
      );
    });
  }

  async #handshake(connection: EngineConnection): Promise<void> {
    const timer = setTimeout(() => connection.kill(), limits.engine.handshakeMs);
    try {
      await this.#role.greet((table) => this.#clientOf(table, () => Promise.resolve(connection)));
    } finally {
      clearTimeout(timer);
    }
  }

  #afterEnd(how: string): void {
    this.#forget();
    this.#log.error(`${this.#role.name} ended (${how}).`);
    const delayMs = this.#backoff.next(performance.now() - this.#startedAtMs);
    if (delayMs === undefined) this.#fail(engineGivenUp().message);
    else this.#startAfter(delayMs);
  }

  #startAfter(delayMs: number): void {
    this.#log.info(`${this.#role.name} restarts in ${delayMs} ms.`);
    this.#ready = new Promise<void>((resolve, reject) => {
      const timer = setTimeout(resolve, delayMs);
      this.#cancelWait = () => {
        clearTimeout(timer);
        reject(engineEnded());
      };
    }).then(() => this.#open());
    // A process that fails to start ends, and `afterEnd` handles every end.
    this.#ready.catch((error: unknown) => this.#log.debug(`${this.#role.name} starts: ${sentence(error)}`));
    this.#become({ kind: 'waiting', delayMs });
  }

  #forget(): void {
    this.#attempts++;
    this.#cancelWait?.();
    this.#cancelWait = undefined;
    this.#live = undefined;
    this.#ready = undefined;
  }

  #fail(message: string): void {
    this.#forget();
    this.#become({ kind: 'failed', message });
  }

  #become(state: ProcessState): void {
    this.#current = state;
    this.#changed.fire(state);
  }
}

/** @throws EngineFailure `protocol` if engine and extension have different versions. */
async function checkVersion(clientOf: ClientOf): Promise<unknown> {
  const status = await clientOf(engineRequests).status();
  if (status.protocolVersion === protocolVersion) return status;
  throw new EngineFailure(
    'protocol',
    vscode.l10n.t('The engine and the extension have different versions. Reinstall Hearth.'),
  );
}

/** The folder of the shared engine; undefined: this window has its own engine. */
function folderOf(launch: Launch, log: Log): string | undefined {
  if (launch.shared === undefined) return undefined;
  try {
    return sharedFolder(launch);
  } catch (error) {
    log.warn(`This window has an engine of its own: ${sentence(error)}`);
    return undefined;
  }
}
