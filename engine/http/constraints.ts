/** Output constraints under the names of OpenAI, vLLM, SGLang and llama-server. */
import { z } from 'zod';
import { checkSchemaBounds } from '../grammar/schemaBounds.ts';
import { limits } from '../limits.ts';
import type { ResponseFormat } from '../protocol/engineProtocol.ts';
import { badRequest } from './errors.ts';
import { optional, refuseFields, unsupported } from './fields.ts';
import type { chatFormat, responsesFormat } from './messages.ts';

/** A schema, or its JSON. */
const jsonSchema = z
  .union([z.record(z.string(), z.unknown()), z.string()])
  .transform((given, context) => (typeof given === 'string' ? parsedSchema(given, context) : given));
const choices = z
  .array(
    z
      .string()
      .min(1)
      .regex(/^[^\r]*$/, 'holds a carriage return'),
  )
  .min(1)
  .max(limits.server.choicesOfAnswer);

/** vLLM's names, the old ones and the new; llama-server's; SGLang's. */
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
    context.addIssue({ code: 'custom', message: 'is no JSON Schema' });
    return z.NEVER;
  }
}
