/** `npm run soak -- [--requests N] [--seed N] [--kills N] [--backend onnx|reference]`. Exits with 1 if a request was lost or memory grew. */
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { type MemorySample, soak } from './soak.ts';

const { values } = parseArgs({
  options: {
    requests: { type: 'string', default: '10000' },
    seed: { type: 'string', default: '1' },
    kills: { type: 'string', default: '100' },
    backend: { type: 'string', default: 'onnx' },
  },
});

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);
const mean = (samples: readonly MemorySample[]): number =>
  samples.reduce((sum, { residentBytes }) => sum + residentBytes, 0) / samples.length;

const result = await soak({
  requests: Number(values.requests),
  seed: Number(values.seed),
  kills: Number(values.kills),
  backend: values.backend === 'reference' ? 'reference' : 'onnx',
  onSample: ({ requests, residentBytes, heapBytes, cacheBytes, handles, threads }) =>
    console.log(
      `${requests} requests: ${megabytes(residentBytes)} MB resident, ${megabytes(heapBytes)} MB heap, ${megabytes(cacheBytes)} MB of keys and values, ${handles} handles, ${threads} threads`,
    ),
});
const { finished, cancelled, failed, broken, unexpected, samples, pending, tookMs, completionMs, cancelMs } = result;
// Memory growth during the first third is normal warm-up.
const warm = samples.slice(Math.ceil(samples.length / 3));
const half = Math.floor(warm.length / 2);
const growth = mean(warm.slice(half)) / mean(warm.slice(0, half)) - 1;
const stopped = Object.values(cancelled).reduce((sum, count) => sum + count, 0);
const lost = Number(values.requests) - finished - stopped - failed - broken - unexpected.length;
console.log(
  `${finished} finished, ${stopped} cancelled (${Object.entries(cancelled)
    .map(([stage, count]) => `${count} ${stage}`)
    .join(
      ', ',
    )}), ${failed} failed as they should, ${unexpected.length} otherwise, ${lost} lost, ${pending} pending; ${(tookMs / 1000).toFixed(0)} s`,
);
console.log(
  `${result.remote} were sent to the server, which was killed ${result.kills} times; that broke ${broken} off`,
);
const p95 = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(0.95 * values.length)] ?? 0;
const quarter = Math.floor(completionMs.length / 4);
console.log(
  `p95 of a completion beside the others: ${p95(completionMs.slice(0, quarter)).toFixed(0)} ms in the first quarter, ${p95(completionMs.slice(-quarter)).toFixed(0)} ms in the last; load of the machine ${loadavg()
    .map((load) => load.toFixed(1))
    .join(', ')}`,
);
console.log(
  `cancelled requests ended within ${p95(cancelMs).toFixed(0)} ms (p95), ${Math.max(0, ...cancelMs).toFixed(0)} ms (all)`,
);
console.log(`resident memory after the first third: ${(100 * growth).toFixed(2)} % from its first to its second half`);
for (const line of unexpected.slice(0, 20)) console.error(line);
process.exitCode = unexpected.length > 0 || lost > 0 || pending > 0 || growth > 0.02 ? 1 : 0;
