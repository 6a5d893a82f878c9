/** POST /v1/completions: a continuation of raw text, or with `suffix` what belongs between the two. */
import { randomUUID } from 'node:crypto';
import type OpenAI from 'openai';
import { z } from 'zod';
import { completeParams, type Delta, generateParams, type Statistics } from '../protocol/engineProtocol.ts';
import { badRequest } from './errors.ts';
import type { Exchange } from './exchange.ts';
import {
  checkModel,
  choicesField,
  optional,
  refuseFields,
  samplingFields,
  samplingOf,
  stopField,
  streamOptions,
  tokensField,
  unsupported,
} from './fields.ts';
import { finishOf, loadedCard, nowSeconds, type Serving, usageOf, whole } from './serving.ts';

const body = z.object({
  model: z.string(),
  prompt: z.union([z.string(), z.array(z.string()).length(1)]).transform((prompt) => [prompt].flat().join('')),
  suffix: optional(z.string()),
  stream: optional(z.boolean()),
  stream_options: streamOptions,
  n: choicesField,
  max_tokens: tokensField,
  stop: stopField,
  ...samplingFields,
  echo: unsupported,
  logprobs: unsupported,
  best_of: unsupported,
});
type Body = z.output<typeof body>;

/** OpenAI's own default. */
const defaultMaxTokens = 16;

interface Continuation {
  readonly text: string;
  readonly finish: Parameters<typeof finishOf>[0];
  readonly statistics: Statistics;
}

export async function completions(serving: Serving, exchange: Exchange): Promise<void> {
  const request = body.parse(await exchange.body());
  const card = loadedCard(serving);
  const model = checkModel(request.model, card);
  const { echo, logprobs, best_of, n } = request;
  refuseFields({ echo, logprobs, best_of: best_of === 1 ? undefined : best_of, n: n === 1 ? undefined : n });
  if (request.suffix !== undefined && !card.fillInTheMiddle) {
    throw badRequest(`'${model}' was not trained to fill in the middle; leave suffix out.`, 'suffix');
  }
  const head = { id: `cmpl-${randomUUID()}`, object: 'text_completion', created: nowSeconds(), model } as const;
  const write = (text: string, finish_reason: Finish | null): void => {
    if (request.stream) exchange.event({ ...head, choices: [{ index: 0, text, finish_reason, logprobs: null }] });
  };
  const answer = whole(await continuation(serving, request, exchange.signal, ({ text }) => write(text, null)));
  const finish_reason = finishOf(answer.finish) === 'length' ? 'length' : 'stop';
  const usage = usageOf([answer]);
  if (!request.stream) {
    const choices = [{ index: 0, text: answer.text, finish_reason, logprobs: null }] as const;
    const completion: OpenAI.Completion = { ...head, choices: [...choices], usage };
    exchange.json(completion);
    return;
  }
  write('', finish_reason);
  if (request.stream_options?.include_usage) exchange.event({ ...head, choices: [], usage });
  exchange.event('[DONE]');
  exchange.endEvents();
}

type Finish = OpenAI.CompletionChoice['finish_reason'];

async function continuation(
  { engine, routes }: Serving,
  request: Body,
  signal: AbortSignal,
  onDelta: (delta: Delta) => void,
): Promise<Continuation> {
  const { prompt, suffix } = request;
  const common = {
    maxTokens: request.max_tokens ?? defaultMaxTokens,
    stop: request.stop ?? [],
    sampling: samplingOf(request),
  };
  if (suffix !== undefined) {
    const params = completeParams.parse({ ...common, prefix: prompt, suffix, whole: true });
    return routes.with(onDelta, (stream) => engine.complete({ ...params, stream }, signal));
  }
  // Thinking is no part of a raw continuation, so its text is text.
  let text = '';
  const take = (delta: Delta): void => {
    text += delta.text;
    onDelta(delta);
  };
  const params = generateParams.omit({ stream: true }).parse({ ...common, prompt, raw: true });
  const { finish, statistics } = await routes.with(take, (stream) => engine.generate({ ...params, stream }, signal));
  return { text, finish, statistics };
}
