/** How many threads compute: one for each physical core that this process may use. */
import { readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { z } from 'zod';
import { GraphBuilder } from './graphBuilder.ts';

export function defaultThreads(): number {
  return Math.max(1, Math.min(availableParallelism(), physicalCores()));
}

/** A second thread on a core shares its arithmetic units and only gets in the way. */
function physicalCores(): number {
  const logical = cpus().length;
  if (process.platform === 'linux') return coresOfCpuInfo(readCpuInfo()) ?? logical;
  // Intel Macs and Windows machines mostly have two threads a core; ARM ones have one.
  return process.arch === 'x64' ? Math.ceil(logical / 2) : logical;
}

function readCpuInfo(): string {
  try {
    return readFileSync('/proc/cpuinfo', 'utf8');
  } catch {
    return '';
  }
}

/** Distinct pairs of package and core in /proc/cpuinfo; undefined where it does not tell (ARM). */
export function coresOfCpuInfo(text: string): number | undefined {
  const cores = new Set<string>();
  for (const processor of text.split('\n\n')) {
    const value = (key: string) => new RegExp(`^${key}\\s*: (\\d+)$`, 'm').exec(processor)?.[1];
    const core = value('core id');
    if (core !== undefined) cores.add(`${value('physical id')}/${core}`);
  }
  return cores.size || undefined;
}

// How many threads compute a token fastest on this machine, by trying; what was found is kept beside the packed weights.

const kept = z.object({ machine: z.string(), threads: z.int().positive() });

/** Measurements vary: anything else than a thread a core has to be faster by this. */
const worthwhile = 1.1;

/**
 * @param directory where the answer is kept; it is asked for anew on another processor.
 * @param measure milliseconds of a product with that many threads (productTime.ts).
 */
export async function measuredThreads(
  directory: string,
  measure: (threads: number) => Promise<number>,
  candidates: readonly number[] = threadCandidates(),
): Promise<number> {
  const [usual = 1, ...others] = candidates;
  if (others.length === 0) return usual;
  const machine = `${cpus()[0]?.model ?? ''}: ${candidates.join(', ')}`;
  const path = join(directory, 'threads.json');
  const known = await readKept(path);
  if (known?.machine === machine) return known.threads;
  let best = { threads: usual, ms: (await measure(usual)) / worthwhile };
  for (const threads of others) {
    const ms = await measure(threads);
    if (ms < best.ms) best = { threads, ms };
  }
  // Without it the next load measures again.
  await writeFile(path, JSON.stringify({ machine, threads: best.threads })).catch(() => undefined);
  return best.threads;
}

/** One a core first; then one for each thread of the processor, and half: some cores may be slow ones. */
function threadCandidates(): number[] {
  const cores = defaultThreads();
  return [...new Set([cores, availableParallelism(), Math.ceil(cores / 2)])];
}

async function readKept(path: string): Promise<z.infer<typeof kept> | undefined> {
  try {
    return kept.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch {
    return undefined;
  }
}

// How long a product takes that is bound by memory, as decoding is.

/** Rows and columns of f32: 64 MB, which no cache holds. */
const size = 4096;
const runs = 7;

/** Of a vector and a matrix that has to come from memory. The median of some runs, in milliseconds. */
export async function productMs(threads: number): Promise<number> {
  const graph = new GraphBuilder('');
  const vector = graph.input('vector', 'float32', [1, size]);
  const matrix = graph.input('matrix', 'float32', [size, size]);
  graph.output(graph.op('MatMul', [vector, matrix]), 'product', 'float32', [1, size]);
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
  for (let run = 0; run < runs; run++) {
    const start = performance.now();
    await session.run(feeds);
    times.push(performance.now() - start);
  }
  await session.release();
  return times.sort((a, b) => a - b)[runs >> 1] ?? 0;
}
