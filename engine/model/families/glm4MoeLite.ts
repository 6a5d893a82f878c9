/**
 * GLM-4.7-Flash: DeepSeek-V3's latent attention and experts, all in one group, without YaRN. Sources: transformers
 * `models/glm4_moe_lite/modular_glm4_moe_lite.py`; llama.cpp `conversion/glm.py` (Glm4MoeLiteModel) and `src/models/deepseek2.cpp`.
 */
import { z } from 'zod';
import type { DecoderSpec } from '../spec/spec.ts';
import { optional, parseConfig, requireValue } from './config.ts';
import { latentSpecFromConfig, latentSpecFromGguf, sigmoidGating } from './deepseekV3.ts';
import { deepseekFromGguf, deepseekFromHuggingFace } from './deepseekV3Weights.ts';
import type { FamilyBuilder } from './family.ts';

const layerTypesConfig = z.looseObject({
  first_k_dense_replace: optional(z.number().int().min(0)),
  /** transformers 5 writes this instead. */
  mlp_layer_types: optional(z.array(z.enum(['dense', 'sparse']))),
});

function specFromConfig(config: unknown): DecoderSpec {
  const { first_k_dense_replace, mlp_layer_types: types, ...others } = parseConfig(layerTypesConfig, config);
  const numDense = types ? types.filter((type) => type === 'dense').length : (first_k_dense_replace ?? 1);
  const usual = types?.map((_, layer) => (layer < numDense ? 'dense' : 'sparse'));
  requireValue('mlp_layer_types', types?.join(), usual?.join());
  return latentSpecFromConfig('glm4-moe-lite', { ...others, first_k_dense_replace: numDense });
}

export const glm4MoeLite: FamilyBuilder = {
  modelTypes: ['glm4_moe_lite'],
  ggufArchitecture: 'deepseek2',
  ggufPreTokeniser: 'glm4',
  // "GLM-4.7-Flash" card and generation_config.json.
  sampling: { temperature: 1, topP: 0.95 },
  specFromConfig,
  // The first files lack the gating key; llama.cpp recognises them by their sizes (deepseek2.cpp, load_arch_hparams).
  specFromGguf: async (keys, gguf) => latentSpecFromGguf('glm4-moe-lite', keys, gguf, sigmoidGating),
  weightsFromHuggingFace: deepseekFromHuggingFace,
  weightsFromGguf: deepseekFromGguf,
};
