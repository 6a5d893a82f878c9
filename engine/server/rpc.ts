/** The engine's end of the channel: JSON-RPC requests to calls of the engine. */
import type { MessageConnection } from 'vscode-jsonrpc/node';
import { answering } from './answers.ts';
import {
  chatParams,
  completeParams,
  countTokensParams,
  generateParams,
  loadParams,
  messages,
  modelName,
  modelNames,
  streamName,
  summariseParams,
  warmParams,
} from './protocol.ts';
import type { Engine } from './service.ts';

/** Serves `engine` on a connection that does not listen yet. */
export function serve(connection: MessageConnection, engine: Engine, log: (line: string) => void): void {
  const { handle, handle0 } = answering(connection, log);
  handle(messages.load, loadParams, (params, signal) => engine.load(params, signal));
  handle0(messages.unload, async () => {
    await engine.unload();
    return null;
  });
  handle0(messages.status, async () => engine.status());
  handle(messages.complete, completeParams, (params, signal) => engine.complete(params, signal));
  handle(messages.warm, warmParams, (params, signal) => engine.warm(params, signal));
  handle(messages.chat, chatParams, (params, signal) => engine.chat(params, signal));
  handle(messages.generate, generateParams, (params, signal) => engine.generate(params, signal));
  handle(messages.summarise, summariseParams, (params, signal) => engine.summarise(params, signal));
  handle(messages.countTokens, countTokensParams, async (params) => engine.countTokens(params));
  connection.onNotification(messages.answerNow, (params: unknown) => {
    const parsed = streamName.safeParse(params);
    // A notification has no answer, so what is malformed has no effect.
    if (parsed.success) engine.answerNow(parsed.data);
  });
  handle0(messages.models.list, () => engine.models.list());
  handle(messages.models.pull, modelName, ({ model }, signal) => engine.models.pull(model, signal));
  handle(messages.models.verify, modelName, ({ model }, signal) => engine.models.verify(model, signal));
  handle(messages.models.remove, modelName, ({ model }) => engine.models.remove(model));
  handle(messages.models.inspect, modelNames, ({ models }) => engine.models.inspect(models));
}
