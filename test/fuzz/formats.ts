/**
 * Mutates model files at random and counts the readers' results: `npm run fuzz:formats -- --count 1000000 [--seed 1]
 * [--seconds 480] [--only NUMBER]`. A worker reads the mutants, so that a hang or memory exhaustion is detected, counted and
 * skipped. Exits with 1 if any mutant caused a fault. `--only` runs a single mutant in a debugger.
 */
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { judge, makeMutant, type Verdict } from './mutants.ts';

const slowMs = 1000;
const hangMs = 10_000;
const extraBytes = 64 * 2 ** 20;

interface Task {
  readonly campaign: number;
  readonly first: number;
  readonly count: number;
  /** Number of the current mutant. */
  readonly progress: Int32Array;
}

interface Outcome {
  readonly verdicts: Record<Verdict, number>;
  readonly faultCount: number;
  /** The first faults. */
  readonly faults: readonly string[];
  readonly slowestMs: number;
  readonly largestGrowthBytes: number;
}

const maxFaultsKept = 20;

/** Peak resident memory of the process. It never decreases, so an increase belongs to the current mutant. */
const peakBytes = (): number => process.resourceUsage().maxRSS * 1024;

function runTask({ campaign, first, count, progress }: Task): Outcome {
  const verdicts: Record<Verdict, number> = { accepted: 0, 'invalid-input': 0, unsupported: 0 };
  const faults: string[] = [];
  let faultCount = 0;
  const fault = (number: number, what: string): void => {
    faultCount++;
    if (faults.length < maxFaultsKept) faults.push(`mutant ${number}: ${what}`);
  };
  let slowestMs = 0;
  let largestGrowthBytes = 0;
  for (let number = first; number < first + count; number++) {
    Atomics.store(progress, 0, number);
    const mutant = makeMutant(campaign, number);
    const peak = peakBytes();
    const started = performance.now();
    try {
      verdicts[judge(mutant)]++;
    } catch (error) {
      fault(number, error instanceof Error ? (error.stack ?? error.message) : String(error));
    }
    const elapsed = performance.now() - started;
    const growth = peakBytes() - peak;
    slowestMs = Math.max(slowestMs, elapsed);
    largestGrowthBytes = Math.max(largestGrowthBytes, growth);
    if (elapsed > slowMs) fault(number, `took ${elapsed.toFixed(0)} ms`);
    if (growth > mutant.bytes.byteLength + extraBytes) fault(number, `took ${growth} bytes of memory`);
  }
  return { verdicts, faultCount, faults, slowestMs, largestGrowthBytes };
}

/** Runs one worker's share. A hang or crash ends it early; it counts as a fault, and the caller continues after it. */
function runInWorker(task: Task): Promise<{ readonly outcome?: Outcome; readonly fault?: string }> {
  return new Promise((resolve) => {
    const worker = new Worker(new URL(import.meta.url), {
      workerData: task,
      resourceLimits: { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 8 },
    });
    let last = -1;
    let since = performance.now();
    const watch = setInterval(() => {
      const current = Atomics.load(task.progress, 0);
      if (current !== last) [last, since] = [current, performance.now()];
      else if (performance.now() - since > hangMs) finish({ fault: 'hangs' });
    }, 500);
    const finish = (result: { readonly outcome?: Outcome; readonly fault?: string }): void => {
      clearInterval(watch);
      void worker.terminate();
      resolve(result);
    };
    worker.on('message', (outcome: Outcome) => finish({ outcome }));
    worker.on('error', (error) => finish({ fault: `crashed: ${error.message}` }));
  });
}

async function campaignOf(campaign: number, total: number, seconds: number): Promise<number> {
  const progress = new Int32Array(new SharedArrayBuffer(4));
  const share = 50_000;
  const started = performance.now();
  const verdicts: Record<Verdict, number> = { accepted: 0, 'invalid-input': 0, unsupported: 0 };
  const faults: string[] = [];
  let faultCount = 0;
  let [done, slowestMs, largestGrowthBytes, basePeak] = [0, 0, 0, 0];
  while (done < total && performance.now() - started < seconds * 1000) {
    const count = Math.min(share, total - done);
    const { outcome, fault } = await runInWorker({ campaign, first: done, count, progress });
    if (outcome === undefined) {
      const number = Atomics.load(progress, 0);
      faults.push(`mutant ${number} ${fault}`);
      faultCount++;
      done = number + 1;
      continue;
    }
    for (const verdict of ['accepted', 'invalid-input', 'unsupported'] as const)
      verdicts[verdict] += outcome.verdicts[verdict];
    faults.push(...outcome.faults);
    faultCount += outcome.faultCount;
    slowestMs = Math.max(slowestMs, outcome.slowestMs);
    largestGrowthBytes = Math.max(largestGrowthBytes, outcome.largestGrowthBytes);
    // By the end of the first share, all code is loaded and compiled.
    if (basePeak === 0) basePeak = peakBytes();
    done += count;
  }
  console.log(`mutants ${done}, campaign ${campaign}, ${((performance.now() - started) / 1000).toFixed(0)} s`);
  console.log(
    `accepted and sound ${verdicts.accepted}, invalid-input ${verdicts['invalid-input']}, unsupported ${verdicts.unsupported}`,
  );
  console.log(`faults (crash, hang, untyped error, over ${slowMs} ms, over file + 64 MiB): ${faultCount}`);
  console.log(
    `slowest ${slowestMs.toFixed(1)} ms; peak memory grew by at most ${mib(largestGrowthBytes)} MiB in one mutant,`,
  );
  console.log(
    `by ${mib(peakBytes() - basePeak)} MiB over all mutants after the first ${Math.min(share, done)}, to ${mib(peakBytes())} MiB`,
  );
  for (const fault of faults.slice(0, maxFaultsKept)) console.error(fault);
  return faultCount;
}

const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);

if (isMainThread) {
  const { values } = parseArgs({
    options: {
      count: { type: 'string', default: '100000' },
      seed: { type: 'string', default: '1' },
      seconds: { type: 'string', default: '86400' },
      only: { type: 'string' },
    },
  });
  if (values.only !== undefined) console.log(judge(makeMutant(Number(values.seed), Number(values.only))));
  else if ((await campaignOf(Number(values.seed), Number(values.count), Number(values.seconds))) > 0)
    process.exitCode = 1;
} else {
  parentPort?.postMessage(runTask(workerData as Task));
}
