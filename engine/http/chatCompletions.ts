/** POST /v1/chat/completions. Thinking is `reasoning_content`, as in DeepSeek's API, SGLang and llama-server. */

import { randomUUID } from 'node:crypto';
import type OpenAI from 'openai';
import { z } from 'zod';
import { limits } from '../limits.ts';
import type { ChatResult, Delta, TokenLogprob } from '../protocol/engineProtocol.ts';
import type { ThinkingMode } from '../protocol/models.ts';
import type { Exchange } from './exchange.ts';
import {
  allOf,
  ask,
  chatRequest,
  finishOf,
  loadedCard,
  nowSeconds,
  type Serving,
  thinkingTokensOf,
  usageOf,
} from './exchange.ts';
import {
  chatFormat,
  chatLogprobs,
  checkModel,
  choiceSampling,
  choicesField,
  choiceWord,
  constraintFields,
  constraintOf,
  endFields,
  endOf,
  fingerprintOf,
  formatOf,
  functionTool,
  logprobsOf,
  message,
  messageOf,
  optional,
  optionalOrOff,
  reasoningEffort,
  refuse,
  refuseFields,
  samplingFields,
  samplingOf,
  stopField,
  streamOptions,
  thinkingOf,
  tokensField,
  toolChoiceOf,
  toolList,
  toolOf,
  unsupported,
} from './fields.ts';

// Thinking settings under the names of OpenAI, OpenRouter, vLLM and llama-server.

const budget = optionalOrOff(z.number().int().min(0));

/** Template variables for thinking; no other variable can be set. */
const templateArguments = z.looseObject({
  enable_thinking: optional(z.boolean()),
  thinking: optional(z.boolean()),
  reasoning_effort: optional(reasoningEffort),
});

const nothing: z.output<typeof templateArguments> = {
  enable_thinking: undefined,
  thinking: undefined,
  reasoning_effort: undefined,
};

const thinkingFields = {
  reasoning_effort: optional(reasoningEffort),
  reasoning: optional(
    z.object({
      effort: optional(reasoningEffort),
      max_tokens: budget,
      enabled: optional(z.boolean()),
      exclude: unsupported,
    }),
  ),
  chat_template_kwargs: optional(templateArguments),
  thinking_token_budget: budget,
  thinking_budget_tokens: budget,
};

function chatThinking(fields: z.output<z.ZodObject<typeof thinkingFields>>): {
  readonly thinking: ThinkingMode;
  readonly thinkingTokens: number | undefined;
} {
  const { reasoning, chat_template_kwargs = nothing, thinking_token_budget, thinking_budget_tokens } = fields;
  refuseFields({ 'reasoning.exclude': reasoning?.exclude });
  const { enable_thinking, thinking, reasoning_effort, ...others } = chat_template_kwargs;
  const [other] = Object.keys(others);
  if (other !== undefined) refuse(`chat_template_kwargs.${other}`);
  const effort = fields.reasoning_effort ?? reasoning?.effort ?? reasoning_effort;
  const switched = reasoning?.enabled ?? enable_thinking ?? thinking ?? reasoning?.max_tokens !== undefined;
  return {
    thinking: effort === undefined && switched ? 'on' : thinkingOf(effort),
    thinkingTokens: thinking_token_budget ?? thinking_budget_tokens ?? reasoning?.max_tokens,
  };
}

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
  ...constraintFields,
  ...endFields,
  ...thinkingFields,
  ...samplingFields,
  logprobs: optional(z.boolean()),
  top_logprobs: optionalOrOff(z.number().int().min(0).max(limits.server.logprobs)),
  modalities: optional(z.array(z.string())),
  add_generation_prompt: optional(z.boolean()),
  continue_final_message: unsupported,
  echo: unsupported,
  functions: unsupported,
  audio: unsupported,
  web_search_options: unsupported,
});
type Body = z.output<typeof body>;

export async function chatCompletions(serving: Serving, exchange: Exchange): Promise<void> {
  const request = body.parse(await exchange.body());
  const card = loadedCard(serving);
  const model = checkModel(request.model, card);
  refuseUnsupported(request);
  const params = chatRequest(paramsOf(request));
  const head = {
    id: `chatcmpl-${randomUUID()}`,
    created: nowSeconds(),
    model,
    system_fingerprint: fingerprintOf(card),
  };
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
    completion_tokens_details: { reasoning_tokens: await thinkingTokensOf(serving, answers) },
  };
  if (request.stream) writer.finish(usage);
  else exchange.json({ ...completion(head, answers, request, writer), usage });
}

function refuseUnsupported(request: Body): void {
  const { continue_final_message, echo, functions, audio, web_search_options } = request;
  refuseFields({ continue_final_message, echo, functions, audio, web_search_options });
  if (request.add_generation_prompt === false) refuse('add_generation_prompt');
  const modality = request.modalities?.find((kind) => kind !== 'text');
  if (modality !== undefined) refuse('modalities', `'${modality.slice(0, 20)}' cannot be given, only text`);
  if (request.top_logprobs !== undefined && !request.logprobs) refuse('top_logprobs', 'set logprobs as well');
}

function paramsOf(request: Body) {
  const tools = (request.tools ?? []).map((entry) => toolOf(entry.function));
  return {
    messages: request.messages.map(messageOf),
    ...chatThinking(request),
    tools,
    toolChoice: toolChoiceOf(request.tool_choice, tools),
    parallelToolCalls: request.parallel_tool_calls,
    responseFormat: constraintOf(request, formatOf(request.response_format)),
    maxTokens: request.max_completion_tokens ?? request.max_tokens,
    stop: request.stop ?? [],
    ...endOf(request),
    logprobs: request.logprobs ? (request.top_logprobs ?? 0) : undefined,
    sampling: samplingOf(request),
  };
}

interface Head {
  readonly id: string;
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint: string;
}

/** OpenAI's types lack `reasoning_content`. */
type Thinking = { readonly reasoning_content?: string };

/** Keeps one call for a client that takes one call at a time. */
const wanted = (index: number, { parallel_tool_calls }: Body): boolean => parallel_tool_calls !== false || index === 0;

function completion(
  head: Head,
  answers: readonly ChatResult[],
  request: Body,
  writer: ChunkWriter,
): OpenAI.ChatCompletion {
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
      return { index, message: said, finish_reason: finishOf(answer.finish), logprobs: writer.logprobs(index) };
    }),
  };
}

type ChunkDelta = OpenAI.ChatCompletionChunk.Choice.Delta & Thinking;

/** Streams an answer; for a request without `stream` it only collects the log-probabilities. */
class ChunkWriter {
  readonly #exchange: Exchange;
  readonly #head: Head;
  readonly #request: Body;
  /** Choices whose role was sent. */
  readonly #begun = new Set<number>();
  /** Tool calls whose name was sent, by choice and call. */
  readonly #named = new Set<string>();
  readonly #logprobs = new Map<number, readonly TokenLogprob[]>();

  constructor(exchange: Exchange, head: Head, request: Body) {
    this.#exchange = exchange;
    this.#head = head;
    this.#request = request;
  }

  /** Log-probabilities of the whole choice so far. */
  logprobs(index: number): OpenAI.ChatCompletion.Choice.Logprobs | null {
    return this.#request.logprobs ? chatLogprobs(this.#logprobs.get(index) ?? []) : null;
  }

  delta(index: number, delta: Delta): void {
    if (!this.#request.stream) {
      this.#logprobs.set(index, [...(this.#logprobs.get(index) ?? []), ...logprobsOf(delta)]);
      return;
    }
    if (delta.kind === 'tool-call') {
      if (wanted(delta.index, this.#request)) this.#call(index, delta);
    } else if (delta.kind === 'text') this.#write(index, { content: delta.text }, null, logprobsOf(delta));
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
    tokens: readonly TokenLogprob[] = [],
  ): void {
    const role = this.#begun.has(index) ? {} : { role: 'assistant' as const };
    this.#begun.add(index);
    const logprobs = tokens.length > 0 ? chatLogprobs(tokens) : null;
    this.#chunk({ choices: [{ index, delta: { ...role, ...delta }, finish_reason, logprobs }] });
  }

  #chunk(rest: Pick<OpenAI.ChatCompletionChunk, 'choices' | 'usage'>): void {
    const chunk: OpenAI.ChatCompletionChunk = { ...this.#head, object: 'chat.completion.chunk', ...rest };
    this.#exchange.event(chunk);
  }
}
