/**
 * The indexer process: the extension's child, spoken to over the channel it inherits. It runs at low priority, so that
 * neither the editor nor the engine notices it, and ends when its parent does.
 */
import { availableParallelism, constants, setPriority } from 'node:os';
import type { Embedder } from './index/repository/embeddings.ts';
import { IndexService } from './index/repository/service.ts';
import { keepWasmUnoptimised } from './index/repository/wasmFlags.ts';
import { type indexNotices, indexRequests } from './protocol/indexProtocol.ts';
import { notifier, serve } from './protocol/rpc.ts';
import { serveChild } from './runtime/child.ts';

/** The graphics card and half of the processor are left to the model that answers. */
const embedder = async (model: string, signal: AbortSignal): Promise<Embedder> => {
  // The engine's code is evaluated where a model was chosen, and only then.
  const { openEmbedder } = await import('./runtime/embedder.ts');
  return openEmbedder(model, signal, { backend: 'onnx', threads: Math.ceil(availableParallelism() / 2) });
};

keepWasmUnoptimised();

serveChild('indexer', (connection, { log, lost }) => {
  // Not the lowest: questions are answered here too, and must not starve beside a busy engine.
  setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
  const notify = notifier<typeof indexNotices>(connection, lost);
  const service = new IndexService((state) => notify('changed', state), embedder);
  serve(connection, indexRequests, service.implementation(), log);
});
