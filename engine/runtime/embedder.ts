/** The embedding model of the index. It runs in the indexer process, beside the engine's model. */
import { openStore } from '../catalogue/store.ts';
import { unsupported } from '../errors.ts';
import type { Embedder } from '../index/repository/embeddings.ts';
import type { RequestClass } from '../scheduler/job.ts';
import { cutToContext, type EmbeddingModel, embedAll, embeddingTokens } from '../tasks/embed.ts';
import { runInSlices } from '../tasks/generate.ts';
import type { BackendChoice } from './backends.ts';
import { loadModel } from './loadedModel.ts';

/** The largest chunk has about 1000 tokens. */
const contextTokens = 1024;

export interface EmbedderOptions {
  readonly backend: BackendChoice;
  readonly threads?: number | undefined;
  readonly storeDirectory?: string;
}

/** @throws HearthError `not-found` for a model that is not on this machine, `unsupported` for one that gives no vectors. */
export async function openEmbedder(
  model: string,
  signal: AbortSignal,
  { backend, threads, storeDirectory }: EmbedderOptions,
): Promise<Embedder> {
  const store = openStore(storeDirectory === undefined ? {} : { directory: storeDirectory });
  const { path, name } = await store.locate(model);
  const request = { id: model, name, path, backend, contextTokens, threads, storeDirectory: store.directory, signal };
  const loaded = await loadModel({ ...request, onProgress: () => {} });
  const { embedding } = loaded;
  if (!embedding) {
    await loaded.close();
    throw unsupported(`${name} is no embedding model; choose one that is, say qwen3-embedding-0.6b.`);
  }
  return {
    dimensions: embedding.dimensions,
    document: (text, signal) => vectorOf(embedding, text, { requestClass: 'warm-up', signal }),
    question: (text) => vectorOf(embedding, embedding.queryPrefix + text, { requestClass: 'chat' }),
    close: () => loaded.close(),
  };
}

async function vectorOf(
  model: EmbeddingModel,
  text: string,
  request: { readonly requestClass: RequestClass; readonly signal?: AbortSignal },
): Promise<Float32Array> {
  const tokens = cutToContext(
    await runInSlices(embeddingTokens(model.tokenizer, text), request),
    model.scheduler.decoder.contextTokens,
  );
  const [vector] = await embedAll(model, [tokens], request);
  if (!vector) throw new Error('The model returned no vector for a text.');
  return vector;
}
