/** Converts OpenAI's messages to the protocol's: roles, content parts, tool calls and their results. */
import { z } from 'zod';
import { checkSchemaBounds } from '../grammar/refusals.ts';
import { limits } from '../limits.ts';
import { type ChatMessage, type Tool, type ToolChoice, tool } from '../protocol/engineProtocol.ts';
import { badRequest } from './exchange.ts';
import { optional } from './fields.ts';

export const content = z.union([
  z.string(),
  z.array(z.looseObject({ type: z.string(), text: optional(z.string()), refusal: optional(z.string()) })),
]);

/** Some clients send the object itself, or nothing if there are no arguments. */
export const callArguments = z
  .union([z.string(), z.record(z.string(), z.unknown())])
  .nullish()
  .transform((given) => (typeof given === 'string' ? given.trim() || '{}' : JSON.stringify(given ?? {})));

const calledFunction = z.object({ name: z.string(), arguments: callArguments });

export const message = z.discriminatedUnion('role', [
  z.object({ role: z.enum(['system', 'developer']), content }),
  z.object({ role: z.literal('user'), content }),
  z.object({
    role: z.literal('assistant'),
    content: optional(content),
    reasoning_content: optional(z.string()),
    tool_calls: optional(z.array(z.object({ id: z.string(), function: calledFunction }))),
  }),
  z.object({ role: z.literal('tool'), content: optional(content), tool_call_id: z.string() }),
]);

export function textOf(parts: z.output<typeof content>, param: string): string {
  if (typeof parts === 'string') return parts;
  const texts = parts.map(({ type, text, refusal }) => {
    const written = text ?? refusal;
    if (written === undefined) throw badRequest(`${param}: only text is understood, not '${type}'.`, param);
    return written;
  });
  // Like vLLM and llama-server, parts become paragraphs.
  return texts.join('\n');
}

export function messageOf(from: z.output<typeof message>, index: number): ChatMessage {
  const param = `messages.${index}.content`;
  switch (from.role) {
    case 'system':
    case 'developer':
      return { role: 'system', content: textOf(from.content, param) };
    case 'user':
      return { role: 'user', content: textOf(from.content, param) };
    case 'tool':
      return { role: 'tool', toolCallId: from.tool_call_id, content: textOf(from.content ?? '', param) };
    case 'assistant':
      return {
        role: 'assistant',
        content: textOf(from.content ?? '', param),
        thinking: from.reasoning_content,
        toolCalls: from.tool_calls?.map(({ id, function: called }) => ({ id, ...called })),
      };
  }
}

/** A function as in both APIs. */
export const functionTool = z.object({
  name: tool.shape.name,
  description: optional(z.string()),
  parameters: optional(z.record(z.string(), z.unknown())),
});

/** @throws HearthError for parameters that are too deep or too large. */
export function toolOf({ name, description, parameters }: z.output<typeof functionTool>): Tool {
  checkSchemaBounds(parameters);
  return tool.parse({ name, description, parameters });
}

export const toolList = <Schema extends z.ZodType>(schema: Schema) =>
  optional(z.array(schema).max(limits.server.tools));

export const choiceWord = z.enum(['auto', 'none', 'required']);

/** @throws ApiError if the required tool is not in the list. */
export function toolChoiceOf(choice: ToolChoice | undefined, tools: readonly Tool[]): ToolChoice {
  if (choice === undefined) return 'auto';
  const missing =
    typeof choice === 'string' ? choice === 'required' && tools.length === 0 : !tools.some(isNamed(choice.name));
  if (missing) throw badRequest('tool_choice demands a tool that is not among the tools.', 'tool_choice');
  return choice;
}

const isNamed =
  (name: string) =>
  (candidate: Tool): boolean =>
    candidate.name === name;

const schema = z.record(z.string(), z.unknown());
const namedSchema = z.object({ name: optional(z.string()), schema });

/** `response_format` of the chat API; llama-server and Together take the schema beside the type too, as the Responses API. */
export const chatFormat = z.discriminatedUnion('type', [
  z.object({ type: z.literal('text') }),
  z.object({ type: z.literal('json_object'), schema: optional(schema) }),
  z.object({ type: z.literal('json_schema'), json_schema: optional(namedSchema), schema: optional(schema) }),
]);
export const responsesFormat = z.discriminatedUnion('type', [
  z.object({ type: z.literal('text') }),
  z.object({ type: z.literal('json_object') }),
  z.object({ type: z.literal('json_schema'), ...namedSchema.shape }),
]);
