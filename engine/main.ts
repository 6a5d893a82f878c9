/**
 * The engine process: a child of the extension, which inherits its channel and ends with its parent, or shared by several
 * windows over a socket that only the user can open. It opens no other socket unless told to serve other programs.
 */

import { LocalServer } from './http/server.ts';
import { limits } from './limits.ts';
import type { clientNotices, DeltaStreams } from './protocol/engineProtocol.ts';
import { notifier, Streams } from './protocol/rpc.ts';
import { sharedParams, sharedVariable } from './protocol/sharedEngine.ts';
import { SharedModels } from './runtime/modelRoles.ts';
import { endOnHungCalls, openToDebugger, type ServeWindow, serveChild, serveWindows } from './runtime/process.ts';
import { Switchboard, serveEngine, startRecording } from './runtime/serveEngine.ts';
import { Engine, type EngineOptions } from './runtime/service.ts';

const shared = new SharedModels();
const record = startRecording();
endOnHungCalls(shared.pool.calls);

const serve: ServeWindow = (connection, { log, lost }) => {
  const streams: DeltaStreams = new Streams();
  const notify = notifier<typeof clientNotices>(connection, lost);
  const options: EngineOptions = {
    shared,
    onDelta(delta) {
      // The receiver is another program's request, or else the extension.
      const receiver = streams.receiver(delta.stream) ?? ((other) => notify('delta', other));
      receiver(delta);
    },
    onProgress: (progress) => notify('progress', progress),
    onModelChange: (change) => notify('modelChange', change),
    onModelsChanged: () => notify('modelsChanged', {}),
  };
  const engine = new Engine(options);
  const server = new LocalServer(engine, streams, log);
  serveEngine(connection, new Switchboard(engine, options), server, log, record);
  return () => {
    void server.stop();
    void engine.close(limits.generation.keptMs);
  };
};

const windows = process.env[sharedVariable];
delete process.env[sharedVariable];
if (windows === undefined) {
  await openToDebugger();
  serveChild('engine', serve);
} else await serveWindows('engine', sharedParams.parse(JSON.parse(windows)), serve);
