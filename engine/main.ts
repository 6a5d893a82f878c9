/**
 * The engine process, a child of the extension, which inherits its channel. It opens no socket unless told to serve other
 * programs, and ends with its parent. Its stderr is its log.
 */

import { LocalServer } from './http/localServer.ts';
import type { clientNotices, DeltaStreams } from './protocol/engineProtocol.ts';
import { notifier, Streams } from './protocol/rpc.ts';
import { serveChild } from './runtime/child.ts';
import { Switchboard, serveEngine } from './runtime/serveEngine.ts';
import { Engine, type EngineOptions } from './runtime/service.ts';

serveChild('engine', (connection, { log, lost }) => {
  const streams: DeltaStreams = new Streams();
  const notify = notifier<typeof clientNotices>(connection, lost);
  const options: EngineOptions = {
    onDelta(delta) {
      // Goes to another program or to the extension.
      const receiver = streams.receiver(delta.stream) ?? ((other) => notify('delta', other));
      receiver(delta);
    },
    onProgress: (progress) => notify('progress', progress),
    onModelChange: (change) => notify('modelChange', change),
  };
  const engine = new Engine(options);
  const server = new LocalServer(engine, streams, log);
  serveEngine(connection, new Switchboard(engine, options), server, log);
});
