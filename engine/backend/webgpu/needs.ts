/** The GPU memory that a model needs, counted by the functions that allocate it. */

import type { DecoderSpec } from '../../model/spec/spec.ts';
import type { CachePrecision } from '../../protocol/models.ts';
import type { MemoryPool, ModelNeeds } from '../memoryPlan.ts';
import { cacheBytes, longestBinding, spansOf } from './decoder/cache.ts';
import { maxSequencesPerRun } from './decoder/decoder.ts';
import { DeviceSampler } from './decoder/deviceSampling.ts';
import { rowBuckets } from './decoder/forwardPlan.ts';
import { allocateScratch, RunInputs, tokensPerRun } from './decoder/scratch.ts';
import type { GpuCapabilities } from './device/adapter.ts';
import { type Allocator, bytesTaken } from './device/gpu.ts';
import type { GraphicsCard } from './device/graphicsCards.ts';

/** Allocates the memory of a pass besides weights and cache, from `account` or the GPU. */
export async function allocateRun(
  capabilities: Pick<GpuCapabilities, 'subgroupMatrix' | 'memory'>,
  spec: DecoderSpec,
  contextTokens: number,
  account: Allocator,
) {
  const halves = capabilities.subgroupMatrix !== undefined;
  const maxTokensPerRun = tokensPerRun(spec, capabilities);
  const limits = { contextTokens, maxTokensPerRun, maxSequencesPerRun };
  return {
    scratch: await allocateScratch(account, spec, { maxTokensPerRun, rowBuckets, halves }),
    inputs: await RunInputs.allocate(account, spec, spansOf(spec).length, limits),
    sampler: await DeviceSampler.allocate(account, {
      vocabularySize: spec.vocabularySize,
      maxRows: maxSequencesPerRun,
    }),
  };
}

/** @param asked the requested context, if any */
export async function gpuNeeds(
  capabilities: Pick<GpuCapabilities, 'subgroupMatrix' | 'maxBindingBytes' | 'memory'>,
  spec: DecoderSpec,
  options: { readonly weightBytes: number; readonly precision: CachePrecision; readonly asked?: number | undefined },
): Promise<ModelNeeds> {
  const { weightBytes, precision, asked } = options;
  const longestTokens = Math.min(spec.contextTokens, longestBinding(spec, precision, capabilities.maxBindingBytes));
  const planned = asked ?? longestTokens;
  return {
    weightBytes,
    scratchBytes: await bytesTaken((account) => allocateRun(capabilities, spec, planned, account)),
    cacheBytes: (contextTokens) =>
      cacheBytes(spec, { contextTokens, maxTokensPerRun: tokensPerRun(spec, capabilities), precision }),
    longestTokens,
  };
}

/** Needs of stages with some of the layers. Scratch memory is counted for all of them. */
export async function gpuStageNeeds(
  capabilities: Pick<GpuCapabilities, 'subgroupMatrix' | 'maxBindingBytes' | 'memory'>,
  spec: DecoderSpec,
  options: { readonly precision: CachePrecision; readonly asked?: number | undefined },
): Promise<(stage: DecoderSpec, weightBytes: number) => ModelNeeds> {
  const all = await gpuNeeds(capabilities, { ...spec, stage: 'last' }, { ...options, weightBytes: 0 });
  const { precision } = options;
  return (stage, weightBytes) => ({
    ...all,
    weightBytes,
    cacheBytes: (contextTokens) =>
      cacheBytes(stage, { contextTokens, maxTokensPerRun: tokensPerRun(stage, capabilities), precision }),
  });
}

export const poolOf = ({ name, totalBytes, freeBytes, unified }: GraphicsCard): MemoryPool => ({
  kind: unified ? 'shared' : 'card',
  name,
  totalBytes,
  availableBytes: freeBytes,
});
