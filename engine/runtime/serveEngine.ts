/** The engine's end of the channel: dispatches the requests of `engineProtocol.ts`. */

import { appendFileSync, writeFileSync } from 'node:fs';
import type { MessageConnection } from 'vscode-jsonrpc/node';
import * as z from 'zod';
import {
  type EngineRequests,
  engineNotices,
  engineRequests,
  type ServerAddress,
  type startServerParams,
} from '../protocol/engineProtocol.ts';
import { type Implementation, listen, serve } from '../protocol/rpc.ts';
import type { Switchboard } from './switchboard.ts';

/** The OpenAI-compatible server on loopback. */
export interface OwnServer {
  readonly start: (params: z.output<typeof startServerParams>) => Promise<ServerAddress>;
  readonly stop: () => Promise<void>;
}

/** Serves `board` on a connection that doesn't listen yet. */
export function serveEngine(
  connection: MessageConnection,
  board: Switchboard,
  server: OwnServer,
  log: (line: string) => void,
): void {
  const answers = implementation(board, server);
  const record = process.env['HEARTH_RECORD'];
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
    warm: (params, signal) => board.warm(params, signal),
    chat: (params, signal) => board.answerer.chat(params, signal),
    generate: (params, signal) => engine.generate(params, signal),
    summarise: (params, signal) => board.answerer.summarise(params, signal),
    countTokens: (params, signal) => board.answerer.countTokens(params, signal),
    listModels: () => models.list(),
    pullModel: ({ model }, signal) => models.pull(model, signal),
    verifyModel: ({ model }, signal) => models.verify(model, signal),
    removeModel: ({ model }) => models.remove(model),
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

/** Wraps an implementation to write each request to `path` before it runs. Replaces an existing file. */
function recording(implementation: Implementation<EngineRequests>, path: string): Implementation<EngineRequests> {
  writeFileSync(path, '', { mode: 0o600 });
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
