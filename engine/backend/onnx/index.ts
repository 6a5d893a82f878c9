/**
 * The CPU backend: builds an ONNX graph from a decoder's spec and lets ONNX Runtime compute it. Start reading at
 * decoderGraph.ts; attention.ts says how the key-value cache avoids copies.
 */
import { mkdir, mkdtemp, rename, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HearthError, throwIfAborted } from '../../errors.ts';
import type { Backend, LoadOptions } from '../backend.ts';
import { OnnxDecoder } from './decoder.ts';
import { buildDecoderGraph, type DecoderGraph } from './decoderGraph.ts';
import { ThreadClient } from './threadClient.ts';
import { defaultThreads } from './threads.ts';
import { weightsFileVersion } from './weightsFile.ts';

export interface OnnxOptions {
  /**
   * Whether products with quantised weights round the other factor to 8-bit integers, block by block, as llama.cpp
   * does. Much faster; tests of the graph's arithmetic do without.
   */
  readonly roundActivations: boolean;
}

export const onnxBackend: Backend = createOnnxBackend({ roundActivations: true });

export function createOnnxBackend({ roundActivations }: OnnxOptions): Backend {
  return {
    name: 'onnx',
    async load(spec, weights, options) {
      const place = await weightsPlace(options);
      try {
        const accuracyLevel = roundActivations ? 4 : 0;
        const graph = buildDecoderGraph(spec, weights, { weightsFile: place.file, accuracyLevel });
        await writeWeights(graph, place, options);
        throwIfAborted(options.signal);
        const thread = await startThread(graph, place, options);
        return new OnnxDecoder({
          spec,
          contextTokens: options.contextTokens,
          notes: [...graph.notes, ...cacheNotes(options)],
          spans: graph.plan.spans,
          layers: graph.plan.layers,
          weightBytes: graph.layout.byteLength,
          thread,
          cleanUp: () => cleanUp(place),
        });
      } catch (error) {
        await cleanUp(place);
        throw error;
      }
    },
  };
}

function cacheNotes({ cachePrecision = 'f32' }: LoadOptions): string[] {
  return cachePrecision === 'f32' ? [] : ['Keys and values are kept as 32-bit floats: the CPU has no smaller cache.'];
}

/** Where the file of weights lies. */
interface Place {
  readonly directory: string;
  readonly file: string;
  /** Whether it outlives the decoder. */
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

async function startThread({ model, plan }: DecoderGraph, place: Place, options: LoadOptions): Promise<ThreadClient> {
  const thread = new ThreadClient();
  // A folder that is thrown away keeps no measurement: not worth one then.
  const threads = options.threads ?? (place.kept ? 'measured' : defaultThreads());
  try {
    await thread.ask({ kind: 'load', graph: { model, weightsDirectory: place.directory, threads, plan } });
    return thread;
  } catch (error) {
    thread.tell({ kind: 'end' });
    throw error;
  }
}

async function cleanUp({ directory, kept }: Place): Promise<void> {
  if (!kept) await rm(directory, { recursive: true, force: true });
}
