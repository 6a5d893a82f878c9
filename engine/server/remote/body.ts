/** A chat of the protocol in the words of OpenAI's API. */
import type OpenAI from 'openai';
import type { z } from 'zod';
import type { ChatMessage, chatParams, ThinkingMode } from '../protocol.ts';

type Params = z.output<typeof chatParams>;

export function bodyOf(model: string, params: Params): OpenAI.ChatCompletionCreateParamsStreaming {
  const { tools, toolChoice, maxTokens, stop, sampling } = params;
  return {
    model,
    messages: params.messages.map(messageOf),
    stream: true,
    stream_options: { include_usage: true },
    ...(maxTokens !== undefined && { max_tokens: maxTokens }),
    ...(stop.length > 0 && { stop }),
    ...(sampling.temperature !== undefined && { temperature: sampling.temperature }),
    ...(sampling.topP !== undefined && { top_p: sampling.topP }),
    ...(sampling.presencePenalty !== undefined && { presence_penalty: sampling.presencePenalty }),
    ...(sampling.seed !== undefined && { seed: sampling.seed }),
    ...(tools.length > 0 && {
      tools: tools.map((tool) => ({ type: 'function', function: tool })),
      tool_choice: typeof toolChoice === 'string' ? toolChoice : { type: 'function', function: toolChoice },
    }),
    ...formatOf(params),
    ...thinkingOf(params.thinking),
  };
}

function formatOf({ responseFormat }: Params): Pick<OpenAI.ChatCompletionCreateParamsStreaming, 'response_format'> {
  if (responseFormat.kind === 'text') return {};
  if (responseFormat.kind === 'json') return { response_format: { type: 'json_object' } };
  const json_schema = { name: 'answer', schema: responseFormat.schema };
  return { response_format: { type: 'json_schema', json_schema } };
}

/** Off is silence: servers without thinking refuse the field. */
function thinkingOf(thinking: ThinkingMode): Pick<OpenAI.ChatCompletionCreateParamsStreaming, 'reasoning_effort'> {
  if (thinking === 'off') return {};
  return { reasoning_effort: thinking === 'on' ? 'medium' : thinking };
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
