/** Hearth's side of the comparison of speeds: the CPU backend without tokenizer and sampler. */
import { onnxBackend } from '../../engine/backend/onnx/index.ts';
import { openModel } from '../../engine/model/open.ts';
import { describeModel } from '../../engine/model/spec/describe.ts';
import { cacheBytes } from '../../engine/model/spec/inspect.ts';
import { perSecond, type Speeds, someTokens, type Workload } from './workload.ts';

export interface HearthDecoder {
  /** Quickest by ascending depth: what is cached stays. */
  measure(workload: Workload): Promise<Speeds>;
  /** Of keys and values, that a token behind so many others reads: by the decoder's own account, and in f16. */
  cacheBytes(tokens: number): { readonly own: number; readonly inHalves: number };
  /** Of the file's weights, that a token reads. */
  readonly weightBytes: number;
  close(): Promise<void>;
}

export async function openHearth(path: string, contextTokens: number, threads: number): Promise<HearthDecoder> {
  const model = await openModel(path);
  const decoder = await onnxBackend.load(model.spec, model.weights, { contextTokens, threads });
  const { activeWeightBytes: weightBytes } = describeModel(model);
  await model.file.close();
  const sequence = decoder.createSequence();

  /** @returns milliseconds that `tokens` take, in as few runs as the decoder allows. */
  const feed = async (tokens: readonly number[]): Promise<number> => {
    const start = performance.now();
    for (let at = 0; at < tokens.length; at += decoder.maxTokensPerRun) {
      await decoder.run([{ sequence, tokens: tokens.slice(at, at + decoder.maxTokensPerRun), logits: 'last' }]);
    }
    return performance.now() - start;
  };
  /** A sliding window may hold too little to go back by. */
  const goTo = async (depthTokens: number): Promise<void> => {
    const kept = sequence.truncate(depthTokens);
    await feed(someTokens(depthTokens).slice(kept));
  };
  const prefill = async ({ depthTokens, promptTokens }: Workload): Promise<number> => {
    await goTo(depthTokens);
    return perSecond(promptTokens, await feed(someTokens(promptTokens)));
  };
  const decode = async ({ depthTokens, decodeTokens }: Workload): Promise<number> => {
    // The first step after a pause wakes threads up; llama-bench warms up as well.
    await goTo(depthTokens + 1);
    let ms = 0;
    for (const token of someTokens(decodeTokens)) ms += await feed([token]);
    return perSecond(decodeTokens, ms);
  };
  await feed(someTokens(8));
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
    close: () => decoder.dispose(),
  };
}
