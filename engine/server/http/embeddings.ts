/** POST /v1/embeddings. Vectors come from a model that was trained to give them; a decoder's states are none. */
import { z } from 'zod';
import { limits } from '../../limits.ts';
import { ApiError } from './errors.ts';
import type { Exchange } from './exchange.ts';
import type { Serving } from './serving.ts';

const body = z.object({
  model: z.string(),
  input: z.union([z.string(), z.array(z.string()).min(1).max(limits.server.embeddingInputs)]),
});

export async function embeddings(_serving: Serving, exchange: Exchange): Promise<void> {
  const { model } = body.parse(await exchange.body());
  throw new ApiError(404, `'${model}' cannot be used: no embedding model is loaded here.`, {
    code: 'model_not_found',
    param: 'model',
  });
}
