/** POST /v1/responses: OpenAI's newer API. Nothing is stored, so each request must contain its conversation. */
import { randomUUID } from 'node:crypto';
import type OpenAI from 'openai';
import type { ChatResult } from '../protocol/engineProtocol.ts';
import type { Exchange } from './exchange.ts';
import { checkModel } from './fields.ts';
import { type ResponsesBody, responsesBody, responsesParams } from './responsesInput.ts';
import { ResponseOutput } from './responsesOutput.ts';
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
    text: { format: formatOf(text?.format) },
    truncation: 'disabled',
  };
}

/** A schema's name is optional in a request and required in the response. */
function formatOf(format: NonNullable<ResponsesBody['text']>['format']): OpenAI.Responses.ResponseFormatTextConfig {
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
