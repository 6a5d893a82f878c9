/** POST /v1/embeddings. Needs an embedding model; the hidden states of a chat model are not embeddings. */
import type OpenAI from 'openai';
import { z } from 'zod';
import { limits } from '../limits.ts';
import { embedParams } from '../protocol/engineProtocol.ts';
import { badRequest, type Exchange } from './exchange.ts';
import { checkModel, optional } from './fields.ts';
import { loadedCard, type Serving } from './serving.ts';

const text = z.string().min(1);
const ids = z.array(z.number().int().min(0)).min(1).max(limits.model.contextTokens);
const many = <Item extends z.ZodType>(item: Item) => z.array(item).min(1).max(limits.server.embeddingInputs);

const body = z.object({
  model: z.string(),
  /** One or more texts, or the token ids of one or more texts. */
  input: z.union([text.transform((one) => [one]), many(text), ids.transform((one) => [one]), many(ids)]),
  encoding_format: optional(z.enum(['float', 'base64'])),
  dimensions: optional(z.number().int().min(1)),
});

export async function embeddings(serving: Serving, exchange: Exchange): Promise<void> {
  const { input: inputs, encoding_format, dimensions, model: asked } = body.parse(await exchange.body());
  const card = loadedCard(serving);
  const model = checkModel(asked, card);
  if (card.embeddingDimensions === undefined) {
    throw badRequest(`'${model}' is no embedding model, so it gives no vectors: start the server with one.`, 'model');
  }
  const { vectors, promptTokens } = await serving.engine.embed(
    embedParams.parse({ inputs, dimensions }),
    exchange.signal,
  );
  const encode = encoding_format === 'base64' ? base64 : (vector: Float32Array) => [...vector];
  exchange.json({
    object: 'list',
    data: vectors.map((vector, index) => ({ object: 'embedding', index, embedding: encode(vector) })),
    model,
    usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
  } satisfies Answer);
}

type Answer = Omit<OpenAI.CreateEmbeddingResponse, 'data'> & {
  readonly data: readonly (Omit<OpenAI.Embedding, 'embedding'> & { readonly embedding: number[] | string })[];
};

/** Little-endian f32, as OpenAI's client reads it. */
const base64 = (vector: Float32Array): string => {
  const bytes = Buffer.alloc(4 * vector.length);
  for (const [i, value] of vector.entries()) bytes.writeFloatLE(value, 4 * i);
  return bytes.toString('base64');
};
