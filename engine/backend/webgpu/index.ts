/**
 * The WebGPU backend: WGSL kernels on Dawn (Vulkan, Metal, Direct3D 12). Start reading at decoderPlan.ts.
 */

import type { CachePrecision } from '../../model/cachePrecision.ts';
import { describeModel } from '../../model/describe.ts';
import type { DecoderSpec } from '../../model/spec.ts';
import type { DecoderWeights } from '../../model/weights.ts';
import type { Backend, LoadOptions } from '../backend.ts';
import { describeGpu, type GpuOptions } from './adapter.ts';
import { maxSequencesPerRun, rowBuckets, WebgpuDecoder } from './decoder.ts';
import { allocateCache, cacheBytes, spansOf } from './decoderCache.ts';
import { RunInputs } from './decoderInputs.ts';
import { DeviceSampler } from './decoderSampling.ts';
import { allocateScratch, maxTokensPerRun } from './decoderScratch.ts';
import { placeWeights, requireDimensions } from './decoderWeights.ts';
import { type Allocator, bytesTaken, Gpu } from './gpu.ts';
import { contextFor } from './memoryPlan.ts';
import { Uploader } from './upload.ts';

export interface WebgpuOptions {
  readonly gpu?: GpuOptions;
  /** Where the load asks for none: f16, as every engine keeps keys and values. */
  readonly cachePrecision?: CachePrecision;
  /** Compile what later runs may need before they do; absent: but for software adapters, which compile on the cores that they compute with. */
  readonly compileAhead?: boolean;
}

export function createWebgpuBackend(options: WebgpuOptions = {}): Backend {
  return {
    name: 'webgpu',
    async load(spec, weights, loadOptions) {
      requireDimensions(spec);
      const gpu = await Gpu.open(options.gpu);
      try {
        const precision = loadOptions.cachePrecision ?? options.cachePrecision ?? 'f16';
        const decoder = await loadOn(gpu, spec, weights, { ...loadOptions, precision });
        if (options.compileAhead ?? !gpu.capabilities.software) void decoder.warmRest();
        return decoder;
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
  const uploader = new Uploader(gpu, options);
  const placed = await placeWeights(weights, uploader);
  const weightBytes = gpu.allocatedBytes;
  const buffers = await allocateRun(gpu, spec, contextTokens, gpu);
  const { precision } = options;
  const cache = await allocateCache(gpu, spec, { contextTokens, maxTokensPerRun, precision, budgetBytes });
  const decoder = new WebgpuDecoder({
    gpu,
    spec,
    weights: placed,
    cache,
    ...buffers,
    contextTokens,
    notes: [...notesOf(gpu, precision), ...notes],
    weightBytes,
  });
  // Nothing is read before all buffers are there, and what reading waits for is waited for while kernels are compiled.
  const meanwhile = async () => options.meanwhile?.();
  await Promise.all([uploader.upload(), decoder.warm(), meanwhile()]);
  return decoder;
}

/** What a run needs besides weights and cache, of `account` or of the GPU itself. */
export async function allocateRun(
  gpu: Pick<Gpu, 'capabilities'>,
  spec: DecoderSpec,
  contextTokens: number,
  account: Allocator,
) {
  const halves = gpu.capabilities.subgroupMatrix !== undefined;
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
    scratchBytes: await bytesTaken((account) => allocateRun(gpu, spec, wanted, account)),
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
