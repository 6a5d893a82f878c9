/** Converts the Responses API's items to a conversation: messages, reasoning, function calls and their outputs. */
import { z } from 'zod';
import { limits } from '../limits.ts';
import type { ChatMessage, ToolCall } from '../protocol/engineProtocol.ts';
import { constraintFields, constraintOf, formatOf } from './constraints.ts';
import { badRequest } from './errors.ts';
import {
  endFields,
  endOf,
  optional,
  reasoningEffort,
  refuseFields,
  samplingFields,
  samplingOf,
  stopField,
  thinkingOf,
  tokensField,
  unsupported,
} from './fields.ts';
import {
  callArguments,
  choiceWord,
  content,
  functionTool,
  responsesFormat,
  textOf,
  toolChoiceOf,
  toolList,
  toolOf,
} from './messages.ts';

const item = z.union([
  z.object({
    type: optional(z.literal('message')),
    role: z.enum(['system', 'developer', 'user', 'assistant']),
    content,
  }),
  z.object({
    type: z.literal('reasoning'),
    content: optional(z.array(z.object({ type: z.literal('reasoning_text'), text: z.string() }))),
  }),
  z.object({ type: z.literal('function_call'), call_id: z.string(), name: z.string(), arguments: callArguments }),
  z.object({ type: z.literal('function_call_output'), call_id: z.string(), output: optional(content) }),
]);
type Item = z.output<typeof item>;

export const responsesBody = z.object({
  model: z.string(),
  input: z.union([z.string(), z.array(item).min(1).max(limits.server.messages)]),
  instructions: optional(z.string()),
  stream: optional(z.boolean()),
  max_output_tokens: tokensField,
  stop: stopField,
  tools: toolList(z.object({ type: z.literal('function'), ...functionTool.shape })),
  tool_choice: optional(z.union([choiceWord, z.object({ type: z.literal('function'), name: z.string() })])),
  parallel_tool_calls: optional(z.boolean()),
  text: optional(z.object({ format: optional(responsesFormat) })),
  reasoning: optional(z.object({ effort: optional(reasoningEffort) })),
  metadata: optional(z.record(z.string(), z.string())),
  ...samplingFields,
  ...constraintFields,
  ...endFields,
  previous_response_id: unsupported,
  conversation: unsupported,
  prompt: unsupported,
  background: unsupported,
  top_logprobs: unsupported,
});
export type ResponsesBody = z.output<typeof responsesBody>;

export function responsesParams(request: ResponsesBody) {
  // Nothing is stored, so references can't be resolved.
  const { previous_response_id, conversation, prompt, background, top_logprobs } = request;
  refuseFields({ previous_response_id, conversation, prompt, background, top_logprobs });
  const tools = (request.tools ?? []).map(toolOf);
  const system: ChatMessage[] =
    request.instructions === undefined ? [] : [{ role: 'system', content: request.instructions }];
  return {
    messages: [...system, ...conversationOf(request.input)],
    thinking: thinkingOf(request.reasoning?.effort),
    tools,
    toolChoice: toolChoiceOf(request.tool_choice, tools),
    parallelToolCalls: request.parallel_tool_calls,
    responseFormat: constraintOf(request, formatOf(request.text?.format)),
    maxTokens: request.max_output_tokens,
    stop: request.stop ?? [],
    ...endOf(request),
    sampling: samplingOf(request),
  };
}

/** Reasoning, text and calls of one turn are separate items; the protocol has one message. */
function conversationOf(input: string | readonly Item[]): ChatMessage[] {
  if (typeof input === 'string') return [{ role: 'user', content: input }];
  const turns: ChatMessage[] = [];
  let turn = emptyTurn();
  const endTurn = (): void => {
    if (turn.begun) turns.push(messageOfTurn(turn));
    turn = emptyTurn();
  };
  for (const [index, from] of input.entries()) {
    const param = `input.${index}`;
    if ('role' in from && from.role !== 'assistant') {
      endTurn();
      turns.push({ role: from.role === 'user' ? 'user' : 'system', content: textOf(from.content, `${param}.content`) });
    } else if (from.type === 'function_call_output') {
      endTurn();
      turns.push({ role: 'tool', toolCallId: from.call_id, content: textOf(from.output ?? '', `${param}.output`) });
    } else {
      if (from.type === 'reasoning' && (turn.text !== '' || turn.toolCalls.length > 0)) endTurn();
      addTo(turn, from, param);
    }
  }
  endTurn();
  if (turns.length === 0) throw badRequest('input: there is no message.', 'input');
  return turns;
}

interface Turn {
  begun: boolean;
  thinking: string;
  text: string;
  readonly toolCalls: ToolCall[];
}

const emptyTurn = (): Turn => ({ begun: false, thinking: '', text: '', toolCalls: [] });

function addTo(turn: Turn, from: Exclude<Item, { type: 'function_call_output' }>, param: string): void {
  turn.begun = true;
  if (from.type === 'reasoning') turn.thinking += (from.content ?? []).map(({ text }) => text).join('');
  else if (from.type === 'function_call') {
    turn.toolCalls.push({ id: from.call_id, name: from.name, arguments: from.arguments });
  } else turn.text += textOf(from.content, `${param}.content`);
}

const messageOfTurn = ({ thinking, text, toolCalls }: Turn): ChatMessage => ({
  role: 'assistant',
  content: text,
  ...(thinking !== '' && { thinking }),
  ...(toolCalls.length > 0 && { toolCalls }),
});
