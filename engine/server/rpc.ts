/** The engine's end of the channel: JSON-RPC requests to calls of the engine. */
import type { MessageConnection } from 'vscode-jsonrpc/node';
import { answering } from './answers.ts';
import type { LocalServer } from './localServer.ts';
import {
  chatParams,
  completeParams,
  connectParams,
  countTokensParams,
  generateParams,
  loadParams,
  messages,
  modelName,
  modelNames,
  remoteServerParams,
  startServerParams,
  streamName,
  summariseParams,
  warmParams,
} from './protocol.ts';
import type { Switchboard } from './switchboard.ts';

export interface Served {
  readonly board: Switchboard;
  readonly server: LocalServer;
}

/** Serves what `board` leads to on a connection that does not listen yet. */
export function serve(connection: MessageConnection, { board, server }: Served, log: (line: string) => void): void {
  const { handle, handle0 } = answering(connection, log);
  const { engine } = board;
  handle(messages.load, loadParams, (params, signal) => board.load(params, signal));
  handle(messages.connect, connectParams, (params, signal) => board.connect(params, signal));
  handle(messages.remoteModels, remoteServerParams, (params, signal) => board.remoteModels(params, signal));
  handle(messages.startServer, startServerParams, (params) => server.start(params));
  handle0(messages.stopServer, async () => {
    await server.stop();
    return null;
  });
  handle0(messages.unload, async () => {
    await board.unload();
    return null;
  });
  handle0(messages.status, async () => board.status());
  handle(messages.complete, completeParams, (params, signal) => board.answerer.complete(params, signal));
  handle(messages.warm, warmParams, (params, signal) => board.warm(params, signal));
  handle(messages.chat, chatParams, (params, signal) => board.answerer.chat(params, signal));
  handle(messages.generate, generateParams, (params, signal) => engine.generate(params, signal));
  handle(messages.summarise, summariseParams, (params, signal) => board.answerer.summarise(params, signal));
  handle(messages.countTokens, countTokensParams, (params, signal) => board.answerer.countTokens(params, signal));
  connection.onNotification(messages.answerNow, (params: unknown) => {
    const parsed = streamName.safeParse(params);
    // A notification has no answer, so what is malformed has no effect.
    if (parsed.success) engine.answerNow(parsed.data);
  });
  handle0(messages.clearCache, () => engine.clearCache());
  handle0(messages.models.list, () => engine.models.list());
  handle(messages.models.pull, modelName, ({ model }, signal) => engine.models.pull(model, signal));
  handle(messages.models.verify, modelName, ({ model }, signal) => engine.models.verify(model, signal));
  handle(messages.models.remove, modelName, ({ model }) => engine.models.remove(model));
  handle(messages.models.inspect, modelNames, ({ models }) => engine.models.inspect(models));
}
