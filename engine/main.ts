/**
 * The engine process: the extension's child, spoken to over the channel it inherits. It opens no socket unless it is told
 * to serve other programs, and ends when its parent does. What it writes to stderr is its log.
 */

import { LocalServer } from './http/localServer.ts';
import { messages } from './protocol/engineProtocol.ts';
import { serveChild } from './runtime/child.ts';
import { DeltaRoutes } from './runtime/deltaRoutes.ts';
import { serve } from './runtime/serveEngine.ts';
import { Engine, type EngineOptions } from './runtime/service.ts';
import { Switchboard } from './runtime/switchboard.ts';

serveChild('engine', (connection, { log, lost }) => {
  const routes = new DeltaRoutes();
  const options: EngineOptions = {
    onDelta(delta) {
      // Of an answer to another program, or else to the extension.
      if (!routes.deliver(delta)) connection.sendNotification(messages.delta, delta).catch(lost);
    },
    onProgress: (progress) => void connection.sendNotification(messages.progress, progress).catch(lost),
    onModelChange: (change) => void connection.sendNotification(messages.modelChange, change).catch(lost),
  };
  const engine = new Engine(options);
  const server = new LocalServer(engine, routes, log);
  serve(connection, { board: new Switchboard(engine, options), server }, log);
});
