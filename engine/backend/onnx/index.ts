/**
 * The CPU backend: builds an ONNX graph from a decoder's spec and runs it with ONNX Runtime. Start reading at
 * decoderGraph.ts; attention.ts explains how the KV cache avoids copies.
 */
import { throwIfAborted } from '../../errors.ts';
import { describeModel } from '../../model/spec/describe.ts';
import { processorPrecision } from '../../model/spec/spec.ts';
import type { CachePrecision } from '../../protocol/engineProtocol.ts';
import type { Backend, LoadOptions } from '../backend.ts';
import { hostMemory } from '../hostMemory.ts';
import { type MemoryPlan, planMemory } from '../memoryPlan.ts';
import { hostNeeds, OnnxDecoder, ThreadClient } from './decoder.ts';
import { buildDecoderGraph, type DecoderGraph } from './decoderGraph.ts';
import type { ThreadGraph } from './messages.ts';
import {
  afterDamage,
  MappedFile,
  type Origin,
  type PackedWeights,
  placeOf,
  provide,
  release,
} from './packedWeights.ts';
import { defaultThreads, measuredThreads } from './threads.ts';

export interface OnnxOptions {
  /**
   * Whether quantised matmuls quantise activations to int8 per block, as llama.cpp does. Much faster; tests of the
   * graph's arithmetic turn it off.
   */
  readonly roundActivations: boolean;
  /** Used if the load options name none. Default: f16, as in other engines. */
  readonly cachePrecision?: CachePrecision;
}

export const onnxBackend: Backend = createOnnxBackend({ roundActivations: true });

export function createOnnxBackend({ roundActivations, cachePrecision = 'f16' }: OnnxOptions): Backend {
  return {
    name: 'onnx',
    async load(spec, weights, options) {
      const precision = options.cachePrecision ?? cachePrecision;
      const asked = options.contextTokens;
      const needs = hostNeeds(spec, describeModel({ spec, weights }).weightBytes, precision);
      const memory = planMemory(needs, hostMemory(), asked);
      const place = await placeOf(options);
      // Starts early: the thread loads the runtime while the graph is built.
      const thread = new ThreadClient();
      try {
        const accuracyLevel = roundActivations ? 4 : 0;
        const cacheType = processorPrecision(precision) === 'f32' ? 'float32' : 'float16';
        const graph = buildDecoderGraph(spec, weights, { weightsFile: place.file, accuracyLevel, cacheType });
        const origin = await provide(graph.layout, place, options);
        throwIfAborted(options.signal);
        const mapped = await MappedFile.of(place);
        const loading = thread.ask({ kind: 'load', graph: await threadGraph(graph, place, thread, options) });
        options.meanwhile?.();
        await loading;
        return new OnnxDecoder({
          spec,
          ...memory,
          notes: [
            ...graph.notes,
            ...repairNotes(origin),
            ...cacheNotes(precision),
            ...memoryNotes(memory, asked ?? needs.longestTokens),
          ],
          windowGroups: graph.inputs.windowGroups,
          layers: graph.inputs.layers,
          weightBytes: graph.layout.byteLength,
          thread,
          weightsChanged: () => mapped.isChanged(),
          damage: (changed) => afterDamage(place, changed || origin === 'kept'),
          cleanUp: () => release(place, options),
        });
      } catch (error) {
        thread.tell({ kind: 'end' });
        await release(place, options);
        throw error;
      }
    },
  };
}

function memoryNotes({ contextTokens, isCrowded }: MemoryPlan, wanted: number): string[] {
  if (isCrowded) return ['Other programs use memory that this model needs. It will be slow until some are closed.'];
  const note = `The context is ${contextTokens} of ${wanted} tokens: as many as fit the available memory.`;
  return contextTokens < wanted ? [note] : [];
}

function repairNotes(origin: Origin): string[] {
  return origin === 'repaired' ? ['The packed weights were damaged and have been built again from the model.'] : [];
}

function cacheNotes(asked: CachePrecision): string[] {
  const notes = {
    f32: [],
    f16: ['The KV cache is f16.'],
    q8: ['The KV cache is f16: the CPU backend has no smaller precision.'],
  };
  return notes[asked];
}

async function threadGraph(
  { model, inputs }: DecoderGraph,
  { directory, kept }: PackedWeights,
  thread: ThreadClient,
  options: LoadOptions,
): Promise<ThreadGraph> {
  const measure = async (threads: number): Promise<number> => {
    const { values } = await thread.ask({ kind: 'measure', threads });
    return values[0]?.[0] ?? Number.NaN;
  };
  // A temporary folder can't keep the measurement, so it isn't worth making.
  const threads = options.threads ?? (kept ? await measuredThreads(directory, measure) : defaultThreads());
  return { model, weightsDirectory: directory, threads, inputs };
}
