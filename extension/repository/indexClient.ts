/** The indexer's process. Loaded when the index is first needed, with the protocol's schemas. */
import * as vscode from 'vscode';
import type { CancellationToken } from 'vscode-jsonrpc/node';
import {
  type IndexRequests,
  type IndexState,
  indexNotices,
  indexRequests,
  type OpenParams,
} from '../../engine/protocol/indexProtocol.ts';
import type { Client } from '../../engine/protocol/rpc.ts';
import { type Launch, sparing } from '../client/connection.ts';
import { EngineProcess, type ProcessState } from '../client/process.ts';
import type { Log } from '../parts.ts';

/** The indexer process and the requests to it. Each start of the process opens the index again. */
export class IndexClient {
  readonly #process: EngineProcess;
  readonly requests: Client<IndexRequests, CancellationToken>;
  readonly #states = new vscode.EventEmitter<IndexState>();
  readonly onIndexState = this.#states.event;
  readonly onProcessState: vscode.Event<ProcessState>;

  /** `options` is called at each start. */
  constructor(launch: () => Launch, log: Log, options: () => OpenParams) {
    this.#process = new EngineProcess(() => sparing(launch()), log, {
      name: 'The indexer',
      greet: async (clientOf) => this.#states.fire(await clientOf(indexRequests).open(options())),
    });
    this.requests = this.#process.client(indexRequests);
    this.onProcessState = this.#process.onState;
    this.#process.listen(indexNotices, { changed: (state) => this.#states.fire(state) });
  }

  get isRunning(): boolean {
    return this.#process.state.kind === 'running';
  }

  /** It runs, or will soon. */
  get isStarted(): boolean {
    const { kind } = this.#process.state;
    return kind !== 'stopped' && kind !== 'failed';
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  async rebuild(): Promise<void> {
    this.#states.fire(await this.requests.rebuild());
  }

  async start(): Promise<void> {
    await this.#process.start();
  }

  restart(): Promise<void> {
    return this.#process.restart();
  }

  stop(): Promise<void> {
    return this.#process.stop();
  }

  dispose(): void {
    this.#process.dispose();
    this.#states.dispose();
  }
}
