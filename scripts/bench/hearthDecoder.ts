/** Hearth's side of the speed comparison: greedy requests to the CPU backend, without a tokenizer. */
import { SpeedMeter } from '../../engine/cli/decoder.ts';
import { openModel } from '../../engine/model/open.ts';
import { cacheBytes, describeModel } from '../../engine/model/spec/describe.ts';
import { loadDecoder } from '../../engine/runtime/backends.ts';
import type { Speeds, Workload } from './workload.ts';

export interface HearthDecoder {
  /** Measure depths in ascending order, so that cached tokens are reused. */
  measure(workload: Workload): Promise<Speeds>;
  /** KV cache bytes read for a token at this depth: as the decoder reports them, and in f16. */
  cacheBytes(tokens: number): { readonly own: number; readonly inHalves: number };
  /** Weight bytes read for a token. */
  readonly weightBytes: number;
  close(): Promise<void>;
}

export async function openHearth(path: string, contextTokens: number, threads: number): Promise<HearthDecoder> {
  const model = await openModel(path);
  const { decoder } = await loadDecoder('cpu', model.spec, model.weights, { contextTokens, threads });
  const { activeWeightBytes: weightBytes } = describeModel(model);
  const meter = new SpeedMeter(decoder);
  const prefill = async ({ depthTokens, promptTokens }: Workload): Promise<number> =>
    (await meter.measure({ depthTokens, promptTokens, tokens: 0 })).prefillTokensPerSecond;
  const decode = async ({ depthTokens, decodeTokens }: Workload): Promise<number> =>
    (await meter.measure({ depthTokens, promptTokens: 1, tokens: decodeTokens })).decodeTokensPerSecond;
  // Warm-up, as in llama-bench.
  await meter.measure({ depthTokens: 0, promptTokens: 8, tokens: 1 });
  return {
    weightBytes,
    async measure(workload) {
      const speeds: { prefill: number[]; decode: number[] } = { prefill: [], decode: [] };
      for (let i = 0; i < workload.samples; i++) {
        speeds.prefill.push(await prefill(workload));
        speeds.decode.push(await decode(workload));
      }
      return speeds;
    },
    cacheBytes: (tokens) => ({
      own: cacheBytes(decoder.spec, tokens, decoder.memory().cacheBytesPerValue),
      inHalves: cacheBytes(decoder.spec, tokens, 2),
    }),
    async close() {
      await decoder.dispose();
      await model.file.close();
    },
  };
}
