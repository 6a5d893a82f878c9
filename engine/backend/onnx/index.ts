/**
 * The CPU backend: builds an ONNX graph from a decoder's spec and runs it with ONNX Runtime. Start reading at
 * decoderGraph.ts; attention.ts explains how the KV cache avoids copies.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { throwIfAborted } from '../../errors.ts';
import { processorPrecision } from '../../model/spec/spec.ts';
import type { CachePrecision } from '../../protocol/models.ts';
import type { Backend, LoadOptions } from '../backend.ts';
import { hostMemory, planMemory } from '../memoryPlan.ts';
import { cacheNotes, hostNeeds, memoryNotes, ProcessorDecoder } from '../processor/decoder.ts';
import { ThreadClient } from '../processor/threadClient.ts';
import { defaultThreads } from '../processor/threads.ts';
import { buildDecoderGraph, type DecoderGraph } from './decoderGraph.ts';
import type { OnnxMessage, ThreadGraph } from './graphThread.ts';
import {
  afterDamage,
  MappedFile,
  type Origin,
  type PackedWeights,
  placeOf,
  provide,
  release,
} from './packedWeights.ts';
import { packedBytesOf } from './weightsFile.ts';

export interface OnnxOptions {
  /**
   * Whether quantised matmuls quantise activations to int8 per block, as llama.cpp does. Much faster; tests of the
   * graph's arithmetic turn it off.
   */
  readonly roundActivations: boolean;
  /** Used if the load options name none. Default: f16, as in other engines. */
  readonly cachePrecision?: CachePrecision;
}

/** In builds, the thread is a separate bundle beside the engine's. */
const workerFile = new URL(import.meta.url.endsWith('.ts') ? './graphThread.ts' : './onnxWorker.mjs', import.meta.url);

export const onnxBackend: Backend = createOnnxBackend({ roundActivations: true });

export function createOnnxBackend({ roundActivations, cachePrecision = 'f16' }: OnnxOptions): Backend {
  return {
    name: 'onnx',
    async load(spec, weights, options) {
      const precision = options.cachePrecision ?? cachePrecision;
      const asked = options.contextTokens;
      const needs = hostNeeds(spec, packedBytesOf(weights), 'onnx', precision);
      const memory = planMemory(needs, hostMemory(), asked, options.besideOthers);
      const place = await placeOf(options);
      // Starts early: the thread loads the runtime while the graph is built.
      const thread = new ThreadClient<OnnxMessage>(workerFile, 'ONNX Runtime');
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
        return new ProcessorDecoder({
          backend: 'onnx',
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
          states: graph.inputs.states,
          weightBytes: graph.layout.byteLength,
          thread,
          cacheOrder: 'ranges of 64',
          mapped: {
            isChanged: () => mapped.isChanged(),
            damage: (changed) => afterDamage(place, changed || origin === 'kept'),
            cleanUp: () => release(place, options),
          },
        });
      } catch (error) {
        thread.tell({ kind: 'end' });
        await release(place, options);
        throw error;
      }
    },
  };
}

function repairNotes(origin: Origin): string[] {
  return origin === 'repaired' ? ['The packed weights were damaged and have been built again from the model.'] : [];
}

async function threadGraph(
  { model, inputs }: DecoderGraph,
  { directory, kept }: PackedWeights,
  thread: ThreadClient<OnnxMessage>,
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

// The fastest number of compute threads, as measured once. The result is stored beside the packed weights.

const measurement = z.object({ machine: z.string(), threads: z.int().positive() });

/** Other thread counts than one a core must be faster by this factor, because measurements vary. */
const minSpeedup = 1.1;

/**
 * @param directory where the result is stored; it is measured again on another processor.
 * @param measure milliseconds of a matmul with that many threads (`matmulMs`).
 */
export async function measuredThreads(
  directory: string,
  measure: (threads: number) => Promise<number>,
  candidates: readonly number[] = threadCandidates(),
): Promise<number> {
  const [defaultCount = 1, ...others] = candidates;
  if (others.length === 0) return defaultCount;
  const machine = `${cpus()[0]?.model ?? ''}: ${candidates.join(', ')}`;
  const path = join(directory, 'threads.json');
  const known = await readMeasurement(path);
  if (known?.machine === machine) return known.threads;
  let best = { threads: defaultCount, ms: (await measure(defaultCount)) / minSpeedup };
  for (const threads of others) {
    const ms = await measure(threads);
    if (ms < best.ms) best = { threads, ms };
  }
  // If it can't be stored, the next load measures again.
  await writeFile(path, JSON.stringify({ machine, threads: best.threads })).catch(() => undefined);
  return best.threads;
}

/** One thread a core, one a hardware thread, and half the cores (some cores may be slow ones). */
function threadCandidates(): number[] {
  const cores = defaultThreads();
  return [...new Set([cores, availableParallelism(), Math.ceil(cores / 2)])];
}

async function readMeasurement(path: string): Promise<z.infer<typeof measurement> | undefined> {
  try {
    return measurement.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch {
    return undefined;
  }
}
