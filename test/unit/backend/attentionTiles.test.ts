import { describe, expect, it } from 'vitest';
import { defaultTuning, type GpuCapabilities } from '../../../engine/backend/webgpu/device/adapter.ts';
import { attentionShape } from '../../../engine/backend/webgpu/kernels/attention.ts';
import { matrixAttentionTile } from '../../../engine/backend/webgpu/kernels/attentionTiles.ts';
import { type CachedAttentionSpec, cachedAttentions } from '../../../engine/model/spec/spec.ts';
import { models } from '../../../scripts/kernels/models.ts';

type Sizes = Pick<GpuCapabilities, 'subgroups' | 'subgroupMatrix' | 'maxWorkgroupBytes' | 'maxWorkgroupInvocations'>;

/** As Mesa's drivers report them, through Dawn. */
const ada: Sizes = {
  subgroups: { min: 32, max: 32 },
  subgroupMatrix: { m: 16, n: 16, k: 16 },
  maxWorkgroupBytes: 48 * 1024,
  maxWorkgroupInvocations: 1024,
};
const capable = (sizes: Sizes, tuning = defaultTuning) => ({ ...sizes, tuning }) as GpuCapabilities;

function shapeOf(name: string, change: (spec: CachedAttentionSpec) => CachedAttentionSpec = (spec) => spec) {
  const [attention] = models.filter((model) => model.name === name).flatMap(({ spec }) => cachedAttentions(spec));
  if (!attention) throw new Error(`the gate has ${name}`);
  return attentionShape(change(attention));
}
const gptOss = shapeOf('gpt-oss-20b');

describe('prompts attend by subgroup matrices', () => {
  it('with 64 rows: eight heads that share a key by eight tokens (GPT-OSS), seven by nine (Qwen2.5)', () => {
    expect(matrixAttentionTile(gptOss, 'f16', capable(ada))).toMatchObject({ headsPerTile: 8, queries: 8 });
    const qwen = shapeOf('Qwen2.5-Coder-7B Q4_K_M');
    expect(matrixAttentionTile(qwen, 'f16', capable(ada))).toMatchObject({ headsPerTile: 7, queries: 9 });
  });

  it('on AMD, whose subgroups of 64 each have rows of their own, and on lavapipe, where four of eight share them', () => {
    const navi31 = { ...ada, subgroups: { min: 32, max: 64 }, maxWorkgroupBytes: 64 * 1024 };
    const lavapipe = {
      ...ada,
      subgroups: { min: 8, max: 8 },
      subgroupMatrix: { m: 8, n: 8, k: 8 },
      maxWorkgroupBytes: 32 * 1024,
    };
    for (const sizes of [navi31, lavapipe]) expect(matrixAttentionTile(gptOss, 'f16', capable(sizes))).toBeDefined();
  });

  it('not where the cache is not in f16, the device has no matrices, or its subgroups are too few for all rows', () => {
    expect(matrixAttentionTile(gptOss, 'f32', capable(ada))).toBeUndefined();
    expect(matrixAttentionTile(gptOss, 'q8', capable(ada))).toBeUndefined();
    const { subgroupMatrix: _, ...without } = ada;
    expect(matrixAttentionTile(gptOss, 'f16', capable(without))).toBeUndefined();
    const tuned = { ...defaultTuning, matrixAttention: false };
    expect(matrixAttentionTile(gptOss, 'f16', capable(ada, tuned))).toBeUndefined();
    const few = { ...ada, subgroups: { min: 64, max: 64 }, subgroupMatrix: { m: 8, n: 8, k: 8 } };
    expect(matrixAttentionTile(gptOss, 'f16', capable(few))).toBeUndefined();
  });

  it('not with latents, nor with heads wider than the registers hold, nor in too little workgroup memory', () => {
    expect(matrixAttentionTile(shapeOf('DeepSeek-V3'), 'f16', capable(ada))).toBeUndefined();
    const wide = shapeOf('gpt-oss-20b', (spec) => ({ ...spec, headDim: 256 }));
    expect(matrixAttentionTile(wide, 'f16', capable(ada))).toBeUndefined();
    expect(matrixAttentionTile(gptOss, 'f16', capable({ ...ada, maxWorkgroupBytes: 16 * 1024 }))).toBeUndefined();
  });
});
