/**
 * The WebGPU backend: WGSL kernels on Dawn (Vulkan, Metal, Direct3D 12). Start reading at decoder/forwardPlan.ts.
 */

import type { DecoderSpec } from '../../model/spec/spec.ts';
import type { DecoderWeights } from '../../model/weights/weights.ts';
import type { CachePrecision } from '../../protocol/models.ts';
import type { Backend, LoadOptions } from '../backend.ts';
import { roundedTypes } from '../experts.ts';
import { planMemory } from '../memoryPlan.ts';
import { selfCheck } from './check/selfCheck.ts';
import { allocateCache } from './decoder/cache.ts';
import { WebgpuDecoder } from './decoder/decoder.ts';
import { placeWeights, requireDimensions } from './decoder/gpuWeights.ts';
import { OutsideExperts, residentBytes } from './decoder/outsideExperts.ts';
import { tokensPerRun } from './decoder/scratch.ts';
import { Uploader } from './decoder/weightLayout.ts';
import { describeGpu, type GpuOptions } from './device/adapter.ts';
import { Gpu } from './device/gpu.ts';
import { modelKey } from './device/records.ts';
import { allocateRun, gpuNeeds, poolOf } from './needs.ts';
import { DecodeTuner, type TuningRecord, tuningRecords } from './tuning.ts';

export interface WebgpuOptions {
  readonly gpu?: GpuOptions;
  /** KV-cache precision if the load requests none: f16, as in other engines. */
  readonly cachePrecision?: CachePrecision;
  /**
   * Compile kernels of later passes in advance. Default: true except on software adapters, which compile on the cores
   * that they compute with.
   */
  readonly compileAhead?: boolean;
  /** Experts that stay in the machine's memory (decoder/outsideExperts.ts). */
  readonly outside?: OutsideOptions;
  /** Check the device against the reference before use (check/selfCheck.ts). Tests of kernels do this themselves. */
  readonly selfCheck?: boolean;
}

interface OutsideOptions {
  /** Number of first layers whose experts stay outside. */
  readonly layers: number;
  /**
   * The CPU computes them for few rows; `exact`: without rounding activations, for tests of arithmetic. Absent: they
   * are always sent to the card.
   */
  readonly computed?: 'as stored' | 'exact';
}

export function createWebgpuBackend(options: WebgpuOptions = {}): Backend {
  return {
    name: 'webgpu',
    async load(spec, weights, loadOptions) {
      requireDimensions(spec);
      const gpu = await Gpu.open(options.gpu);
      try {
        const precision = loadOptions.cachePrecision ?? options.cachePrecision ?? 'f16';
        const { selfCheck = false, outside } = options;
        const planned = { ...loadOptions, precision, selfCheck, ...(outside && { outside }) };
        const decoder = await loadOn(gpu, spec, weights, planned);
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
  options: PlannedOptions & { readonly selfCheck: boolean },
): Promise<WebgpuDecoder> {
  const { contextTokens, budgetBytes, notes } = await planOn(gpu, spec, weights, options);
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, ...(options.signal ? [options.signal] : [])]);
  const outside = options.outside && outsideOf(gpu, spec, weights, options.outside);
  const uploader = new Uploader(gpu, { ...options, signal, ...shifted(options, () => [outside?.weightBytes ?? 0, 0]) });
  const placed = await placeWeights(weights, uploader, outside);
  const weightBytes = gpu.allocatedBytes;
  const buffers = await allocateRun(gpu.capabilities, spec, contextTokens, gpu);
  const { precision } = options;
  const cache = await allocateCache(gpu, spec, {
    contextTokens,
    maxTokensPerRun: tokensPerRun(spec, gpu.capabilities),
    precision,
    budgetBytes,
  });
  const records = tuningRecords(options.cacheDirectory);
  const key = modelKey(spec, weights, precision);
  const tuned = (await records.of(gpu.capabilities))[key];
  if (tuned) gpu.capabilities = { ...gpu.capabilities, tuning: tuned.tuning };
  const keep = (record: TuningRecord) => records.keep(gpu.capabilities, key, record);
  const isDue = !tuned && !gpu.capabilities.software;
  const start = async (): Promise<WebgpuDecoder> => {
    // Runs while weights are read, which doesn't depend on features that may be switched off.
    const checked = options.selfCheck ? await selfCheck(gpu, { spec, weights }, precision, options.cacheDirectory) : [];
    const decoder = new WebgpuDecoder({
      gpu,
      spec,
      weights: placed,
      cache,
      ...buffers,
      contextTokens,
      notes: [...notesOf(gpu, precision), ...checked, ...notes, ...roundingNotes(weights, options.outside)],
      weightBytes,
      ...(outside && { outside }),
      ...(!spec.headless &&
        spec.stage !== 'inner' &&
        !outside && { tuner: (own: WebgpuDecoder) => new DecodeTuner(own, gpu, { isDue, keep }) }),
    });
    await decoder.warm();
    return decoder;
  };
  // All buffers are created before anything is read; reading then overlaps with compiling kernels.
  const meanwhile = async () => options.meanwhile?.();
  const started = start();
  const read = async (): Promise<void> => {
    await outside?.load({ ...options, signal, ...shifted(options, () => [0, weightBytes]) });
    await uploader.upload();
  };
  const uploading = read();
  try {
    const [decoder] = await Promise.all([started, uploading, meanwhile()]);
    return decoder;
  } catch (error) {
    stop.abort();
    // After a failed load, nothing may read its files or write its buffers.
    await Promise.allSettled([started, uploading]);
    await outside?.end();
    throw error;
  }
}

function outsideOf(
  gpu: Gpu,
  spec: DecoderSpec,
  weights: DecoderWeights,
  { layers, computed }: OutsideOptions,
): OutsideExperts {
  if (!computed) return new OutsideExperts(gpu, layers);
  const chosen = { spec, layers: weights.layers.slice(0, layers), exact: computed === 'exact' };
  // On demand: it loads a native library.
  return new OutsideExperts(gpu, layers, async (options) =>
    (await import('../ggml/index.ts')).openExperts(chosen, options),
  );
}

/** Progress within a total that includes bytes read before and after. */
const shifted = (
  { onProgress }: LoadOptions,
  others: () => readonly [number, number],
): Pick<LoadOptions, 'onProgress'> =>
  onProgress
    ? {
        onProgress: ({ doneBytes, totalBytes }) => {
          const [before, after] = others();
          onProgress({ doneBytes: before + doneBytes, totalBytes: before + totalBytes + after });
        },
      }
    : {};

function roundingNotes({ layers }: DecoderWeights, outside: OutsideOptions | undefined): string[] {
  const types = outside?.computed === 'as stored' ? roundedTypes(layers.slice(0, outside.layers)) : [];
  if (types.length === 0) return [];
  return [`Experts on the CPU: products with ${types.join(', ')} weights round activations, as in llama.cpp.`];
}

interface PlannedOptions extends LoadOptions {
  readonly precision: CachePrecision;
  readonly outside?: OutsideOptions;
}

interface PlannedMemory {
  readonly contextTokens: number;
  /** Bytes for the KV cache. */
  readonly budgetBytes: number;
  readonly notes: readonly string[];
}

/** @throws DoesNotFit before anything is loaded, if the memory of the GPU is known. */
async function planOn(
  gpu: Gpu,
  spec: DecoderSpec,
  weights: DecoderWeights,
  options: PlannedOptions,
): Promise<PlannedMemory> {
  const { precision, contextTokens: asked } = options;
  const { capabilities } = gpu;
  const weightBytes = residentBytes({ spec, weights }, options.outside?.layers ?? 0);
  const needs = await gpuNeeds(capabilities, spec, { weightBytes, precision, asked });
  if (!capabilities.memory) {
    const contextTokens = asked ?? Math.min(needs.longestTokens, unknownMemoryTokens);
    const note = `The memory of this GPU is not known, so the context is ${contextTokens} tokens; hearth.contextTokens sets another.`;
    // One context only, because the remaining memory is not known.
    const budgetBytes = needs.cacheBytes(contextTokens);
    return { contextTokens, budgetBytes, notes: asked === undefined ? [note] : [] };
  }
  const plan = planMemory(needs, poolOf(capabilities.memory), asked);
  const wanted = asked ?? spec.contextTokens;
  const shorter = `The context is ${plan.contextTokens} tokens of ${wanted}: as many as the memory of this GPU holds.`;
  return {
    contextTokens: plan.contextTokens,
    budgetBytes: plan.cacheBudgetBytes,
    notes: plan.contextTokens < wanted ? [shorter] : [],
  };
}

/** Enough for a file and related code, and small enough for any GPU that has room for the model. */
const unknownMemoryTokens = 8192;

function notesOf({ capabilities }: Gpu, precision: CachePrecision): string[] {
  const cache = {
    f32: [],
    f16: ['Keys and values are kept as f16.'],
    q8: ['Keys and values are kept in 8 bits, with a scale for every 32 of them.'],
  }[precision];
  return [`Computed on ${describeGpu(capabilities)}`, ...cache, ...capabilities.notes];
}
