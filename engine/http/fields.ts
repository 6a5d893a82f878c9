/** Fields that several endpoints share. Clients send `null` for unset fields, so null means absent everywhere. */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { limits } from '../limits.ts';
import { type ModelCard, type Sampling, sampling, type ThinkingMode } from '../protocol/engineProtocol.ts';
import { ApiError, badRequest } from './errors.ts';

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
  if (fields.frequency_penalty) refuse('frequency_penalty', 'repetition_penalty and presence_penalty are known');
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

/** Changes with the model, the backend and the context, which affect answers. */
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
