/**
 * The indexer process: the extension's child, spoken to over the channel it inherits. It runs at low priority, so that
 * neither the editor nor the engine notices it, and ends when its parent does.
 */
import { constants, setPriority } from 'node:os';
import { indexMessages } from './repository/protocol.ts';
import { IndexService } from './repository/service.ts';
import { serveChild } from './server/child.ts';
import { serveIndex } from './server/indexRpc.ts';

serveChild('indexer', (connection, { log, lost }) => {
  // Not the lowest: questions are answered here too, and must not starve beside a busy engine.
  setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
  const service = new IndexService(
    (state) => void connection.sendNotification(indexMessages.changed, state).catch(lost),
    // The engine's code is evaluated where a model was chosen, and only then.
    async (model, signal) => (await import('./server/embedder.ts')).openEmbedder(model, signal),
  );
  serveIndex(connection, service, log);
});
