/** POST /v1/completions: continues raw texts or token ids, or with `suffix` fills in the middle. */
import { randomUUID } from 'node:crypto';
import type OpenAI from 'openai';
import { z } from 'zod';
import { limits } from '../limits.ts';
import {
  completeParams,
  type Delta,
  embedParams,
  generateParams,
  type Statistics,
  type TokenLogprob,
} from '../protocol/engineProtocol.ts';
import type { ModelCard } from '../protocol/models.ts';
import {
  allOf,
  badRequest,
  type Exchange,
  finishOf,
  loadedCard,
  nowSeconds,
  type Serving,
  totalUsage,
  whole,
} from './exchange.ts';
import {
  chatFormat,
  checkModel,
  choiceSampling,
  choicesField,
  constraintFields,
  constraintOf,
  endFields,
  endOf,
  fingerprintOf,
  formatOf,
  logprobsOf,
  optional,
  optionalOrOff,
  refuse,
  refuseFields,
  samplingFields,
  samplingOf,
  stopField,
  streamOptions,
  textLogprobs,
  tokensField,
  unsupported,
} from './fields.ts';

const ids = z.array(z.number().int().min(0)).min(1).max(limits.model.contextTokens);
const many = <Item extends z.ZodType>(item: Item) => z.array(item).min(1).max(limits.server.prompts);

const body = z.object({
  model: z.string(),
  /** One or more texts, or the token ids of one or more texts. */
  prompt: z.union([z.string().transform((one) => [one]), many(z.string()), ids.transform((one) => [one]), many(ids)]),
  suffix: optional(z.string()),
  stream: optional(z.boolean()),
  stream_options: streamOptions,
  n: choicesField,
  best_of: choicesField,
  max_tokens: z.union([z.literal(-1).transform(() => limits.model.contextTokens), tokensField]),
  stop: stopField,
  logprobs: optionalOrOff(z.number().int().min(0).max(limits.server.logprobs)),
  response_format: optional(chatFormat),
  ...constraintFields,
  ...endFields,
  ...samplingFields,
  echo: unsupported,
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
  const { prompt: prompts, n = 1 } = request;
  refuseUnsupported(request, card);
  const system_fingerprint = fingerprintOf(card);
  const head = {
    id: `cmpl-${randomUUID()}`,
    object: 'text_completion',
    created: nowSeconds(),
    model,
    system_fingerprint,
  } as const;
  const choices = prompts.flatMap((prompt) => Array.from({ length: n }, (_, sample) => ({ prompt, sample })));
  const answers = await allOf(
    choices.map(async ({ prompt, sample }, index) => {
      const choice = new Choice(index, request, (value) => exchange.event({ ...head, choices: [value] }));
      const answer = await continuation(serving, request, { prompt, sample }, exchange.signal, (delta) =>
        choice.take(delta),
      );
      return { ...answer, choice: choice.end(whole(answer)) };
    }),
  );
  // Each prompt counts once, however many choices it has.
  const usage = totalUsage(prompts.map((_, i) => answers.slice(i * n, (i + 1) * n)));
  if (!request.stream) {
    const completion: OpenAI.Completion = { ...head, choices: answers.map(({ choice }) => choice), usage };
    exchange.json(completion);
    return;
  }
  if (request.stream_options?.include_usage) exchange.event({ ...head, choices: [], usage });
  exchange.event('[DONE]');
  exchange.endEvents();
}

function refuseUnsupported(request: Body, card: ModelCard): void {
  const { echo, best_of, n = 1, suffix, logprobs } = request;
  refuseFields({ echo, best_of: best_of === n ? undefined : best_of });
  if (!suffix) return;
  if (!card.fillInTheMiddle) {
    throw badRequest(`'${request.model}' was not trained to fill in the middle; leave suffix out.`, 'suffix');
  }
  if (logprobs !== undefined) refuse('logprobs', 'not together with suffix');
  if (constraintOf(request, formatOf(request.response_format)).kind !== 'text')
    refuse('suffix', 'not together with a response format');
  if (endOf(request).minTokens > 0 || endOf(request).stopIds.length > 0)
    refuse('suffix', 'not together with rules for when the answer ends');
  if (request.prompt.some((prompt) => typeof prompt !== 'string')) refuse('suffix', 'send the prompt as text');
}

/** One choice during generation: its events and its final result. */
class Choice {
  readonly #index: number;
  readonly #request: Body;
  readonly #emit: (choice: Written) => void;
  readonly #tokens: TokenLogprob[] = [];
  #said = 0;

  constructor(index: number, request: Body, emit: (choice: Written) => void) {
    this.#index = index;
    this.#request = request;
    this.#emit = emit;
  }

  take(delta: Delta): void {
    const tokens = logprobsOf(delta);
    if (this.#request.stream) {
      const logprobs = tokens.length > 0 ? textLogprobs(tokens, this.#said) : null;
      this.#emit({ index: this.#index, text: delta.text, finish_reason: null, logprobs });
    } else this.#tokens.push(...tokens);
    this.#said += delta.text.length;
  }

  end({ text, finish }: Continuation): OpenAI.CompletionChoice {
    const finish_reason = finishOf(finish) === 'length' ? 'length' : 'stop';
    const logprobs = this.#request.logprobs === undefined ? null : textLogprobs(this.#tokens, 0);
    if (this.#request.stream) this.#emit({ index: this.#index, text: '', finish_reason, logprobs: null });
    return { index: this.#index, text, finish_reason, logprobs };
  }
}

type Written = Omit<OpenAI.CompletionChoice, 'finish_reason'> & {
  readonly finish_reason: OpenAI.CompletionChoice['finish_reason'] | null;
};

async function continuation(
  { engine, streams }: Serving,
  request: Body,
  { prompt, sample }: { readonly prompt: string | number[]; readonly sample: number },
  signal: AbortSignal,
  onDelta: (delta: Delta) => void,
): Promise<Continuation> {
  const common = {
    maxTokens: request.max_tokens ?? defaultMaxTokens,
    stop: request.stop ?? [],
    sampling: choiceSampling(samplingOf(request), sample),
  };
  // Without a suffix, it is a plain continuation.
  if (request.suffix && typeof prompt === 'string') {
    const params = completeParams.parse({ ...common, prefix: prompt, suffix: request.suffix, whole: true });
    return streams.with(onDelta, (stream) => engine.complete({ ...params, stream }, signal));
  }
  // A raw continuation has no thinking, so everything is text.
  let text = '';
  const take = (delta: Delta): void => {
    text += delta.text;
    onDelta(delta);
  };
  const responseFormat = constraintOf(request, formatOf(request.response_format));
  const { logprobs } = request;
  const params = generateParams
    .omit({ stream: true })
    .parse({ ...common, ...endOf(request), responseFormat, logprobs, prompt, raw: true });
  const { finish, statistics } = await streams.with(take, (stream) => engine.generate({ ...params, stream }, signal));
  return { text, finish, statistics };
}

// POST /v1/embeddings. Needs an embedding model; the hidden states of a chat model are not embeddings.

const text = z.string().min(1);
const inputIds = z.array(z.number().int().min(0)).min(1).max(limits.model.contextTokens);
const inputsOf = <Item extends z.ZodType>(item: Item) => z.array(item).min(1).max(limits.server.embeddingInputs);

const embeddingBody = z.object({
  model: z.string(),
  /** One or more texts, or the token ids of one or more texts. */
  input: z.union([
    text.transform((one) => [one]),
    inputsOf(text),
    inputIds.transform((one) => [one]),
    inputsOf(inputIds),
  ]),
  encoding_format: optional(z.enum(['float', 'base64'])),
  dimensions: optional(z.number().int().min(1)),
});

export async function embeddings(serving: Serving, exchange: Exchange): Promise<void> {
  const { input: inputs, encoding_format, dimensions, model: asked } = embeddingBody.parse(await exchange.body());
  const card = loadedCard(serving);
  const model = checkModel(asked, card);
  if (card.embeddingDimensions === undefined) {
    throw badRequest(`'${model}' is not an embedding model. Start the server with one.`, 'model');
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
