/**
 * The WebGPU backend: WGSL kernels on Dawn (Vulkan, Metal, Direct3D 12). Start reading at decoderPlan.ts.
 */

import { describeModel } from '../../model/spec/describe.ts';
import type { DecoderSpec } from '../../model/spec/spec.ts';
import type { DecoderWeights } from '../../model/weights/weights.ts';
import type { CachePrecision } from '../../protocol/engineProtocol.ts';
import type { Backend, LoadOptions } from '../backend.ts';
import { allocateCache, cacheBytes, spansOf } from './decoder/cache.ts';
import { maxSequencesPerRun, vectorTokens, WebgpuDecoder } from './decoder/decoder.ts';
import { DeviceSampler } from './decoder/deviceSampling.ts';
import { placeWeights, requireDimensions } from './decoder/gpuWeights.ts';
import { RunInputs } from './decoder/inputs.ts';
import { allocateScratch, maxTokensPerRun } from './decoder/scratch.ts';
import { describeGpu, type GpuOptions } from './device/adapter.ts';
import { type Allocator, bytesTaken, Gpu } from './device/gpu.ts';
import { contextFor } from './device/memoryPlan.ts';
import { Uploader } from './device/upload.ts';

export interface WebgpuOptions {
  readonly gpu?: GpuOptions;
  /** Where the load asks for none: f16, as every engine keeps keys and values. */
  readonly cachePrecision?: CachePrecision;
  /** Compile what later runs may need before they do; absent: but for software adapters, which compile on the cores that they compute with. */
  readonly compileAhead?: boolean;
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
    splits,
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
async function allocateRun(gpu: Gpu, spec: DecoderSpec, contextTokens: number, account: Allocator) {
  const halves = gpu.capabilities.subgroupMatrix !== undefined;
  const limits = { contextTokens, maxTokensPerRun, maxSequencesPerRun };
  return {
    scratch: await allocateScratch(account, spec, { maxTokensPerRun, vectorTokens, splits, halves }),
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
