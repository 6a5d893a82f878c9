/**
 * The CPU backend that keeps the file's own bits: ggml's kernels (of llama.cpp) on graphs that are built from a decoder's spec. Start
 * reading at forward.ts. It computes grouped-query attention; other models go to the ONNX backend.
 */

import { HearthError, throwIfAborted, unsupported } from '../../errors.ts';
import type { DecoderSpec } from '../../model/spec/spec.ts';
import { cachedAttentions, processorPrecision } from '../../model/spec/spec.ts';
import { listWeights } from '../../model/weights/specTensors.ts';
import type { DecoderWeights } from '../../model/weights/weights.ts';
import type { CachePrecision } from '../../protocol/models.ts';
import type { Backend, LoadOptions } from '../backend.ts';
import { hostMemory, planMemory } from '../memoryPlan.ts';
import { cacheNotes, hostNeeds, memoryNotes, ProcessorDecoder, ThreadClient } from '../processor/decoder.ts';
import type { LayerCacheSpec, WindowGroup } from '../processor/messages.ts';
import { defaultThreads, hasMatrixUnits } from '../processor/threads.ts';
import { isFasterOnGgml } from './choice.ts';
import { chooseLibraries } from './library.ts';
import type { GgmlMessage } from './types.ts';
import { bytesOfTensors, type GgmlTensor, memoryBytesOf, tensorsOf } from './weights.ts';

export interface GgmlOptions {
  /** Matrices as f32, so that no product rounds: for tests of the graph's arithmetic. */
  readonly exactWeights: boolean;
  /** Leaves models to the ONNX backend that it is faster with (choice.ts). */
  readonly onlyWhereFaster?: boolean;
  /** Used if the load options name none. Default: f16, as in other engines. */
  readonly cachePrecision?: CachePrecision;
}

/** In builds, the thread is a bundle of its own beside the engine's. */
const workerFile = new URL(import.meta.url.endsWith('.ts') ? './thread.ts' : './ggmlWorker.mjs', import.meta.url);

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
        throw unsupported('Prompts with these weights are read faster by ONNX Runtime.');
      }
      const libraries = chooseLibraries();
      const precision = options.cachePrecision ?? cachePrecision;
      const tensors = tensorsOf(spec, weights, exactWeights);
      const weightBytes = memoryBytesOf(tensors, hasMatrixUnits());
      const needs = hostNeeds(spec, weightBytes, 'ggml', precision);
      const memory = planMemory(needs, hostMemory(), options.contextTokens, options.besideOthers);
      const { windowGroups, layers } = cacheOf(spec, precision);
      const thread = new ThreadClient<GgmlMessage>(workerFile, 'ggml');
      try {
        await open(thread, {
          libraries,
          spec,
          threads: options.threads ?? defaultThreads(),
          cacheType: processorPrecision(precision) === 'f32' ? 'float32' : 'float16',
          windowGroups,
          layers,
          tensors: tensors.map(({ key, type, sizes, use }) => ({ key, type, sizes, use })),
        });
        options.meanwhile?.();
        await fill(thread, tensors, options);
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
          cacheOrder: 'rows of 64',
        });
      } catch (error) {
        thread.tell({ kind: 'end' });
        throw error;
      }
    },
  };
}

/** @throws HearthError `unavailable` if the library can't be used here. */
async function open(
  thread: ThreadClient<GgmlMessage>,
  model: Extract<GgmlMessage, { kind: 'load' }>['model'],
): Promise<void> {
  try {
    await thread.ask({ kind: 'load', model });
  } catch (error) {
    if (error instanceof HearthError && error.code === 'out-of-memory') throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new HearthError('unavailable', reason, { cause: error });
  }
}

/** Reads the next piece while the thread takes this one. */
async function fill(
  thread: ThreadClient<GgmlMessage>,
  tensors: readonly GgmlTensor[],
  { onProgress, signal }: LoadOptions,
): Promise<void> {
  const totalBytes = bytesOfTensors(tensors);
  let doneBytes = 0;
  let filling: Promise<unknown> = Promise.resolve();
  for (const { key, read } of tensors) {
    let offset = 0;
    for await (const bytes of read()) {
      throwIfAborted(signal);
      await filling;
      const { byteLength } = bytes;
      filling = thread.ask({ kind: 'fill', key, offset, bytes }, ownMemory(bytes));
      filling.catch(() => {});
      offset += byteLength;
      doneBytes += byteLength;
      onProgress?.({ doneBytes, totalBytes });
    }
  }
  await filling;
}

/** To transfer instead of copying, unless others may hold views of it. */
const ownMemory = ({ buffer, byteLength }: Uint8Array): ArrayBuffer[] =>
  buffer instanceof ArrayBuffer && buffer.byteLength === byteLength ? [buffer] : [];

function requireOperators({ layers }: DecoderSpec): void {
  for (const { attention, feedForward } of layers) {
    if (attention.kind !== 'grouped-query') {
      throw unsupported(`It computes no ${attention.kind} attention.`);
    }
    if (
      feedForward.kind === 'experts' &&
      feedForward.router.kind === 'sigmoid-grouped' &&
      feedForward.router.groups > 1
    ) {
      throw unsupported('It chooses no experts by groups.');
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
