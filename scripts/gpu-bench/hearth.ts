/** Hearth's side of the GPU benchmark. `node hearth.mjs FILE WORKLOAD` prints one JSON value. */
import { createWebgpuBackend } from '../../engine/backend/webgpu/index.ts';
import { SpeedMeter } from '../../engine/cli/decoder.ts';
import { openModel } from '../../engine/model/open.ts';
import { describeModel } from '../../engine/model/spec/describe.ts';
import { contextFor, type GpuWorkload, type SpeedAtDepth } from './workload.ts';

export interface HearthResult {
  readonly notes: readonly string[];
  readonly loadSeconds: number;
  readonly weightBytes: number;
  /** Weight bytes read to decode one token. */
  readonly activeWeightBytes: number;
  readonly speeds: readonly SpeedAtDepth[];
  /** Share of the generated tokens that the GPU sampled. */
  readonly deviceShare: number;
}

const [path = '', json = '{}'] = process.argv.slice(2);
const workload: GpuWorkload = JSON.parse(json);
const { spec, weights, file } = await openModel(path);
const start = performance.now();
const decoder = await createWebgpuBackend().load(spec, weights, { contextTokens: contextFor(workload) });
const loadSeconds = (performance.now() - start) / 1000;
const { weightBytes, activeWeightBytes } = describeModel({ spec, weights });
await file.close();
const { promptTokens, decodeTokens } = workload;
const meter = new SpeedMeter(decoder);

/** Prefill and decode both start after `depth` tokens, as in llama.cpp. */
async function measure(depth: number): Promise<SpeedAtDepth> {
  const written = await meter.measure({ depthTokens: depth, promptTokens: 1, tokens: decodeTokens });
  const read = await meter.measure({ depthTokens: depth, promptTokens, tokens: 0 });
  return { depth, prefill: read.prefillTokensPerSecond, decode: written.decodeTokensPerSecond };
}

// Warm-up: compiles the kernels.
await measure(0);
const speeds: SpeedAtDepth[] = [];
for (const depth of workload.depths) speeds.push(await measure(depth));
const { deviceShare } = meter;
const result: HearthResult = { notes: decoder.notes, loadSeconds, weightBytes, activeWeightBytes, speeds, deviceShare };
console.log(JSON.stringify(result));
await decoder.dispose();
