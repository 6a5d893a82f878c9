/**
 * The WebGPU backend: WGSL kernels on Dawn (Vulkan, Metal, Direct3D 12). Start reading at decoderPlan.ts.
 */

import type { DecoderSpec } from '../../model/spec.ts';
import { listWeights } from '../../model/weightList.ts';
import type { DecoderWeights } from '../../model/weights.ts';
import { weightBytesOf } from '../../model/weightViews.ts';
import type { Backend, LoadOptions } from '../backend.ts';
import type { GpuOptions } from './adapter.ts';
import { maxSequencesPerRun, maxTokensPerRun, vectorTokens, WebgpuDecoder } from './decoder.ts';
import { allocateCache } from './decoderCache.ts';
import { RunInputs } from './decoderInputs.ts';
import { allocateScratch } from './decoderScratch.ts';
import { requireDimensions, uploadWeights } from './decoderWeights.ts';
import { Gpu } from './gpu.ts';
import type { CachePrecision } from './kernels/cacheCode.ts';
import { Uploader } from './upload.ts';

export interface WebgpuOptions {
  readonly gpu?: GpuOptions;
  /** Of keys and values: f16 by default, as every engine keeps them; f32 loses nothing. */
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
        return await loadOn(gpu, spec, weights, { ...loadOptions, precision: options.cachePrecision ?? 'f16' });
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
  const limits = { contextTokens: options.contextTokens, maxTokensPerRun, maxSequencesPerRun };
  const totalBytes = listWeights(weights).reduce((sum, { weight }) => sum + weightBytesOf(weight), 0);
  const uploader = new Uploader(gpu, options, totalBytes);
  const uploaded = await uploadWeights(weights, uploader);
  const weightBytes = gpu.allocatedBytes;
  const scratch = await allocateScratch(gpu, spec, { maxTokensPerRun, vectorTokens, splits });
  const cache = await allocateCache(gpu, spec, { ...limits, precision: options.precision });
  const inputs = await RunInputs.allocate(gpu, spec, cache, limits);
  const decoder = new WebgpuDecoder({
    gpu,
    spec,
    weights: uploaded,
    cache,
    inputs,
    scratch,
    splits,
    contextTokens: options.contextTokens,
    notes: notesOf(gpu, options.precision),
    weightBytes,
  });
  await decoder.warm();
  return decoder;
}

function notesOf({ capabilities }: Gpu, precision: CachePrecision): string[] {
  const used = `Computed on ${capabilities.description || capabilities.vendor}.`;
  const cache = precision === 'f16' ? ['Keys and values are kept as f16.'] : [];
  return [used, ...cache, ...capabilities.notes];
}
