/** The engine's end of the channel: dispatches the requests of `engineProtocol.ts`. */

import { appendFileSync, writeFileSync } from 'node:fs';
import type { MessageConnection } from 'vscode-jsonrpc/node';
import * as z from 'zod';
import { cancelled } from '../errors.ts';
import {
  type EngineRequests,
  type EngineStatus,
  engineNotices,
  engineRequests,
  type NextEditResult,
  type nextEditParams,
  type ServerAddress,
  type startServerParams,
  type WarmResult,
  type warmParams,
} from '../protocol/engineProtocol.ts';
import type {
  connectParams,
  loadParams,
  ModelCard,
  ModelRole,
  RemoteModel,
  RemoteServerParams,
  unloadParams,
} from '../protocol/models.ts';
import { modelRoles } from '../protocol/models.ts';
import { type Implementation, listen, serve } from '../protocol/rpc.ts';
import type { RemoteEngine, RemoteOptions } from './remote/remoteEngine.ts';
import type { Engine } from './service.ts';

// Sends a role's requests to its local model or its remote server, whichever was loaded or connected last. If nothing
// has the completion role, completions go where chats go.

export class Switchboard {
  readonly engine: Engine;
  readonly #options: RemoteOptions;
  readonly #remotes = new Map<ModelRole, RemoteEngine>();
  /** Numbers a role's loads and connections; the latest one wins. */
  readonly #turns = new Map<ModelRole, number>();

  constructor(engine: Engine, options: RemoteOptions) {
    this.engine = engine;
    this.#options = options;
  }

  async load(params: z.output<typeof loadParams>, signal?: AbortSignal): Promise<ModelCard> {
    this.#forgetRemote(params.role);
    return this.engine.load(params, signal);
  }

  /** Unloads the role's local model first. After a failed connection the role has none. */
  async connect(params: z.output<typeof connectParams>, signal?: AbortSignal): Promise<ModelCard> {
    const { role } = params;
    const turn = this.#forgetRemote(role);
    await this.engine.unload({ role });
    // Loaded on demand, because most users never connect.
    const { RemoteEngine } = await import('./remote/remoteEngine.ts');
    const remote = await RemoteEngine.connect(params, this.#options, signal);
    if (turn !== this.#turns.get(role)) throw cancelled('Another model was requested in the meantime.');
    this.#remotes.set(role, remote);
    return remote.card;
  }

  async unload(params: z.output<typeof unloadParams> = {}): Promise<void> {
    for (const role of params.role ? [params.role] : modelRoles) this.#forgetRemote(role);
    await this.engine.unload(params);
  }

  #forgetRemote(role: ModelRole): number {
    const turn = (this.#turns.get(role) ?? 0) + 1;
    this.#turns.set(role, turn);
    this.#remotes.delete(role);
    return turn;
  }

  async remoteModels(server: RemoteServerParams, signal?: AbortSignal): Promise<RemoteModel[]> {
    const { RemoteServer } = await import('./remote/server.ts');
    const models = await new RemoteServer(server).models(signal);
    return models.map(({ id, contextTokens }) => ({ id, ...(contextTokens !== undefined && { contextTokens }) }));
  }

  status(): EngineStatus {
    const status = this.engine.status();
    const chat = this.#remotes.get('chat');
    return chat === undefined ? status : { ...status, state: 'ready', model: chat.card };
  }

  /** A remote server manages its own cache, so there is no warm-up. */
  async warm(params: z.output<typeof warmParams>, signal?: AbortSignal): Promise<WarmResult> {
    const isRemote = params.kind === 'completion' ? this.completer !== this.engine : this.answerer !== this.engine;
    if (isRemote) return { promptTokens: 0, cachedTokens: 0, finish: 'stop' };
    return this.engine.warm(params, signal);
  }

  /**
   * Remote models are not asked: they should be sent no more than needed, and their predictions were never measured.
   */
  async nextEdit(params: z.output<typeof nextEditParams>, signal?: AbortSignal): Promise<NextEditResult> {
    return this.completer === this.engine ? this.engine.nextEdit(params, signal) : { finish: 'stop' };
  }

  /** The engine for requests that both can answer. */
  get answerer(): Pick<Engine, 'chat' | 'summarise' | 'countTokens'> {
    return this.#remotes.get('chat') ?? this.engine;
  }

  get completer(): Pick<Engine, 'complete'> {
    const own = this.engine.hasRole('completion') ? this.engine : undefined;
    return this.#remotes.get('completion') ?? own ?? this.#remotes.get('chat') ?? this.engine;
  }
}

/** The OpenAI-compatible server on loopback. */
export interface OwnServer {
  readonly start: (params: z.output<typeof startServerParams>) => Promise<ServerAddress>;
  readonly stop: () => Promise<void>;
}

/** Serves `board` on a connection that doesn't listen yet, and records its requests in the file `record`. */
export function serveEngine(
  connection: MessageConnection,
  board: Switchboard,
  server: OwnServer,
  log: (line: string) => void,
  record?: string,
): void {
  const answers = implementation(board, server);
  if (record) log(`Every request is recorded in ${record}.`);
  serve(connection, engineRequests, record ? recording(answers, record) : answers, log);
  listen(connection, engineNotices, { answerNow: (stream) => board.engine.answerNow(stream) }, log);
}

function implementation(board: Switchboard, server: OwnServer): Implementation<EngineRequests> {
  const { engine } = board;
  const { models } = engine;
  return {
    load: (params, signal) => board.load(params, signal),
    connect: (params, signal) => board.connect(params, signal),
    remoteModels: (params, signal) => board.remoteModels(params, signal),
    startServer: (params) => server.start(params),
    stopServer: () => server.stop().then(() => null),
    unload: (params) => board.unload(params).then(() => null),
    status: () => board.status(),
    complete: (params, signal) => board.completer.complete(params, signal),
    nextEdit: (params, signal) => board.nextEdit(params, signal),
    warm: (params, signal) => board.warm(params, signal),
    chat: (params, signal) => board.answerer.chat(params, signal),
    generate: (params, signal) => engine.generate(params, signal),
    summarise: (params, signal) => board.answerer.summarise(params, signal),
    countTokens: (params, signal) => board.answerer.countTokens(params, signal),
    listModels: () => models.list(),
    hubOffers: ({ repository, token }, signal) => models.offers(repository, { signal, token }),
    pullModel: ({ model, token }, signal) => models.pull(model, { signal, token }),
    verifyModel: ({ model }, signal) => models.verify(model, signal),
    removeModel: ({ model }) => engine.removeModel(model),
    inspectModels: (params) => models.inspect(params.models),
    clearCache: () => engine.clearCache(),
  };
}

// Records requests, one JSON line each, so that `hearth replay FILE` can send them again. Off unless `HEARTH_RECORD` names
// a file, which only its owner can read. Server tokens are never recorded.

/** The load request and the requests that a model answers, in the order of the table. */
const recordedMethods = ['load', 'complete', 'warm', 'chat', 'generate', 'summarise', 'countTokens'] as const;
type RecordedMethod = (typeof recordedMethods)[number];

export const recordedRequest = z.object({
  /** Milliseconds since 1970. */
  atMs: z.number(),
  method: z.enum(recordedMethods),
  /** Checked against the method's schema when the request is replayed. */
  params: z.unknown(),
});
export type RecordedRequest = z.infer<typeof recordedRequest>;

/** Replaces the file of an earlier recording. @returns where requests are recorded, if at all. */
export function startRecording(): string | undefined {
  const path = process.env['HEARTH_RECORD'];
  if (!path) return undefined;
  writeFileSync(path, '', { mode: 0o600 });
  return path;
}

/** Wraps an implementation to write each request to `path` before it runs. */
function recording(implementation: Implementation<EngineRequests>, path: string): Implementation<EngineRequests> {
  const record = (method: RecordedMethod, params: unknown): void =>
    appendFileSync(path, `${JSON.stringify({ atMs: Date.now(), method, params } satisfies RecordedRequest)}\n`);
  const recorded = <Name extends RecordedMethod>(name: Name): Implementation<EngineRequests>[Name] => {
    const answer: (params: never, signal: AbortSignal) => unknown = implementation[name];
    return ((params: never, signal: AbortSignal) => {
      record(name, params);
      return answer(params, signal);
    }) as Implementation<EngineRequests>[Name];
  };
  return {
    ...implementation,
    load: recorded('load'),
    complete: recorded('complete'),
    warm: recorded('warm'),
    chat: recorded('chat'),
    generate: recorded('generate'),
    summarise: recorded('summarise'),
    countTokens: recorded('countTokens'),
  };
}
