/** Default sampling settings: the publisher's values if there are any, else conservative ones. */
import { z } from 'zod';
import { greedy, type SamplerSettings } from '../backend/sampler.ts';
import type { PublishedSampling } from '../model/families/family.ts';
import type { Sampling } from '../protocol/engineProtocol.ts';

/** The sampling keys of `generation_config.json`. Unknown keys are ignored. */
export const generationConfig = z.looseObject({
  do_sample: z.boolean().nullish(),
  temperature: z.number().min(0).max(5).nullish(),
  top_k: z.number().int().min(0).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  repetition_penalty: z.number().min(0.01).max(10).nullish(),
});
export type GenerationConfig = z.infer<typeof generationConfig>;

/** `published`: what the model card says, for models without a generation_config.json. */
export function samplingDefaults(
  published: PublishedSampling | undefined,
  config: GenerationConfig | undefined,
): SamplerSettings {
  const fromCard = { ...greedy, ...published };
  if (config === undefined || (config.temperature == null && config.do_sample !== false)) return fromCard;
  return {
    ...greedy,
    temperature: config.do_sample === false ? 0 : (config.temperature ?? 1),
    topK: config.top_k ?? 0,
    topP: config.top_p ?? 1,
    minP: config.min_p ?? 0,
    repetitionPenalty: config.repetition_penalty ?? 1,
  };
}

/** @param requested settings of the request; absent ones take the defaults. */
export function samplerSettings(requested: Sampling, defaults: SamplerSettings): SamplerSettings {
  const { logitBias } = requested;
  return {
    temperature: requested.temperature ?? defaults.temperature,
    topK: requested.topK ?? defaults.topK,
    topP: requested.topP ?? defaults.topP,
    minP: requested.minP ?? defaults.minP,
    repetitionPenalty: requested.repetitionPenalty ?? defaults.repetitionPenalty,
    presencePenalty: requested.presencePenalty ?? defaults.presencePenalty,
    logitBias: logitBias
      ? new Map(Object.entries(logitBias).map(([id, bias]) => [Number(id), bias]))
      : defaults.logitBias,
  };
}
