/** The fastest number of compute threads, as measured. */
import { readFile, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { z } from 'zod';
import { defaultThreads } from '../processor/threads.ts';
import { GraphBuilder } from './graphBuilder.ts';

// The result is stored beside the packed weights.

const measurement = z.object({ machine: z.string(), threads: z.int().positive() });

/** Another number of threads than one a core must be faster by this factor, because measurements vary. */
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

// Times a memory-bound matmul, which decode consists of.

/** Rows and columns of the f32 matrix: 64 MB, larger than any processor cache. */
const size = 4096;
const repetitions = 7;

/** Times a vector times a matrix that doesn't fit the processor's caches. @returns the median in milliseconds. */
export async function matmulMs(threads: number): Promise<number> {
  const graph = new GraphBuilder('');
  const vector = graph.input('vector', 'float32', [1, size]);
  const matrix = graph.input('matrix', 'float32', [size, size]);
  graph.output(graph.op('MatMul', [vector, matrix]), 'output', 'float32', [1, size]);
  const session = await InferenceSession.create(graph.encode(), {
    executionProviders: ['cpu'],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
  });
  const feeds = {
    vector: new Tensor('float32', new Float32Array(size).fill(1), [1, size]),
    matrix: new Tensor('float32', new Float32Array(size * size).fill(1), [size, size]),
  };
  const times: number[] = [];
  for (let run = 0; run < repetitions; run++) {
    const start = performance.now();
    await session.run(feeds);
    times.push(performance.now() - start);
  }
  await session.release();
  return times.sort((a, b) => a - b)[repetitions >> 1] ?? 0;
}
