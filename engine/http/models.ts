/** GET /v1/models: the model that is loaded. */
import type OpenAI from 'openai';
import type { ModelCard } from '../protocol/engineProtocol.ts';
import type { Exchange } from './exchange.ts';
import { checkModel, servedName } from './fields.ts';
import { loadedCard, type Serving } from './serving.ts';

/** Beside OpenAI's fields: vLLM's name for the context, and what Hearth's own remote endpoint asks for. */
export interface ServedModel extends OpenAI.Model {
  readonly max_model_len: number;
  readonly thinking_modes: readonly string[];
  readonly fill_in_the_middle: boolean;
  /** Of an embedding model: values of a vector. */
  readonly embedding_dimensions?: number;
}

const served = (card: ModelCard, created: number): ServedModel => ({
  id: servedName(card),
  object: 'model',
  created,
  owned_by: 'hearth',
  max_model_len: card.contextTokens,
  thinking_modes: card.thinkingModes,
  fill_in_the_middle: card.fillInTheMiddle,
  ...(card.embeddingDimensions !== undefined && { embedding_dimensions: card.embeddingDimensions }),
});

/** Seconds since 1970; of the server, since a model's own date is not known. */
const started = Math.floor(Date.now() / 1000);

export async function listModels({ engine }: Serving, exchange: Exchange): Promise<void> {
  const { model } = engine.status();
  exchange.json({ object: 'list', data: model ? [served(model, started)] : [] });
}

export async function oneModel(serving: Serving, exchange: Exchange, name: string): Promise<void> {
  const card = loadedCard(serving);
  checkModel(name, card);
  exchange.json(served(card, started));
}
