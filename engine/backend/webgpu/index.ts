/**
 * The WebGPU backend: WGSL kernels on Dawn (Vulkan, Metal, Direct3D 12). Start reading at decoderPlan.ts.
 */

import type { CachePrecision } from '../../model/cachePrecision.ts';
import { describeModel } from '../../model/describe.ts';
import type { DecoderSpec } from '../../model/spec.ts';
import { listWeights } from '../../model/weightList.ts';
import type { DecoderWeights } from '../../model/weights.ts';
import { weightBytesOf } from '../../model/weightViews.ts';
import type { Backend, LoadOptions } from '../backend.ts';
import { describeGpu, type GpuOptions } from './adapter.ts';
import { maxSequencesPerRun, vectorTokens, WebgpuDecoder } from './decoder.ts';
import { allocateCache, cacheBytes, spansOf } from './decoderCache.ts';
import { RunInputs } from './decoderInputs.ts';
import { allocateScratch, maxTokensPerRun } from './decoderScratch.ts';
import { requireDimensions, uploadWeights } from './decoderWeights.ts';
import { bytesTaken, Gpu } from './gpu.ts';
import { contextFor } from './memoryPlan.ts';
import { Uploader } from './upload.ts';

export interface WebgpuOptions {
  readonly gpu?: GpuOptions;
  /** Where the load asks for none: f16, as every engine keeps keys and values. */
  readonly cachePrecision?: CachePrecision;
}

/** Workgroups a head at decode. */
const splits = 16;

export function createWebgpuBackend(options: WebgpuOptions = {}): Backend {
  return {
    name: 'webgpu',
    async load(spec, weights, loadOptions) {
      requireDimensions(spec);
      const gpu = await Gpu.open(options.gpu);
      try {
        const precision = loadOptions.cachePrecision ?? options.cachePrecision ?? 'f16';
        return await loadOn(gpu, spec, weights, { ...loadOptions, precision });
      } catch (error) {
        await gpu.explain(error).finally(() => gpu.dispose());
        throw error;
      }
    },
  };
}

export const webgpuBackend: Backend = createWebgpuBackend();

async function loadOn(
  gpu: Gpu,
  spec: DecoderSpec,
  weights: DecoderWeights,
  options: LoadOptions & { readonly precision: CachePrecision },
): Promise<WebgpuDecoder> {
  const { contextTokens, budgetBytes, notes } = await planMemory(gpu, spec, weights, options);
  const limits = { contextTokens, maxTokensPerRun, maxSequencesPerRun };
  const totalBytes = listWeights(weights).reduce((sum, { weight }) => sum + weightBytesOf(weight), 0);
  const uploader = new Uploader(gpu, options, totalBytes);
  const uploaded = await uploadWeights(weights, uploader);
  const weightBytes = gpu.allocatedBytes;
  const scratch = await allocateScratch(gpu, spec, scratchLimits(gpu));
  const cache = await allocateCache(gpu, spec, { ...limits, precision: options.precision, budgetBytes });
  const inputs = await RunInputs.allocate(gpu, spec, cache.spans.length, limits);
  const decoder = new WebgpuDecoder({
    gpu,
    spec,
    weights: uploaded,
    cache,
    inputs,
    scratch,
    splits,
    contextTokens,
    notes: [...notesOf(gpu, options.precision), ...notes],
    weightBytes,
  });
  const warming = decoder.warm();
  options.meanwhile?.();
  await warming;
  return decoder;
}

const scratchLimits = ({ capabilities }: Gpu) => ({
  maxTokensPerRun,
  vectorTokens,
  splits,
  halves: capabilities.subgroupMatrix !== undefined,
});

interface PlannedMemory {
  readonly contextTokens: number;
  /** For keys and values. */
  readonly budgetBytes: number;
  readonly notes: readonly string[];
}

/** @throws DoesNotFit before anything is loaded, where the memory of the GPU is known. */
async function planMemory(
  gpu: Gpu,
  spec: DecoderSpec,
  weights: DecoderWeights,
  options: LoadOptions & { readonly precision: CachePrecision },
): Promise<PlannedMemory> {
  const { precision, contextTokens: wanted } = options;
  const { memory } = gpu.capabilities;
  if (!memory) return { contextTokens: wanted, budgetBytes: Number.POSITIVE_INFINITY, notes: [] };
  const needs = {
    weightBytes: describeModel({ spec, weights }).weightBytes,
    scratchBytes: await bytesTaken(async (account) => {
      await allocateScratch(account, spec, scratchLimits(gpu));
      const limits = { contextTokens: wanted, maxTokensPerRun, maxSequencesPerRun };
      await RunInputs.allocate(account, spec, spansOf(spec).length, limits);
    }),
    cacheBytes: (contextTokens: number) => cacheBytes(spec, { contextTokens, maxTokensPerRun, precision }),
  };
  const contextTokens = contextFor(needs, options, memory);
  const shorter = `The context is ${contextTokens} tokens instead of ${wanted}: as many as fit the memory of this GPU.`;
  return {
    contextTokens,
    budgetBytes: memory.freeBytes - needs.weightBytes - needs.scratchBytes,
    notes: contextTokens < wanted ? [shorter] : [],
  };
}

function notesOf({ capabilities }: Gpu, precision: CachePrecision): string[] {
  const cache = {
    f32: [],
    f16: ['Keys and values are kept as f16.'],
    q8: ['Keys and values are kept in 8 bits, with a scale for every 32 of them.'],
  }[precision];
  return [`Computed on ${describeGpu(capabilities)}`, ...cache, ...capabilities.notes];
}
