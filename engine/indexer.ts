/**
 * The indexer process, a child of the extension, which inherits its channel. It runs at low priority, so that it slows down
 * neither the editor nor the engine, and ends with its parent.
 */
import { availableParallelism, constants, getPriority, setPriority } from 'node:os';
import type { Embedder } from './index/repository/embeddings.ts';
import { IndexService } from './index/repository/repository.ts';
import { spareMemory } from './index/syntax/grammars.ts';
import { type indexNotices, indexRequests } from './protocol/indexProtocol.ts';
import { notifier, serve } from './protocol/rpc.ts';
import { serveChild } from './runtime/process.ts';

/** Leaves the GPU and half of the CPU to the engine. */
const embedder = async (model: string, signal: AbortSignal): Promise<Embedder> => {
  // Loaded only if an embedding model is configured.
  const { openEmbedder } = await import('./runtime/loadedModel.ts');
  return openEmbedder(model, signal, { backend: 'cpu', threads: Math.ceil(availableParallelism() / 2) });
};

spareMemory();

serveChild('indexer', (connection, { log, lost }) => {
  // Not the lowest priority, because searches run here too and must not starve beside a busy engine. Raising it is not permitted.
  const { PRIORITY_BELOW_NORMAL: below } = constants.priority;
  if (getPriority() < below) setPriority(below);
  const notify = notifier<typeof indexNotices>(connection, lost);
  const service = new IndexService(
    (state) => notify('changed', state),
    embedder,
    (kept) => log(`Rebuilding the index; kept ${kept} embedding vectors of the previous one.`),
  );
  serve(connection, indexRequests, service.implementation(), log);
});
