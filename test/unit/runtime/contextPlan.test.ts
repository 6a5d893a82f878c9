import { describe, expect, it } from 'vitest';
import { specFromConfig } from '../../../engine/model/open.ts';
import type { DecoderSpec } from '../../../engine/model/spec/spec.ts';
import { defaultContextTokens } from '../../../engine/runtime/contextPlan.ts';

/** SmolLM2-135M's published shape. */
const smol: DecoderSpec = specFromConfig({
  model_type: 'llama',
  hidden_size: 576,
  intermediate_size: 1536,
  num_hidden_layers: 30,
  num_attention_heads: 9,
  num_key_value_heads: 3,
  max_position_embeddings: 8192,
  vocab_size: 49152,
  rms_norm_eps: 1e-5,
  rope_theta: 100000,
  tie_word_embeddings: true,
  hidden_act: 'silu',
});
const gigabytes = (n: number): number => n * 1e9;

describe('the context that a model gets when none is asked for', () => {
  it('is the usual one where memory is plenty', () => {
    expect(defaultContextTokens({ ...smol, contextTokens: 131_072 }, gigabytes(0.1), gigabytes(16))).toBe(8192);
  });

  it('is never longer than the model’s own', () => {
    expect(defaultContextTokens({ ...smol, contextTokens: 2048 }, gigabytes(0.1), gigabytes(16))).toBe(2048);
  });

  it('shrinks to what memory bears beside the weights, in round numbers', () => {
    // 30 layers of 2 · 3 heads · 64 values · 2 bytes are 23,040 bytes a token; half of 0.9 GB holds three times 6,510 of them.
    expect(defaultContextTokens(smol, gigabytes(0.1), gigabytes(1))).toBe(6144);
    expect(defaultContextTokens(smol, gigabytes(0.1), gigabytes(1), 'f32')).toBe(3072);
    // Of 8 bits the processor makes 16.
    expect(defaultContextTokens(smol, gigabytes(0.1), gigabytes(1), 'q8')).toBe(6144);
  });

  it('stays useful on the smallest machine', () => {
    expect(defaultContextTokens(smol, gigabytes(2), gigabytes(1))).toBe(1024);
  });
});
