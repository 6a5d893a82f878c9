/** Fields that several endpoints share. Clients send `null` for unset fields, so null means absent everywhere. */
import { createHash } from 'node:crypto';
import type OpenAI from 'openai';
import { z } from 'zod';
import { checkSchemaBounds } from '../grammar/schemaDocument.ts';
import { limits } from '../limits.ts';
import {
  type ChatMessage,
  type Delta,
  type ResponseFormat,
  type Sampling,
  sampling,
  type TokenLogprob,
  type Tool,
  type ToolChoice,
  tool,
} from '../protocol/engineProtocol.ts';
import type { ModelCard, ThinkingMode } from '../protocol/models.ts';
import { ApiError, badRequest } from './exchange.ts';

export const optional = <Schema extends z.ZodType>(schema: Schema) =>
  schema.nullish().transform((value) => value ?? undefined);

/** Clients of vLLM and llama-server send -1 to disable a field. */
export const optionalOrOff = <Schema extends z.ZodType>(schema: Schema) =>
  z.union([z.literal(-1), schema.nullish()]).transform((value) => (value === -1 ? undefined : (value ?? undefined)));

const { temperature, topK, topP, minP, repetitionPenalty, presencePenalty, seed, logitBias } = sampling.shape;

export const samplingFields = {
  temperature: optional(temperature),
  top_p: optional(topP),
  /** Not in OpenAI's API; vLLM, SGLang and llama-server use these names. */
  top_k: z.union([z.literal(-1).transform(() => 0), optional(topK)]),
  min_p: optional(minP),
  repetition_penalty: optional(repetitionPenalty),
  presence_penalty: optional(presencePenalty),
  frequency_penalty: optional(z.number()),
  seed: optionalOrOff(seed),
  logit_bias: optional(logitBias),
};

type SamplingFields = z.output<z.ZodObject<typeof samplingFields>>;

export function samplingOf(fields: SamplingFields): Sampling {
  if (fields.frequency_penalty) refuse('frequency_penalty', 'use repetition_penalty or presence_penalty');
  return {
    temperature: fields.temperature,
    topP: fields.top_p,
    topK: fields.top_k,
    minP: fields.min_p,
    repetitionPenalty: fields.repetition_penalty,
    presencePenalty: fields.presence_penalty,
    seed: fields.seed,
    logitBias: fields.logit_bias,
  };
}

/** Each choice has its own seed. */
export const choiceSampling = (requested: Sampling, index: number): Sampling =>
  requested.seed === undefined ? requested : { ...requested, seed: requested.seed + index };

export const stopField = optional(
  z.union([z.string().transform((stop) => [stop]), z.array(z.string()).max(limits.server.stopStrings)]),
);
export const tokensField = optionalOrOff(z.number().int().min(1).max(limits.model.contextTokens));
export const choicesField = optional(z.number().int().min(1).max(limits.server.choices));
/** Stop conditions under vLLM's names. */
export const endFields = {
  min_tokens: optionalOrOff(z.number().int().min(0).max(limits.model.contextTokens)),
  ignore_eos: optional(z.boolean()),
  stop_token_ids: optional(z.array(z.number().int().min(0)).max(limits.server.stopStrings)),
};

export function endOf({ min_tokens = 0, ignore_eos, stop_token_ids = [] }: z.output<z.ZodObject<typeof endFields>>) {
  return { minTokens: ignore_eos ? limits.model.contextTokens : min_tokens, stopIds: stop_token_ids };
}

export const streamOptions = optional(z.object({ include_usage: optional(z.boolean()) }));

/** OpenAI's reasoning effort. Absent: no thinking. */
export const reasoningEffort = z.enum(['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max']);

const modes: Readonly<Record<z.infer<typeof reasoningEffort>, ThinkingMode>> = {
  none: 'off',
  minimal: 'low',
  low: 'low',
  medium: 'medium',
  high: 'high',
  xhigh: 'high',
  max: 'high',
};
export const thinkingOf = (effort: z.infer<typeof reasoningEffort> | undefined): ThinkingMode =>
  effort === undefined ? 'off' : modes[effort];

/** A field that would change the answer and that Hearth doesn't support. */
export function refuse(param: string, advice = 'leave it out'): never {
  throw badRequest(`${param} is not supported: ${advice}.`, param);
}

/** A field that only `refuseFields` checks. */
export const unsupported = z.unknown().optional();

/** Fields that are refused, because ignoring them would change the meaning of the request. */
export function refuseFields(fields: Readonly<Record<string, unknown>>): void {
  for (const [param, value] of Object.entries(fields)) {
    const idle = value === undefined || value === null || value === false || value === 0 || value === '';
    if (!idle && !(Array.isArray(value) && value.length === 0)) refuse(param);
  }
}

/** Fingerprint of everything that affects answers: model, backend and context. */
export const fingerprintOf = ({ id, backend, contextTokens }: ModelCard): string =>
  `hearth-${createHash('sha256')
    .update(JSON.stringify([id, backend, contextTokens]))
    .digest('hex')
    .slice(0, 12)}`;

/** The loaded model's name for clients: a catalogue id, or the name of its file or folder. */
export const servedName = ({ id }: ModelCard): string => id.split(/[\\/]/).filter(Boolean).at(-1) ?? id;

/** @throws ApiError 404 if the request names a model that is not loaded. */
export function checkModel(requested: string, card: ModelCard): string {
  const served = servedName(card);
  if (requested === served) return served;
  throw new ApiError(404, `The model '${requested}' is not loaded; this server answers as '${served}'.`, {
    code: 'model_not_found',
    param: 'model',
  });
}

// Output constraints under the names of OpenAI, vLLM, SGLang and llama-server.

/** A schema, or its JSON. */
const jsonSchema = z
  .union([z.record(z.string(), z.unknown()), z.string()])
  .transform((given, context) => (typeof given === 'string' ? parsedSchema(given, context) : given));
const choices = z
  .array(
    z
      .string()
      .min(1)
      .regex(/^[^\r]*$/, 'contains a carriage return'),
  )
  .min(1)
  .max(limits.server.choicesOfAnswer);

/** The names in vLLM (old and new), llama-server and SGLang. */
export const constraintFields = {
  guided_json: optional(jsonSchema),
  guided_choice: optional(choices),
  json_schema: optional(jsonSchema),
  structured_outputs: optional(
    z.object({
      json: optional(jsonSchema),
      choice: optional(choices),
      json_object: optional(z.boolean()),
      regex: unsupported,
      grammar: unsupported,
      structural_tag: unsupported,
    }),
  ),
  guided_regex: unsupported,
  guided_grammar: unsupported,
  structural_tag: unsupported,
  regex: unsupported,
  grammar: unsupported,
  ebnf: unsupported,
};
type Constraints = z.output<z.ZodObject<typeof constraintFields>>;

const nothing: NonNullable<Constraints['structured_outputs']> = {
  json: undefined,
  choice: undefined,
  json_object: undefined,
};

/** @throws ApiError 400 for several constraints at once, and for those that Hearth can't enforce. */
export function constraintOf(fields: Constraints, format: ResponseFormat = { kind: 'text' }): ResponseFormat {
  const { guided_json, guided_choice, json_schema, structured_outputs = nothing } = fields;
  const { guided_regex, guided_grammar, structural_tag, regex, grammar, ebnf } = fields;
  refuseFields({ guided_regex, guided_grammar, structural_tag, regex, grammar, ebnf });
  const { json, choice, json_object, ...others } = structured_outputs;
  refuseFields(
    Object.fromEntries(Object.entries(others).map(([name, value]) => [`structured_outputs.${name}`, value])),
  );
  const asked: readonly (readonly [string, ResponseFormat])[] = [
    ...(format.kind === 'text' ? [] : [['response_format', format] as const]),
    ...schemaOf('guided_json', guided_json),
    ...schemaOf('json_schema', json_schema),
    ...schemaOf('structured_outputs', json),
    ...choiceOf('guided_choice', guided_choice),
    ...choiceOf('structured_outputs', choice),
    ...(json_object ? [['structured_outputs', { kind: 'json' }] as const] : []),
  ];
  const [first, second] = asked;
  if (first && second) throw badRequest(`${first[0]} and ${second[0]} exclude each other: leave one out.`, second[0]);
  const wanted = first?.[1] ?? { kind: 'text' as const };
  if (wanted.kind === 'json-schema') checkSchemaBounds(wanted.schema);
  return wanted;
}

type Asked = readonly (readonly [string, ResponseFormat])[];

const schemaOf = (param: string, schema: Record<string, unknown> | undefined): Asked =>
  schema === undefined ? [] : [[param, { kind: 'json-schema', schema }]];

const choiceOf = (param: string, texts: readonly string[] | undefined): Asked =>
  texts === undefined ? [] : [[param, { kind: 'choice', choices: [...texts] }]];

export function formatOf(
  format: z.output<typeof chatFormat> | z.output<typeof responsesFormat> | undefined,
): ResponseFormat {
  if (format === undefined || format.type === 'text') return { kind: 'text' };
  const schema = 'schema' in format ? format.schema : undefined;
  const named = 'json_schema' in format ? format.json_schema?.schema : undefined;
  const wanted = schema ?? named;
  if (wanted !== undefined) return { kind: 'json-schema', schema: wanted };
  if (format.type === 'json_object') return { kind: 'json' };
  throw badRequest('response_format has no schema.', 'response_format');
}

function parsedSchema(json: string, context: z.RefinementCtx): Record<string, unknown> {
  try {
    return z.record(z.string(), z.unknown()).parse(JSON.parse(json));
  } catch {
    context.addIssue({ code: 'custom', message: 'is not a JSON Schema' });
    return z.NEVER;
  }
}

// Log-probabilities in the format of both APIs.

export const logprobsOf = (delta: Delta): readonly TokenLogprob[] =>
  delta.kind === 'tool-call' ? [] : (delta.logprobs ?? []);

export const chatLogprobs = (tokens: readonly TokenLogprob[]): OpenAI.ChatCompletion.Choice.Logprobs => ({
  content: tokens.map(({ token, bytes, logprob, top }) => ({
    token,
    bytes: [...bytes],
    logprob,
    top_logprobs: top.map((other) => ({ ...other, bytes: [...other.bytes] })),
  })),
  refusal: null,
});

/** @param offset of the first token, in characters of the choice's text. */
export function textLogprobs(tokens: readonly TokenLogprob[], offset: number): OpenAI.CompletionChoice.Logprobs {
  let at = offset;
  const offsets = tokens.map(({ token }) => {
    at += token.length;
    return at - token.length;
  });
  return {
    tokens: tokens.map(({ token }) => token),
    token_logprobs: tokens.map(({ logprob }) => logprob),
    top_logprobs: tokens.map(({ top }) => Object.fromEntries(top.map(({ token, logprob }) => [token, logprob]))),
    text_offset: offsets,
  };
}

// Converts OpenAI's messages to the protocol's: roles, content parts, tool calls and their results.

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
    if (written === undefined) throw badRequest(`${param}: only text is supported, not '${type}'.`, param);
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
  if (missing) throw badRequest('tool_choice names a tool that is not in tools.', 'tool_choice');
  return choice;
}

const isNamed =
  (name: string) =>
  (candidate: Tool): boolean =>
    candidate.name === name;

const schema = z.record(z.string(), z.unknown());
const namedSchema = z.object({ name: optional(z.string()), schema });

/**
 * `response_format` of the chat API. llama-server and Together also take the schema beside the type, like the Responses
 * API.
 */
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
