/** Hearth's side of the GPU benchmark, a process of its own: node hearth.mjs FILE WORKLOAD prints one JSON value. */
import type { Decoder, Sequence } from '../../engine/backend/backend.ts';
import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { answer } from '../../engine/cli/bench.ts';
import { openModel } from '../../engine/model/open.ts';
import { describeModel } from '../../engine/model/spec/describe.ts';
import { argmax } from '../../engine/sampling/sampler.ts';
import { contextFor, type GpuWorkload, type SpeedAtDepth, someTokens } from './workload.ts';

export interface HearthResult {
  readonly notes: readonly string[];
  readonly loadSeconds: number;
  readonly weightBytes: number;
  /** Weights read for one token at decode. */
  readonly activeWeightBytes: number;
  readonly speeds: readonly SpeedAtDepth[];
}

async function feed(decoder: Decoder, sequence: Sequence, tokens: readonly number[]): Promise<Float32Array> {
  let logits: Float32Array = new Float32Array(0);
  for (let at = 0; at < tokens.length; at += decoder.maxTokensPerRun) {
    const piece = tokens.slice(at, at + decoder.maxTokensPerRun);
    const last = at + piece.length === tokens.length;
    [logits = logits] = await decoder.run([{ sequence, tokens: piece, logits: last ? 'last' : 'none' }]);
  }
  return logits;
}

async function measure(decoder: Decoder, depth: number, workload: GpuWorkload): Promise<SpeedAtDepth> {
  const { promptTokens, decodeTokens } = workload;
  const sequence = decoder.createSequence();
  const logits = await feed(decoder, sequence, someTokens(Math.max(1, depth)));
  let start = performance.now();
  await answer(decoder, sequence, argmax(logits), decodeTokens);
  const decode = (decodeTokens * 1000) / (performance.now() - start);
  start = performance.now();
  await feed(decoder, sequence, someTokens(promptTokens));
  const prefill = (promptTokens * 1000) / (performance.now() - start);
  sequence.dispose();
  return { depth, prefill, decode };
}

const [path = '', json = '{}'] = process.argv.slice(2);
const workload: GpuWorkload = JSON.parse(json);
const { spec, weights, file } = await openModel(path);
const start = performance.now();
const decoder = await createWebgpuBackend().load(spec, weights, { contextTokens: contextFor(workload) });
const loadSeconds = (performance.now() - start) / 1000;
const { weightBytes, activeWeightBytes } = describeModel({ spec, weights });
await file.close();
// Compiles and wakes up.
await measure(decoder, 0, workload);
const speeds: SpeedAtDepth[] = [];
for (const depth of workload.depths) speeds.push(await measure(decoder, depth, workload));
const result: HearthResult = { notes: decoder.notes, loadSeconds, weightBytes, activeWeightBytes, speeds };
console.log(JSON.stringify(result));
await decoder.dispose();
