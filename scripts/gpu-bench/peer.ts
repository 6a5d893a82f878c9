/** llama.cpp's side of the GPU benchmark, from the packed node-llama-cpp: node peer.mjs vulkan|cuda FILE WORKLOAD. */
import { contextFor, type GpuWorkload, type SpeedAtDepth, someTokens } from './workload.ts';

/** The used part of node-llama-cpp's sequence. */
interface LlamaSequence {
  clearHistory(): Promise<void>;
  evaluateWithoutGeneratingNewTokens(tokens: readonly number[]): Promise<void>;
  evaluate(tokens: readonly number[], options: { readonly temperature: number }): AsyncIterable<number>;
}

async function measure(sequence: LlamaSequence, depth: number, workload: GpuWorkload): Promise<SpeedAtDepth> {
  const { promptTokens, decodeTokens } = workload;
  await sequence.clearHistory();
  await sequence.evaluateWithoutGeneratingNewTokens(someTokens(Math.max(1, depth)));
  let start = 0;
  let decoded = -1;
  for await (const _ of sequence.evaluate([5], { temperature: 0 })) {
    // The first token comes with the prompt's evaluation.
    if (decoded++ < 0) start = performance.now();
    if (decoded === decodeTokens) break;
  }
  const decode = (decodeTokens * 1000) / (performance.now() - start);
  start = performance.now();
  await sequence.evaluateWithoutGeneratingNewTokens(someTokens(promptTokens));
  const prefill = (promptTokens * 1000) / (performance.now() - start);
  return { depth, prefill, decode };
}

const [gpu = 'vulkan', modelPath = '', json = '{}'] = process.argv.slice(2);
const workload: GpuWorkload = JSON.parse(json);
// Not a literal, because it is not a dependency of Hearth: it is resolved in the packed folder at run time.
const library = 'node-llama-cpp';
const { getLlama } = await import(library);
const llama = await getLlama({ gpu, build: 'never', logLevel: 'warn', progressLogs: false });
if (llama.gpu !== gpu) throw new Error(`llama.cpp computes on '${llama.gpu}', not on '${gpu}'`);
// node-llama-cpp silently falls back to the CPU.
const devices: readonly string[] = await llama.getGpuDeviceNames();
if (devices.length === 0) throw new Error('llama.cpp finds no GPU that it uses');
const model = await llama.loadModel({ modelPath, gpuLayers: 'max' });
const context = await model.createContext({
  contextSize: contextFor(workload) + 256,
  batchSize: 512,
  flashAttention: true,
});
const sequence: LlamaSequence = context.getSequence();
await measure(sequence, 0, workload);
const speeds: SpeedAtDepth[] = [];
for (const depth of workload.depths) speeds.push(await measure(sequence, depth, workload));
console.log(JSON.stringify({ devices, speeds }));
process.exit(0);
