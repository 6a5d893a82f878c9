/** The same requests, answered by an OpenAI-compatible server that the user named. Nothing is sent before they do. */
import OpenAI, { APIConnectionError, APIError, APIUserAbortError } from 'openai';
import { z } from 'zod';
import { type ErrorCode, HearthError, invalidInput, notFound } from '../../errors.ts';
import type { ChatResult, chatParams, Delta, ToolCall } from '../protocol.ts';
import { bodyOf } from './body.ts';

export interface RemoteOptions {
  /** Where the API lies, up to and with its `/v1`. */
  readonly url: string;
  readonly token?: string | undefined;
  readonly onDelta: (delta: Delta) => void;
}

/** As much of a streamed piece as is used; vLLM calls thinking `reasoning`, the others `reasoning_content`. */
const chunk = z.object({
  choices: z.array(
    z.object({
      delta: z.object({
        content: z.string().nullish(),
        reasoning_content: z.string().nullish(),
        reasoning: z.string().nullish(),
        tool_calls: z
          .array(
            z.object({
              index: z.number().int().min(0).max(1000),
              id: z.string().nullish(),
              function: z.object({ name: z.string().nullish(), arguments: z.string().nullish() }),
            }),
          )
          .nullish(),
      }),
      finish_reason: z.string().nullish(),
    }),
  ),
  usage: z
    .object({
      prompt_tokens: z.number(),
      completion_tokens: z.number(),
      prompt_tokens_details: z.object({ cached_tokens: z.number().nullish() }).nullish(),
    })
    .nullish(),
});
type Chunk = z.output<typeof chunk>;

export class RemoteEngine {
  readonly host: string;
  readonly #client: OpenAI;
  readonly #onDelta: (delta: Delta) => void;

  constructor({ url, token, onDelta }: RemoteOptions) {
    const address = URL.canParse(url) ? new URL(url) : undefined;
    if (address === undefined || !/^https?:$/.test(address.protocol)) {
      throw invalidInput(`'${url}' is no address of a server: https://HOST/v1 is one.`);
    }
    this.host = address.host;
    // The client tries again by itself after a broken connection, 408, 409, 429 and 5xx, with growing pauses.
    this.#client = new OpenAI({ baseURL: url, apiKey: token ?? 'none', maxRetries: 2 });
    this.#onDelta = onDelta;
  }

  async models(signal?: AbortSignal): Promise<string[]> {
    return this.#explained(async () => {
      const { data } = await this.#client.models.list({ signal });
      return z
        .array(z.object({ id: z.string() }))
        .parse(data)
        .map(({ id }) => id);
    });
  }

  /** The model that was named, or the only one there is. */
  async choose(named: string | undefined, signal?: AbortSignal): Promise<string> {
    const models = await this.models(signal);
    const [only] = models;
    if (named === undefined && models.length === 1 && only !== undefined) return only;
    if (named !== undefined && models.includes(named)) return named;
    throw notFound(`${this.host} has the models ${models.join(', ') || '(none)'}; name one of them.`);
  }

  /** A cancelled answer is returned as far as it came. */
  async chat(model: string, params: z.output<typeof chatParams>, signal?: AbortSignal): Promise<ChatResult> {
    const answer = new Answer(params.stream, this.#onDelta);
    try {
      await this.#explained(async () => {
        const stream = await this.#client.chat.completions.create(bodyOf(model, params), { signal });
        for await (const piece of stream) answer.take(chunk.parse(piece));
      });
    } catch (error) {
      if (!(error instanceof HearthError && error.code === 'cancelled')) throw error;
    }
    return answer.result(signal?.aborted === true);
  }

  async #explained<Result>(ask: () => Promise<Result>): Promise<Result> {
    try {
      return await ask();
    } catch (error) {
      throw explained(this.host, error);
    }
  }
}

function explained(host: string, error: unknown): unknown {
  if (error instanceof APIUserAbortError) return new HearthError('cancelled', 'The request was cancelled.');
  if (error instanceof APIConnectionError) {
    return new HearthError('unavailable', `${host} cannot be reached; check the address.`, { cause: error });
  }
  if (error instanceof z.ZodError) {
    return new HearthError('unavailable', `${host} gave an answer that is not OpenAI's API.`, { cause: error });
  }
  if (!(error instanceof APIError)) return error;
  const codes: Readonly<Record<number, ErrorCode>> = { 400: 'invalid-input', 404: 'not-found', 429: 'busy' };
  const code =
    error.code === 'context_length_exceeded' ? 'context-overflow' : (codes[error.status ?? 0] ?? 'unavailable');
  const advice = error.status === 401 || error.status === 403 ? ' Check the token.' : '';
  return new HearthError(code, `${host} answered: ${error.message}.${advice}`, { cause: error });
}

class Answer {
  readonly #stream: string;
  readonly #onDelta: (delta: Delta) => void;
  readonly #calls: ToolCall[] = [];
  readonly #askedMs = performance.now();
  #firstMs: number | undefined;
  #text = '';
  #thinking = '';
  #finish: string | undefined;
  #usage: Chunk['usage'];

  constructor(stream: string, onDelta: (delta: Delta) => void) {
    this.#stream = stream;
    this.#onDelta = onDelta;
  }

  take({ choices, usage }: Chunk): void {
    this.#usage = usage ?? this.#usage;
    const [choice] = choices;
    if (choice === undefined) return;
    this.#finish = choice.finish_reason ?? this.#finish;
    const { content, reasoning_content, reasoning, tool_calls } = choice.delta;
    const thinking = reasoning_content ?? reasoning ?? '';
    if (thinking !== '' || content || tool_calls) this.#firstMs ??= performance.now();
    if (thinking !== '') {
      this.#thinking += thinking;
      this.#onDelta({ stream: this.#stream, kind: 'thinking', text: thinking });
    }
    if (content) {
      this.#text += content;
      this.#onDelta({ stream: this.#stream, kind: 'text', text: content });
    }
    for (const call of tool_calls ?? []) this.#takeCall(call);
  }

  result(cancelled: boolean): ChatResult {
    const finishes = { length: 'length', tool_calls: 'tool-calls' } as const;
    const ended = this.#finish === 'length' || this.#finish === 'tool_calls' ? finishes[this.#finish] : 'stop';
    const generatedTokens = this.#usage?.completion_tokens ?? 0;
    const firstMs = this.#firstMs ?? performance.now();
    const decodeMs = performance.now() - firstMs;
    return {
      text: this.#text,
      thinking: this.#thinking,
      toolCalls: this.#calls,
      finish: cancelled ? 'cancelled' : ended,
      statistics: {
        promptTokens: this.#usage?.prompt_tokens ?? 0,
        cachedTokens: this.#usage?.prompt_tokens_details?.cached_tokens ?? 0,
        generatedTokens,
        timeToFirstTokenMs: firstMs - this.#askedMs,
        tokensPerSecond: decodeMs > 0 ? (1000 * Math.max(0, generatedTokens - 1)) / decodeMs : 0,
      },
      droppedMessages: 0,
    };
  }

  #takeCall({
    index,
    id,
    function: called,
  }: NonNullable<Chunk['choices'][number]['delta']['tool_calls']>[number]): void {
    const known = this.#calls[index];
    const call = known ?? { id: id ?? `call_${index}`, name: called.name ?? '', arguments: '' };
    if (known === undefined) this.#calls.push(call);
    const text = called.arguments ?? '';
    call.arguments += text;
    this.#onDelta({ stream: this.#stream, kind: 'tool-call', index, id: call.id, name: call.name, text });
  }
}
