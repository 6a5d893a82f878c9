/** The engine's end of the channel: dispatches the requests of `engineProtocol.ts`. */
import type { MessageConnection } from 'vscode-jsonrpc/node';
import type { z } from 'zod';
import {
  type EngineRequests,
  engineNotices,
  engineRequests,
  type ServerAddress,
  type startServerParams,
} from '../protocol/engineProtocol.ts';
import { type Implementation, listen, serve } from '../protocol/rpc.ts';
import { recording } from './recorder.ts';
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
