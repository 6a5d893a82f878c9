/**
 * The CPU backend that uses the weights as they are in the file: ggml's kernels (of llama.cpp) on graphs built from a
 * decoder's spec. Start reading at forward.ts. It supports grouped-query attention only; other models go to the ONNX
 * backend.
 */
import { HearthError, unsupported } from '../../errors.ts';
import { cachedAttentions, type DecoderSpec, processorPrecision } from '../../model/spec/spec.ts';
import { listWeights } from '../../model/weights/specTensors.ts';
import type { DecoderWeights } from '../../model/weights/weights.ts';
import type { CachePrecision } from '../../protocol/models.ts';
import type { Backend } from '../backend.ts';
import { hostMemory, planMemory } from '../memoryPlan.ts';
import { cacheNotes, hostNeeds, memoryNotes, ProcessorDecoder } from '../processor/decoder.ts';
import type { LayerCacheSpec, WindowGroup } from '../processor/messages.ts';
import { ThreadClient } from '../processor/threadClient.ts';
import { defaultThreads, hasMatrixUnits } from '../processor/threads.ts';
import { isFasterOnGgml } from './choice.ts';
import { chooseLibraries } from './library.ts';
import { declared, fillThread, type GgmlThread, memoryBytesOf, openThread, tensorsOf, workerFile } from './tensors.ts';

export { openExperts } from './experts.ts';

export interface GgmlOptions {
  /** Keeps matrices as f32, so that matmuls don't quantise activations: for tests of the graph's arithmetic. */
  readonly exactWeights: boolean;
  /** Refuses models that the ONNX backend runs faster (choice.ts). */
  readonly onlyWhereFaster?: boolean;
  /** Used if the load options name none. Default: f16, as in other engines. */
  readonly cachePrecision?: CachePrecision;
}

export const ggmlBackend: Backend = createGgmlBackend({ exactWeights: false });

export function createGgmlBackend({
  exactWeights,
  onlyWhereFaster = false,
  cachePrecision = 'f16',
}: GgmlOptions): Backend {
  return {
    name: 'ggml',
    async load(spec, weights, options) {
      requireOperators(spec);
      if (onlyWhereFaster && !isFasterOnGgml(weights)) {
        throw unsupported('ONNX Runtime is faster for prompts with these weights.');
      }
      const libraries = chooseLibraries();
      const precision = options.cachePrecision ?? cachePrecision;
      const tensors = tensorsOf(spec, weights, exactWeights);
      const weightBytes = memoryBytesOf(tensors, hasMatrixUnits());
      const needs = hostNeeds(spec, weightBytes, 'ggml', precision);
      const memory = planMemory(needs, hostMemory(), options.contextTokens, options.besideOthers);
      const { windowGroups, layers } = cacheOf(spec, precision);
      const thread: GgmlThread = new ThreadClient(workerFile, 'ggml');
      try {
        const model = {
          libraries,
          spec,
          threads: options.threads ?? defaultThreads(),
          cacheType: processorPrecision(precision) === 'f32' ? 'float32' : 'float16',
          windowGroups,
          layers,
          tensors: tensors.map(declared),
        } as const;
        await openThread(thread, { kind: 'load', model });
        options.meanwhile?.();
        await fillThread(thread, tensors, options);
        return new ProcessorDecoder({
          backend: 'ggml',
          spec,
          ...memory,
          notes: [
            ...notesOn(weights, exactWeights),
            ...cacheNotes(precision),
            ...memoryNotes(memory, options.contextTokens ?? needs.longestTokens),
          ],
          windowGroups,
          layers,
          states: [],
          weightBytes,
          thread,
          ...(!spec.stage && { embedding: weights.embedding }),
          cacheOrder: 'rows of keys, columns of values, of 64',
        });
      } catch (error) {
        thread.tell({ kind: 'end' });
        throw error;
      }
    },
  };
}

/**
 * Bytes of a model's weights on this backend; undefined if the ONNX backend runs the model, because it is faster or the
 * only one that can.
 */
export function ggmlBytesOf(spec: DecoderSpec, weights: DecoderWeights): number | undefined {
  if (!isFasterOnGgml(weights)) return undefined;
  try {
    requireOperators(spec);
    return memoryBytesOf(tensorsOf(spec, weights, false), hasMatrixUnits());
  } catch (error) {
    if (error instanceof HearthError && error.code === 'unsupported') return undefined;
    throw error;
  }
}

function requireOperators({ layers }: DecoderSpec): void {
  for (const { attention, feedForward } of layers) {
    if (attention.kind !== 'grouped-query') {
      throw unsupported(`Hearth's ggml backend doesn't support ${attention.kind} attention.`);
    }
    if (
      feedForward.kind === 'experts' &&
      feedForward.router.kind === 'sigmoid-grouped' &&
      feedForward.router.groups > 1
    ) {
      throw unsupported("Hearth's ggml backend doesn't support grouped routing of experts.");
    }
  }
}

function cacheOf(
  spec: DecoderSpec,
  precision: CachePrecision,
): { readonly windowGroups: WindowGroup[]; readonly layers: LayerCacheSpec[] } {
  const windowGroups: WindowGroup[] = [];
  const type = processorPrecision(precision) === 'f32' ? 'float32' : 'float16';
  const layers = cachedAttentions(spec).map((attention): LayerCacheSpec => {
    if (attention.kind !== 'grouped-query') throw new Error(`No cache for ${attention.kind} attention.`);
    const { slidingWindow, numKeyValueHeads: keyValueHeads, headDim } = attention;
    let group = windowGroups.findIndex((known) => known.slidingWindow === slidingWindow);
    if (group < 0) group = windowGroups.push(slidingWindow === undefined ? {} : { slidingWindow }) - 1;
    return { type, group, keyValueHeads, keyDim: headDim, valueDim: headDim, valuesInKeys: false };
  });
  return { windowGroups, layers };
}

/** The model card's notes on how matrices are multiplied. */
function notesOn(weights: DecoderWeights, exact: boolean): string[] {
  if (exact) return [];
  const matrices = listWeights(weights).flatMap(({ role, weight }) => (role === 'norm' ? [] : [weight.type]));
  const quantised = [...new Set(matrices)].filter((type) => !/^B?F\d/.test(type)).sort();
  const halves = [...new Set(matrices)].filter((type) => /^B?F16$/.test(type)).sort();
  return [
    ...(quantised.length > 0
      ? [`Matmuls with ${quantised.join(', ')} weights quantise activations to int8 per block, as llama.cpp does.`]
      : []),
    ...(halves.length > 0 ? [`Matmuls with ${halves.join(', ')} weights round activations to the same type.`] : []),
  ];
}
