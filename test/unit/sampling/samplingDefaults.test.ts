import { describe, expect, it } from 'vitest';
import { greedy } from '../../../engine/backend/sampler.ts';
import { llama } from '../../../engine/model/families/llama.ts';
import { qwen3 } from '../../../engine/model/families/qwen3.ts';
import { generationConfig, samplerSettings, samplingDefaults } from '../../../engine/sampling/samplingDefaults.ts';

describe('sampling values that a request leaves open', () => {
  it('are the publisher’s', () => {
    // Qwen3-0.6B's generation_config.json.
    const config = generationConfig.parse({
      do_sample: true,
      temperature: 0.6,
      top_k: 20,
      top_p: 0.95,
      eos_token_id: [1],
    });
    expect(samplingDefaults(llama.sampling, config)).toEqual({ ...greedy, temperature: 0.6, topK: 20, topP: 0.95 });
  });

  it('are the model card’s for a file without any', () => {
    const card = { ...greedy, temperature: 0.6, topK: 20, topP: 0.95 };
    expect(samplingDefaults(qwen3.sampling, undefined)).toEqual(card);
    expect(samplingDefaults(qwen3.sampling, generationConfig.parse({ eos_token_id: 2 }))).toEqual(card);
  });

  it('are greedy where the publisher says not to sample', () => {
    expect(
      samplingDefaults(qwen3.sampling, generationConfig.parse({ do_sample: false, temperature: 0.6 })).temperature,
    ).toBe(0);
  });

  it('give way to what the request says, zero included', () => {
    const settings = samplerSettings(
      { temperature: 0, topK: 0, logitBias: { '7': -100 } },
      samplingDefaults(qwen3.sampling, undefined),
    );
    expect(settings).toMatchObject({ temperature: 0, topK: 0, topP: 0.95, logitBias: new Map([[7, -100]]) });
  });
});
