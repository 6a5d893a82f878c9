import * as vscode from 'vscode';
import type { CancellationToken } from 'vscode-jsonrpc/node';
import * as z from 'zod';
import {
  type IndexState,
  indexMessages,
  indexState,
  type MapParams,
  type OpenParams,
  type Passage,
  passage,
  type Reference,
  type RepositoryMap,
  reference,
  repositoryMap,
  type SymbolPlace,
  symbolPlace,
} from '../../engine/protocol/indexProtocol.ts';
import type { Launch } from '../client/connection.ts';
import { EngineProcess, type ProcessState } from '../client/process.ts';
import type { Log } from '../log.ts';

/** The indexer process and the requests to it. It opens the index anew whenever it is started. */
export class IndexClient {
  private readonly process: EngineProcess;
  private readonly states = new vscode.EventEmitter<IndexState>();
  readonly onIndexState = this.states.event;
  readonly onProcessState: vscode.Event<ProcessState>;

  /** `options` is asked at each start. */
  constructor(launch: () => Launch, log: Log, options: () => OpenParams) {
    this.process = new EngineProcess(launch, log, {
      name: 'The indexer',
      greet: async (connection) => {
        this.states.fire(await connection.request(indexMessages.open, options(), indexState));
      },
    });
    this.onProcessState = this.process.onState;
    this.process.onNotification(indexMessages.changed, indexState, (state) => this.states.fire(state));
  }

  get isRunning(): boolean {
    return this.process.state.kind === 'running';
  }

  get pid(): number | undefined {
    return this.process.pid;
  }

  /** `meaning`: also by vectors, where there are some. */
  search(question: string, limit: number, meaning: boolean, token?: CancellationToken): Promise<Passage[]> {
    return this.process.request(indexMessages.search, { question, limit, meaning }, z.array(passage), token);
  }

  symbols(name: string, limit: number, token?: CancellationToken): Promise<SymbolPlace[]> {
    return this.process.request(indexMessages.symbols, { name, limit }, z.array(symbolPlace), token);
  }

  definitions(name: string, limit: number, token?: CancellationToken): Promise<SymbolPlace[]> {
    return this.process.request(indexMessages.definitions, { name, limit }, z.array(symbolPlace), token);
  }

  references(name: string, limit: number, token?: CancellationToken): Promise<Reference[]> {
    return this.process.request(indexMessages.references, { name, limit }, z.array(reference), token);
  }

  outline(path: string, token?: CancellationToken): Promise<SymbolPlace[]> {
    return this.process.request(indexMessages.outline, { path }, z.array(symbolPlace), token);
  }

  map(params: MapParams, token?: CancellationToken): Promise<RepositoryMap> {
    return this.process.request(indexMessages.map, params, repositoryMap, token);
  }

  async update(paths: string[]): Promise<void> {
    await this.process.request(indexMessages.update, { paths }, z.null());
  }

  async tell(what: 'rescan' | 'pause' | 'resume'): Promise<void> {
    await this.process.request(indexMessages[what], undefined, z.null());
  }

  async rebuild(): Promise<void> {
    this.states.fire(await this.process.request(indexMessages.rebuild, undefined, indexState));
  }

  async start(): Promise<void> {
    await this.process.start();
  }

  restart(): Promise<void> {
    return this.process.restart();
  }

  stop(): Promise<void> {
    return this.process.stop();
  }

  dispose(): void {
    this.process.dispose();
    this.states.dispose();
  }
}
