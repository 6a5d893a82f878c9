/**
 * The engine process: the extension's child, spoken to over the channel it inherits. It opens no socket, and ends when
 * its parent does. What it writes to stderr is its log.
 */
import { serveChild } from './server/child.ts';
import { messages } from './server/protocol.ts';
import { serve } from './server/rpc.ts';
import { Engine, type EngineOptions } from './server/service.ts';
import { Switchboard } from './server/switchboard.ts';

serveChild('engine', (connection, { log, lost }) => {
  const options: EngineOptions = {
    onDelta: (delta) => void connection.sendNotification(messages.delta, delta).catch(lost),
    onProgress: (progress) => void connection.sendNotification(messages.progress, progress).catch(lost),
    onModelChange: (change) => void connection.sendNotification(messages.modelChange, change).catch(lost),
  };
  serve(connection, new Switchboard(new Engine(options), options), log);
});
