/** POST /v1/responses: OpenAI's newer API. Nothing is stored, so each request must contain its conversation. */

import { randomUUID } from 'node:crypto';
import type OpenAI from 'openai';
import { z } from 'zod';
import { limits } from '../limits.ts';
import type { ChatMessage, ChatResult, Delta, ToolCall } from '../protocol/engineProtocol.ts';
import {
  ask,
  badRequest,
  chatRequest,
  type Exchange,
  finishOf,
  loadedCard,
  nowSeconds,
  type Serving,
  thinkingTokensOf,
  usageOf,
} from './exchange.ts';
import {
  callArguments,
  checkModel,
  choiceWord,
  constraintFields,
  constraintOf,
  content,
  endFields,
  endOf,
  formatOf,
  functionTool,
  optional,
  reasoningEffort,
  refuseFields,
  responsesFormat,
  samplingFields,
  samplingOf,
  stopField,
  textOf,
  thinkingOf,
  tokensField,
  toolChoiceOf,
  toolList,
  toolOf,
  unsupported,
} from './fields.ts';

// Converts the Responses API's items to a conversation: messages, reasoning, function calls and their outputs.

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
type InputItem = z.output<typeof item>;

const responsesBody = z.object({
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
type ResponsesBody = z.output<typeof responsesBody>;

function responsesParams(request: ResponsesBody) {
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
function conversationOf(input: string | readonly InputItem[]): ChatMessage[] {
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

function addTo(turn: Turn, from: Exclude<InputItem, { type: 'function_call_output' }>, param: string): void {
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

export async function responses(serving: Serving, exchange: Exchange): Promise<void> {
  const request = responsesBody.parse(await exchange.body());
  const model = checkModel(request.model, loadedCard(serving));
  const params = chatRequest(responsesParams(request));
  let sequence_number = 0;
  const emit = (event: { readonly type: string }): void => {
    if (request.stream) exchange.event({ ...event, sequence_number: sequence_number++ }, event.type);
  };
  const output = new ResponseOutput(emit);
  const begun = responseOf(request, model);
  let announced = false;
  const announce = (): void => {
    if (announced) return;
    announced = true;
    emit({ type: 'response.created', ...{ response: begun } });
    emit({ type: 'response.in_progress', ...{ response: begun } });
  };
  const oneCall = request.parallel_tool_calls === false;
  const answer = await ask(serving, params, exchange.signal, (delta) => {
    // Not before the first piece, so that an earlier error can still set the status.
    announce();
    if (!(oneCall && delta.kind === 'tool-call' && delta.index > 0)) output.delta(delta);
  });
  announce();
  output.end();
  const response = ended(begun, answer, output, await thinkingTokensOf(serving, [answer]));
  if (!request.stream) return exchange.json(response);
  emit({ type: response.status === 'incomplete' ? 'response.incomplete' : 'response.completed', ...{ response } });
  exchange.endEvents();
}

type Response = Omit<OpenAI.Responses.Response, 'output_text'>;

function responseOf(request: ResponsesBody, model: string): Response {
  const { temperature, top_p, tools, tool_choice, max_output_tokens, reasoning, text } = request;
  return {
    id: `resp_${randomUUID()}`,
    object: 'response',
    created_at: nowSeconds(),
    status: 'in_progress',
    model,
    output: [],
    error: null,
    incomplete_details: null,
    instructions: request.instructions ?? null,
    metadata: request.metadata ?? null,
    parallel_tool_calls: request.parallel_tool_calls ?? true,
    temperature: temperature ?? null,
    top_p: top_p ?? null,
    tool_choice: tool_choice ?? 'auto',
    tools: (tools ?? []).map((tool) => ({
      type: 'function',
      name: tool.name,
      description: tool.description ?? null,
      parameters: tool.parameters ?? null,
      strict: true,
    })),
    max_output_tokens: max_output_tokens ?? null,
    previous_response_id: null,
    reasoning: { effort: reasoning?.effort ?? null },
    text: { format: textFormatOf(text?.format) },
    truncation: 'disabled',
  };
}

/** A schema's name is optional in a request and required in the response. */
function textFormatOf(format: NonNullable<ResponsesBody['text']>['format']): OpenAI.Responses.ResponseFormatTextConfig {
  if (format === undefined || format.type !== 'json_schema') return format ?? { type: 'text' };
  return { type: 'json_schema', name: format.name ?? 'answer', schema: format.schema };
}

function ended(begun: Response, answer: ChatResult, output: ResponseOutput, thinkingTokens: number): Response {
  const incomplete = finishOf(answer.finish) === 'length';
  const { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details } = usageOf([answer]);
  return {
    ...begun,
    status: incomplete ? 'incomplete' : 'completed',
    incomplete_details: incomplete ? { reason: 'max_output_tokens' } : null,
    completed_at: incomplete ? null : nowSeconds(),
    output: output.items,
    usage: {
      input_tokens: prompt_tokens,
      input_tokens_details: { ...prompt_tokens_details, cache_write_tokens: 0 },
      output_tokens: completion_tokens,
      output_tokens_details: { reasoning_tokens: thinkingTokens },
      total_tokens,
    },
  };
}

// Turns a stream into the Responses API's items and events: reasoning, then a message, then function calls. Each item is
// added, filled and done; events are numbered.

type Event = OpenAI.Responses.ResponseStreamEvent;
type Unnumbered = Event extends infer E ? (E extends Event ? Omit<E, 'sequence_number'> : never) : never;
type Reasoning = OpenAI.Responses.ResponseReasoningItem & {
  readonly content: { type: 'reasoning_text'; text: string }[];
};
type Message = OpenAI.Responses.ResponseOutputMessage & { readonly content: OpenAI.Responses.ResponseOutputText[] };
type Call = OpenAI.Responses.ResponseFunctionToolCall & { id: string };
type Item = Reasoning | Message | Call;

class ResponseOutput {
  readonly items: Item[] = [];
  readonly #emit: (event: Unnumbered) => void;
  /** The item of each tool call of the answer. */
  #openCall: number | undefined;

  constructor(emit: (event: Unnumbered) => void) {
    this.#emit = emit;
  }

  delta(delta: Delta): void {
    if (delta.kind === 'tool-call') this.#callDelta(delta);
    else if (delta.text !== '') this.#textDelta(delta.kind, delta.text);
  }

  /** Ends the current item. */
  end(): void {
    const item = this.items.at(-1);
    if (item === undefined || item.status !== 'in_progress') return;
    const place = { item_id: item.id ?? '', output_index: this.items.length - 1 };
    item.status = 'completed';
    if (item.type === 'function_call') {
      this.#emit({
        type: 'response.function_call_arguments.done',
        ...place,
        name: item.name,
        arguments: item.arguments,
      });
    } else {
      this.#endText(item, place);
    }
    this.#emit({ type: 'response.output_item.done', output_index: place.output_index, item });
  }

  #endText(item: Reasoning | Message, { item_id, output_index }: { item_id: string; output_index: number }): void {
    const [part] = item.content;
    if (part === undefined) return;
    const place = { item_id, output_index, content_index: 0 };
    if (part.type === 'output_text') {
      this.#emit({ type: 'response.output_text.done', ...place, text: part.text, logprobs: [] });
    } else this.#emit({ type: 'response.reasoning_text.done', ...place, text: part.text });
    this.#emit({ type: 'response.content_part.done', ...place, part });
  }

  #textDelta(kind: 'text' | 'thinking', text: string): void {
    const type = kind === 'text' ? 'message' : 'reasoning';
    let item = this.items.at(-1);
    if (item?.type !== type || item.status !== 'in_progress') item = this.#begin(newItem(type));
    if (item.type === 'function_call') return;
    const [part] = item.content;
    if (part !== undefined) part.text += text;
    const place = { item_id: item.id, output_index: this.items.length - 1, content_index: 0, delta: text };
    if (type === 'reasoning') this.#emit({ type: 'response.reasoning_text.delta', ...place });
    else this.#emit({ type: 'response.output_text.delta', ...place, logprobs: [] });
  }

  #callDelta({ index, id, name, text }: Extract<Delta, { kind: 'tool-call' }>): void {
    let item = this.items.at(-1);
    if (item?.type !== 'function_call' || this.#openCall !== index) {
      item = this.#begin(newCall(id, name));
      this.#openCall = index;
    }
    if (item.type !== 'function_call') return;
    item.arguments += text;
    const place = { item_id: item.id, output_index: this.items.length - 1 };
    this.#emit({ type: 'response.function_call_arguments.delta', ...place, delta: text });
  }

  #begin(item: Item): Item {
    this.end();
    const output_index = this.items.push(item) - 1;
    // A copy, because later text must not change an event that was sent.
    this.#emit({ type: 'response.output_item.added', output_index, item: emptied(item) });
    const [part] = item.type === 'function_call' ? [] : item.content;
    if (part !== undefined) {
      this.#emit({ type: 'response.content_part.added', item_id: item.id, output_index, content_index: 0, part });
    }
    return item;
  }
}

function newItem(type: 'message' | 'reasoning'): Reasoning | Message {
  const status = 'in_progress' as const;
  if (type === 'reasoning') {
    return { type, id: `rs_${randomUUID()}`, summary: [], status, content: [{ type: 'reasoning_text', text: '' }] };
  }
  const content = [{ type: 'output_text' as const, text: '', annotations: [] }];
  return { type, id: `msg_${randomUUID()}`, role: 'assistant', status, content };
}

const newCall = (call_id: string, name: string): Call => ({
  type: 'function_call',
  id: `fc_${randomUUID()}`,
  call_id,
  name,
  arguments: '',
  status: 'in_progress',
});

const emptied = (item: Item): Item => (item.type === 'function_call' ? { ...item } : { ...item, content: [] });
