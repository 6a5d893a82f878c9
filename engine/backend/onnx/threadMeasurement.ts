/** How many threads compute a token fastest on this machine, by trying; what was found is kept beside the packed weights. */
import { readFile, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { defaultThreads } from './threads.ts';

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
