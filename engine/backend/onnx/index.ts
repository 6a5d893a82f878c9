/**
 * The CPU backend: builds an ONNX graph from a decoder's spec and runs it with ONNX Runtime. Start reading at
 * decoderGraph.ts; attention.ts explains how the KV cache avoids copies.
 */
import { mkdir, mkdtemp, rename, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HearthError, throwIfAborted } from '../../errors.ts';
import { describeModel } from '../../model/spec/describe.ts';
import { processorPrecision } from '../../model/spec/spec.ts';
import type { CachePrecision } from '../../protocol/engineProtocol.ts';
import type { Backend, LoadOptions } from '../backend.ts';
import { hostMemory } from '../hostMemory.ts';
import { type MemoryPlan, planMemory } from '../memoryPlan.ts';
import { hostNeeds, OnnxDecoder, ThreadClient } from './decoder.ts';
import { buildDecoderGraph, type DecoderGraph } from './decoderGraph.ts';
import type { ThreadGraph } from './messages.ts';
import { defaultThreads, measuredThreads } from './threads.ts';
import { weightsFileVersion } from './weightsFile.ts';

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
      const place = await weightsPlace(options);
      // Starts early: the thread loads the runtime while the graph is built.
      const thread = new ThreadClient();
      try {
        const accuracyLevel = roundActivations ? 4 : 0;
        const cacheType = processorPrecision(precision) === 'f32' ? 'float32' : 'float16';
        const graph = buildDecoderGraph(spec, weights, { weightsFile: place.file, accuracyLevel, cacheType });
        await writeWeights(graph, place, options);
        throwIfAborted(options.signal);
        const loading = thread.ask({ kind: 'load', graph: await threadGraph(graph, place, thread, options) });
        options.meanwhile?.();
        await loading;
        return new OnnxDecoder({
          spec,
          ...memory,
          notes: [...graph.notes, ...cacheNotes(precision), ...memoryNotes(memory, asked ?? needs.longestTokens)],
          windowGroups: graph.inputs.windowGroups,
          layers: graph.inputs.layers,
          weightBytes: graph.layout.byteLength,
          thread,
          cleanUp: () => cleanUp(place),
        });
      } catch (error) {
        thread.tell({ kind: 'end' });
        await cleanUp(place);
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

function cacheNotes(asked: CachePrecision): string[] {
  const notes = {
    f32: [],
    f16: ['The KV cache is f16.'],
    q8: ['The KV cache is f16: the CPU backend has no smaller precision.'],
  };
  return notes[asked];
}

/** Location of the weights file. */
interface Place {
  readonly directory: string;
  readonly file: string;
  /** Whether the file outlives the decoder. */
  readonly kept: boolean;
}

async function weightsPlace({ cacheDirectory, digest }: LoadOptions): Promise<Place> {
  if (cacheDirectory === undefined || digest === undefined) {
    return { directory: await mkdtemp(join(tmpdir(), 'hearth-onnx-')), file: 'weights', kept: false };
  }
  await mkdir(cacheDirectory, { recursive: true }).catch((error: unknown) => {
    throw new HearthError('unavailable', `The folder ${cacheDirectory} for packed weights cannot be created.`, {
      cause: error,
    });
  });
  return { directory: cacheDirectory, file: `${digest}.onnx${weightsFileVersion}.weights`, kept: true };
}

async function writeWeights({ layout }: DecoderGraph, place: Place, options: LoadOptions): Promise<void> {
  const path = join(place.directory, place.file);
  const totalBytes = layout.sourceBytes;
  const isThere = await stat(path).then(
    ({ size }) => size === layout.byteLength,
    () => false,
  );
  if (!isThere) {
    const partial = `${path}.${process.pid}.partial`;
    let doneBytes = 0;
    const onBytes = (bytes: number) => {
      doneBytes += bytes;
      options.onProgress?.({ doneBytes, totalBytes });
    };
    try {
      await layout.write(partial, onBytes, options.signal);
      await rename(partial, path);
    } finally {
      await rm(partial, { force: true });
    }
  }
  options.onProgress?.({ doneBytes: totalBytes, totalBytes });
}

async function threadGraph(
  { model, inputs }: DecoderGraph,
  { directory, kept }: Place,
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

async function cleanUp({ directory, kept }: Place): Promise<void> {
  if (!kept) await rm(directory, { recursive: true, force: true });
}
