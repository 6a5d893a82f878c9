/** Records the engine's plans for a model on an adapter, without memory and without a device. */

import { sharedTiles } from '../../engine/backend/webgpu/decoder/attention.ts';
import { allocateCache } from '../../engine/backend/webgpu/decoder/cache.ts';
import { headPlan, layersPlan } from '../../engine/backend/webgpu/decoder/forwardPlan.ts';
import { placeWeights } from '../../engine/backend/webgpu/decoder/gpuWeights.ts';
import type { Groups, Plan, PlanRows } from '../../engine/backend/webgpu/decoder/recorder.ts';
import { tokensPerRun } from '../../engine/backend/webgpu/decoder/scratch.ts';
import { Uploader } from '../../engine/backend/webgpu/decoder/weightLayout.ts';
import type { GpuCapabilities } from '../../engine/backend/webgpu/device/adapter.ts';
import type { Gpu, KernelSource } from '../../engine/backend/webgpu/device/gpu.ts';
import { allocateRun } from '../../engine/backend/webgpu/needs.ts';
import { type BenchModel, weightsOf } from './models.ts';

export interface RecordedDispatch {
  readonly source: KernelSource;
  readonly groups: Groups;
}

export interface RecordedPlan {
  readonly model: string;
  readonly rows: PlanRows;
  readonly dispatches: readonly RecordedDispatch[];
}

/** Tokens of a prefill chunk, and of its context. */
export const promptTokens = 512;
const contextTokens = 8192;

/** Replaces the device: buffers are sizes, kernels are their sources. */
function recordingGpu(capabilities: GpuCapabilities) {
  const methods: Pick<Gpu, 'allocate' | 'allocatedBytes' | 'bind' | 'capabilities' | 'free' | 'kernel'> = {
    capabilities,
    allocatedBytes: 0,
    allocate: async (_, size) => ({ size }) as GPUBuffer,
    free: () => undefined,
    kernel: async (source) => ({ source, pipeline: {} as GPUComputePipeline, layout: {} as GPUBindGroupLayout }),
    bind: () => ({}) as GPUBindGroup,
  };
  return { ...methods, device: {} as GPUDevice, throwIfFailed: () => undefined };
}

/** Plans for each number of rows: 1 to 16 rows with head and sampling, a prompt with the head of its last token. */
export async function recordPlans(
  model: BenchModel,
  capabilities: GpuCapabilities,
  rows: readonly PlanRows[],
): Promise<RecordedPlan[]> {
  const { spec } = model;
  const gpu = recordingGpu(capabilities);
  const weights = await placeWeights(weightsOf(model), new Uploader(gpu, { contextTokens }));
  const buffers = await allocateRun(capabilities, spec, contextTokens, gpu);
  const cacheOptions = {
    contextTokens,
    maxTokensPerRun: tokensPerRun(spec, capabilities),
    precision: 'f16',
    budgetBytes: 0,
  } as const;
  const cache = await allocateCache(gpu, spec, cacheOptions);
  const parts = { gpu, spec, weights, cache, ...buffers };
  const recorded: RecordedPlan[] = [];
  for (const count of rows) {
    const tokens = count === 'prompt' ? promptTokens : count;
    buffers.inputs.tokens = tokens;
    buffers.inputs.tiles = Math.ceil(tokens / sharedTiles(parts, count).queries);
    const plans: Plan[] = [await layersPlan(parts, count)];
    const { logits, hidden, chosen } = buffers.scratch;
    plans.push(await headPlan(parts, count === 'prompt' ? 1 : count, count === 'prompt' ? chosen : hidden));
    if (count === 1) {
      const operands = { logits, rowBuffer: buffers.inputs.rowBuffer, rows: () => 1 };
      plans.push(await buffers.sampler.plan(gpu, operands));
    }
    recorded.push({ model: model.name, rows: count, dispatches: plans.flatMap((plan) => plan.kernels()) });
  }
  return recorded;
}
