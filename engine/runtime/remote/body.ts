/** Requests of the protocol in the words of OpenAI's API. */
import type OpenAI from 'openai';
import type { z } from 'zod';
import type { ChatMessage, chatParams, Sampling, ThinkingMode } from '../../protocol/engineProtocol.ts';

type Params = z.output<typeof chatParams>;

/** Not OpenAI's, but known to vLLM, SGLang and llama-server (some by the one name, some by the other). */
interface Extras {
  top_k?: number;
  min_p?: number;
  repetition_penalty?: number;
  repeat_penalty?: number;
  thinking_token_budget?: number;
  structured_outputs?: { choice: string[] };
  thinking_budget_tokens?: number;
  chat_template_kwargs?: { enable_thinking: boolean; thinking: boolean };
}

/** Fields that change how an answer is made: a server that refuses one by name is asked without it from then on. */
export const dispensable = [
  'chat_template_kwargs',
  'reasoning_effort',
  'thinking_token_budget',
  'thinking_budget_tokens',
  'stream_options',
  'parallel_tool_calls',
  'top_k',
  'min_p',
  'repetition_penalty',
  'repeat_penalty',
] as const;

export function bodyOf(model: string, params: Params): OpenAI.ChatCompletionCreateParamsStreaming & Extras {
  const { tools, toolChoice, maxTokens, stop } = params;
  return {
    model,
    messages: params.messages.map(messageOf),
    stream: true,
    stream_options: { include_usage: true },
    ...(maxTokens !== undefined && { max_tokens: maxTokens }),
    ...(stop.length > 0 && { stop }),
    ...samplingOf(params.sampling),
    ...(tools.length > 0 && {
      tools: tools.map((tool) => ({ type: 'function', function: tool })),
      ...(!params.parallelToolCalls && { parallel_tool_calls: false }),
      tool_choice: typeof toolChoice === 'string' ? toolChoice : { type: 'function', function: toolChoice },
    }),
    ...formatOf(params),
    ...thinkingOf(params.thinking, params.thinkingTokens),
  };
}

export function samplingOf(sampling: Sampling) {
  const { temperature, topP, topK, minP, repetitionPenalty, presencePenalty, seed, logitBias } = sampling;
  return {
    ...(temperature !== undefined && { temperature }),
    ...(topP !== undefined && { top_p: topP }),
    ...(topK !== undefined && { top_k: topK }),
    ...(minP !== undefined && { min_p: minP }),
    ...(repetitionPenalty !== undefined && {
      repetition_penalty: repetitionPenalty,
      repeat_penalty: repetitionPenalty,
    }),
    ...(presencePenalty !== undefined && { presence_penalty: presencePenalty }),
    ...(seed !== undefined && { seed }),
    ...(logitBias !== undefined && { logit_bias: logitBias }),
  };
}

function formatOf({
  responseFormat,
}: Params): Pick<Extras, 'structured_outputs'> & Pick<OpenAI.ChatCompletionCreateParamsStreaming, 'response_format'> {
  if (responseFormat.kind === 'text') return {};
  if (responseFormat.kind === 'choice') return { structured_outputs: { choice: responseFormat.choices } };
  if (responseFormat.kind === 'json') return { response_format: { type: 'json_object' } };
  const json_schema = { name: 'answer', schema: responseFormat.schema };
  return { response_format: { type: 'json_schema', json_schema } };
}

/** Templates of Qwen3 and GLM read `enable_thinking`, DeepSeek's and Granite's `thinking`, GPT-OSS an effort. */
function thinkingOf(mode: ThinkingMode, budgetTokens: number | undefined) {
  const thinks = mode !== 'off';
  const effort: 'low' | 'medium' | 'high' | undefined = mode === 'on' ? 'medium' : mode === 'off' ? undefined : mode;
  return {
    chat_template_kwargs: { enable_thinking: thinks, thinking: thinks },
    ...(effort !== undefined && { reasoning_effort: effort }),
    ...(thinks &&
      budgetTokens !== undefined && { thinking_token_budget: budgetTokens, thinking_budget_tokens: budgetTokens }),
  };
}

function messageOf(message: ChatMessage): OpenAI.ChatCompletionMessageParam {
  switch (message.role) {
    case 'tool':
      return { role: 'tool', tool_call_id: message.toolCallId, content: message.content };
    case 'assistant':
      return {
        role: 'assistant',
        content: message.content,
        ...(message.toolCalls &&
          message.toolCalls.length > 0 && {
            tool_calls: message.toolCalls.map(({ id, name, arguments: args }) => ({
              id,
              type: 'function',
              function: { name, arguments: args },
            })),
          }),
      };
    default:
      return { role: message.role, content: message.content };
  }
}

// Tokens of text in a vocabulary that only the server knows.

/**
 * Code has 3 to 4 bytes a token in current vocabularies, prose over 4; less text is then sent than would fit, never
 * more. What is dense beyond that (numbers, some scripts) has about 2.
 */
const usualBytes = 3;
const denseBytes = 2;

export type Density = 'usual' | 'dense';

const bytesOf = (density: Density): number => (density === 'usual' ? usualBytes : denseBytes);

export const estimatedTokens = (text: string, density: Density = 'usual'): number =>
  Math.ceil(Buffer.byteLength(text) / bytesOf(density));

/** Characters that surely fit into as many tokens, by the same estimate. */
export const estimatedChars = (tokens: number): number => Math.max(0, Math.floor(tokens * usualBytes));

/** What a template adds to a message, and to a conversation. */
const messageTokens = 8;
const promptTokens = 64;

interface Counted {
  readonly content: string;
  readonly thinking?: string | undefined;
  readonly toolCalls?: readonly { readonly name: string; readonly arguments: string }[] | undefined;
}

export function estimatedPrompt(messages: readonly Counted[], density: Density = 'usual'): number {
  const ofMessage = ({ content, toolCalls = [] }: Counted): number =>
    messageTokens +
    estimatedTokens(content, density) +
    toolCalls.reduce((sum, call) => sum + messageTokens + estimatedTokens(call.name + call.arguments, density), 0);
  return messages.reduce((sum, message) => sum + ofMessage(message), promptTokens);
}
