/** POST /v1/chat/completions. Thinking is `reasoning_content`, as DeepSeek's API, SGLang and llama-server have it. */
import { randomUUID } from 'node:crypto';
import type OpenAI from 'openai';
import { z } from 'zod';
import { limits } from '../limits.ts';
import type { ChatResult, Delta } from '../protocol/engineProtocol.ts';
import type { Exchange } from './exchange.ts';
import {
  checkModel,
  choiceSampling,
  choicesField,
  optional,
  reasoningEffort,
  refuseFields,
  samplingFields,
  samplingOf,
  stopField,
  streamOptions,
  thinkingOf,
  tokensField,
  unsupported,
} from './fields.ts';
import {
  chatFormat,
  choiceWord,
  formatOf,
  functionTool,
  message,
  messageOf,
  toolChoiceOf,
  toolList,
  toolOf,
} from './messages.ts';
import {
  ask,
  chatRequest,
  finishOf,
  loadedCard,
  nowSeconds,
  type Serving,
  thinkingTokensOf,
  usageOf,
} from './serving.ts';

const named = z.object({ type: z.literal('function'), function: z.object({ name: z.string() }) });

const body = z.object({
  model: z.string(),
  messages: z.array(message).min(1).max(limits.server.messages),
  stream: optional(z.boolean()),
  stream_options: streamOptions,
  n: choicesField,
  max_tokens: tokensField,
  max_completion_tokens: tokensField,
  stop: stopField,
  tools: toolList(z.object({ type: z.literal('function'), function: functionTool })),
  tool_choice: optional(z.union([choiceWord, named.transform((choice) => choice.function)])),
  parallel_tool_calls: optional(z.boolean()),
  response_format: optional(chatFormat),
  reasoning_effort: optional(reasoningEffort),
  /** vLLM's name for a limit of thinking. */
  thinking_token_budget: optional(z.number().int().min(0)),
  ...samplingFields,
  logprobs: unsupported,
  functions: unsupported,
  audio: unsupported,
  web_search_options: unsupported,
});
type Body = z.output<typeof body>;

export async function chatCompletions(serving: Serving, exchange: Exchange): Promise<void> {
  const request = body.parse(await exchange.body());
  const model = checkModel(request.model, loadedCard(serving));
  const { logprobs, functions, audio, web_search_options } = request;
  refuseFields({ logprobs, functions, audio, web_search_options });
  const params = chatRequest(paramsOf(request));
  const head = { id: `chatcmpl-${randomUUID()}`, created: nowSeconds(), model };
  const writer = new ChunkWriter(exchange, head, request);
  const choices = Array.from({ length: request.n ?? 1 }, async (_, index) => {
    const own = { ...params, sampling: choiceSampling(params.sampling, index) };
    const answer = await ask(serving, own, exchange.signal, (delta) => writer.delta(index, delta));
    writer.end(index, answer);
    return answer;
  });
  const answers = await allOf(choices);
  const usage = {
    ...usageOf(answers),
    completion_tokens_details: { reasoning_tokens: thinkingTokensOf(serving, answers) },
  };
  if (request.stream) writer.finish(usage);
  else exchange.json({ ...completion(head, answers, request), usage });
}

/** The first failure, when every one has ended: none goes on for an answer that nobody gets. */
async function allOf<Value>(promises: readonly Promise<Value>[]): Promise<Value[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}

function paramsOf(request: Body) {
  const tools = (request.tools ?? []).map((entry) => toolOf(entry.function));
  return {
    messages: request.messages.map(messageOf),
    thinking: thinkingOf(request.reasoning_effort),
    thinkingTokens: request.thinking_token_budget,
    tools,
    toolChoice: toolChoiceOf(request.tool_choice, tools),
    responseFormat: formatOf(request.response_format),
    maxTokens: request.max_completion_tokens ?? request.max_tokens,
    stop: request.stop ?? [],
    sampling: samplingOf(request),
  };
}

interface Head {
  readonly id: string;
  readonly created: number;
  readonly model: string;
}

/** OpenAI's types do not know the thinking. */
type Thinking = { readonly reasoning_content?: string };

/** Of a model that called several tools, what a client that takes one at a time gets. */
const wanted = (index: number, { parallel_tool_calls }: Body): boolean => parallel_tool_calls !== false || index === 0;

function completion(head: Head, answers: readonly ChatResult[], request: Body): OpenAI.ChatCompletion {
  return {
    ...head,
    object: 'chat.completion',
    choices: answers.map((answer, index) => {
      const calls = answer.toolCalls.filter((_, call) => wanted(call, request));
      const said: OpenAI.ChatCompletionMessage & Thinking = {
        role: 'assistant',
        content: answer.text === '' && calls.length > 0 ? null : answer.text,
        refusal: null,
        ...(answer.thinking !== '' && { reasoning_content: answer.thinking }),
        ...(calls.length > 0 && {
          tool_calls: calls.map(({ id, name, arguments: args }) => ({
            id,
            type: 'function',
            function: { name, arguments: args },
          })),
        }),
      };
      return { index, message: said, finish_reason: finishOf(answer.finish), logprobs: null };
    }),
  };
}

type ChunkDelta = OpenAI.ChatCompletionChunk.Choice.Delta & Thinking;

/** Writes an answer as it comes; for a request without `stream`, nothing. */
class ChunkWriter {
  readonly #exchange: Exchange;
  readonly #head: Head;
  readonly #request: Body;
  /** Choices that have said their role. */
  readonly #begun = new Set<number>();
  /** Tool calls that have said their name, by choice and call. */
  readonly #named = new Set<string>();

  constructor(exchange: Exchange, head: Head, request: Body) {
    this.#exchange = exchange;
    this.#head = head;
    this.#request = request;
  }

  delta(index: number, delta: Delta): void {
    if (!this.#request.stream) return;
    if (delta.kind === 'tool-call') {
      if (wanted(delta.index, this.#request)) this.#call(index, delta);
    } else if (delta.kind === 'text') this.#write(index, { content: delta.text });
    else this.#write(index, { reasoning_content: delta.text });
  }

  end(index: number, { finish }: ChatResult): void {
    if (this.#request.stream) this.#write(index, {}, finishOf(finish));
  }

  finish(usage: OpenAI.CompletionUsage): void {
    if (this.#request.stream_options?.include_usage) this.#chunk({ choices: [], usage });
    this.#exchange.event('[DONE]');
    this.#exchange.endEvents();
  }

  #call(index: number, { index: call, id, name, text }: Extract<Delta, { kind: 'tool-call' }>): void {
    const key = `${index}/${call}`;
    const first = !this.#named.has(key);
    this.#named.add(key);
    const begin = { index: call, id, type: 'function' as const, function: { name, arguments: text } };
    this.#write(index, { tool_calls: [first ? begin : { index: call, function: { arguments: text } }] });
  }

  #write(
    index: number,
    delta: ChunkDelta,
    finish_reason: OpenAI.ChatCompletionChunk.Choice['finish_reason'] = null,
  ): void {
    const role = this.#begun.has(index) ? {} : { role: 'assistant' as const };
    this.#begun.add(index);
    this.#chunk({ choices: [{ index, delta: { ...role, ...delta }, finish_reason, logprobs: null }] });
  }

  #chunk(rest: Pick<OpenAI.ChatCompletionChunk, 'choices' | 'usage'>): void {
    const chunk: OpenAI.ChatCompletionChunk = { ...this.#head, object: 'chat.completion.chunk', ...rest };
    this.#exchange.event(chunk);
  }
}
