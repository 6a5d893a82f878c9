/** Hearth's side of the benchmark: the CPU backend without tokenizer and sampler. */
import { mkdirSync } from 'node:fs';
import { onnxBackend } from '../../engine/backend/onnx/index.ts';
import { openModel } from '../../engine/model/open.ts';
import type { Speeds, Workload } from '../bench.ts';

export interface HearthBench {
  measure(): Promise<Speeds>;
  close(): Promise<void>;
}

/** Ids that every vocabulary has; which ones makes no difference to the work. */
const tokensFor = (count: number): number[] => Array.from({ length: count }, (_, i) => 3 + ((i * 37) % 200));

export async function openHearth(path: string, workload: Workload): Promise<HearthBench> {
  const { promptTokens, decodeTokens, depthTokens, threads } = workload;
  const model = await openModel(path);
  mkdirSync('.cache/bench', { recursive: true });
  const contextTokens = Math.max(promptTokens, depthTokens + decodeTokens + 1);
  const decoder = await onnxBackend.load(model.spec, model.weights, { contextTokens, threads });
  await model.file.close();

  /** Milliseconds that `tokens` take, in as few runs as the decoder allows. */
  const feed = async (sequence: ReturnType<typeof decoder.createSequence>, tokens: readonly number[]) => {
    const start = performance.now();
    for (let at = 0; at < tokens.length; at += decoder.maxTokensPerRun) {
      const piece = tokens.slice(at, at + decoder.maxTokensPerRun);
      await decoder.run([{ sequence, tokens: piece, logits: 'last' }]);
    }
    return performance.now() - start;
  };

  const measure = async (): Promise<Speeds> => {
    const prompt = decoder.createSequence();
    const prefillMs = await feed(prompt, tokensFor(promptTokens));
    prompt.dispose();
    const sequence = decoder.createSequence();
    // The first step after a pause wakes threads up; llama-bench warms up as well.
    await feed(sequence, tokensFor(depthTokens + 1));
    let decodeMs = 0;
    for (const token of tokensFor(decodeTokens)) decodeMs += await feed(sequence, [token]);
    sequence.dispose();
    return { prefill: (promptTokens * 1000) / prefillMs, decode: (decodeTokens * 1000) / decodeMs };
  };
  await measure();
  return { measure, close: () => decoder.dispose() };
}
