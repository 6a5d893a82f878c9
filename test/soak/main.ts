/** `npm run soak -- [--requests N] [--seed N] [--backend onnx|reference]`. Exits with 1 if a request was lost or memory grew. */
import { parseArgs } from 'node:util';
import { type MemorySample, soak } from './soak.ts';

const { values } = parseArgs({
  options: {
    requests: { type: 'string', default: '10000' },
    seed: { type: 'string', default: '1' },
    backend: { type: 'string', default: 'onnx' },
  },
});

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);
const mean = (samples: readonly MemorySample[]): number =>
  samples.reduce((sum, { residentBytes }) => sum + residentBytes, 0) / samples.length;

const result = await soak({
  requests: Number(values.requests),
  seed: Number(values.seed),
  backend: values.backend === 'reference' ? 'reference' : 'onnx',
  onSample: ({ requests, residentBytes, heapBytes, cacheBytes }) =>
    console.log(
      `${requests} requests: ${megabytes(residentBytes)} MB resident, ${megabytes(heapBytes)} MB heap, ${megabytes(cacheBytes)} MB of keys and values`,
    ),
});
const { finished, cancelled, failed, unexpected, samples, pending, tookMs } = result;
// Memory growth during the first third is normal warm-up.
const warm = samples.slice(Math.ceil(samples.length / 3));
const half = Math.floor(warm.length / 2);
const growth = mean(warm.slice(half)) / mean(warm.slice(0, half)) - 1;
const stopped = Object.values(cancelled).reduce((sum, count) => sum + count, 0);
const lost = Number(values.requests) - finished - stopped - failed - unexpected.length;
console.log(
  `${finished} finished, ${stopped} cancelled (${Object.entries(cancelled)
    .map(([stage, count]) => `${count} ${stage}`)
    .join(
      ', ',
    )}), ${failed} failed as they should, ${unexpected.length} otherwise, ${lost} lost, ${pending} pending; ${(tookMs / 1000).toFixed(0)} s`,
);
console.log(`resident memory after the first third: ${(100 * growth).toFixed(2)} % from its first to its second half`);
for (const line of unexpected.slice(0, 20)) console.error(line);
process.exitCode = unexpected.length > 0 || lost > 0 || pending > 0 || growth > 0.02 ? 1 : 0;
