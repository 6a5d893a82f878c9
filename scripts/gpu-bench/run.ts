/**
 * Started by `run.sh` on the GPU host. Runs the kernel tests, then compares Hearth with llama.cpp on the same random weights.
 * Prints one Markdown table.
 *
 *   ./run.sh [--layers N] [--experts N] [--vocabulary N] [--depths 0,8192,32768] [--prompt N] [--tokens N] [--skip-tests] [--peers vulkan,cuda]
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { describeGpu } from '../../engine/backend/webgpu/device/adapter.ts';
import { Gpu } from '../../engine/backend/webgpu/device/gpu.ts';
import type { HearthResult } from './hearth.ts';
import { published, writeModel } from './model.ts';
import type { GpuWorkload, SpeedAtDepth } from './workload.ts';

const here = import.meta.dirname;

const { values } = parseArgs({
  options: {
    layers: { type: 'string', default: String(published.layers) },
    experts: { type: 'string', default: String(published.experts) },
    vocabulary: { type: 'string', default: String(published.vocabularySize) },
    depths: { type: 'string', default: '0,8192,32768' },
    prompt: { type: 'string', default: '2048' },
    tokens: { type: 'string', default: '128' },
    'skip-tests': { type: 'boolean', default: false },
    peers: { type: 'string', default: 'vulkan,cuda' },
  },
});
const size = {
  layers: Number(values.layers),
  experts: Number(values.experts),
  vocabularySize: Number(values.vocabulary),
};
const workload: GpuWorkload = {
  depths: values.depths.split(',').map(Number),
  promptTokens: Number(values.prompt),
  decodeTokens: Number(values.tokens),
};

/** Bandwidth of a copy in GPU memory, in bytes a second, counting reads and writes. */
async function copyBandwidth(gpu: Gpu): Promise<number> {
  const bytes = Math.min(2 ** 28, gpu.capabilities.maxBufferBytes);
  const usage = GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const [from, to] = [await gpu.allocate('from', bytes, usage), await gpu.allocate('to', bytes, usage)];
  const rounds = gpu.capabilities.software ? 2 : 64;
  const copy = async (count: number): Promise<number> => {
    const encoder = gpu.device.createCommandEncoder();
    for (let i = 0; i < count; i++) encoder.copyBufferToBuffer(from, 0, to, 0, bytes);
    const start = performance.now();
    gpu.device.queue.submit([encoder.finish()]);
    await gpu.device.queue.onSubmittedWorkDone();
    return (performance.now() - start) / 1000;
  };
  await copy(1);
  return (2 * bytes * rounds) / (await copy(rounds));
}

/** Number of passed and failed kernel tests. */
function testKernels(): { readonly passed: number; readonly failed: number } {
  const folder = join(here, 'test', 'gpu');
  const files = readdirSync(folder).filter((name) => name.endsWith('.test.mjs'));
  const counts = { passed: 0, failed: 0 };
  for (const name of files) {
    const options = ['--test-reporter=spec', join(folder, name)];
    const { stdout, status, signal } = spawnSync(process.execPath, options, {
      env: { ...process.env, HEARTH_TEST_GOLDENS: 'all' },
      encoding: 'utf8',
      maxBuffer: 2 ** 26,
    });
    const count = (what: string): number => Number(new RegExp(`ℹ ${what} (\\d+)`).exec(stdout)?.[1] ?? 0);
    counts.passed += count('pass');
    counts.failed += Math.max(count('fail'), status === 0 ? 0 : 1);
    console.error(`${name}: ${count('pass')} passed, ${count('fail')} failed${signal ? `, ended by ${signal}` : ''}`);
    if (status !== 0) console.error(stdout.slice(-3000));
  }
  return counts;
}

interface Failure {
  readonly failure: string;
}

function measureIn<Result>(program: string, ...args: readonly string[]): Result | Failure {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(here, program), ...args, JSON.stringify(workload)],
    {
      encoding: 'utf8',
      maxBuffer: 2 ** 26,
    },
  );
  if (status === 0) return JSON.parse(stdout.trim().split('\n').at(-1) ?? '');
  const lines = stderr.trim().split('\n');
  return { failure: lines.find((line) => /^\w*Error: /.test(line)) ?? lines.at(-1) ?? `status ${status}` };
}

const failed = (result: object): result is Failure => 'failure' in result;

const gpu = await Gpu.open();
const device = describeGpu(gpu.capabilities);
const bandwidth = await copyBandwidth(gpu);
gpu.dispose();
console.error(`${device} A copy moves ${(bandwidth / 1e9).toFixed(1)} GB/s.`);
const tests = values['skip-tests'] ? undefined : testKernels();
const model = join(here, `gpt-oss-20b-random-${size.layers}-${size.experts}-${size.vocabularySize}.gguf`);
if (!existsSync(model)) {
  console.error(`Writing ${model}`);
  writeModel(model, size);
}
console.error('Hearth …');
const hearth = measureIn<HearthResult>('hearth.mjs', model);
if (failed(hearth)) throw new Error(`Hearth could not be measured: ${hearth.failure}`);
const peers = values.peers.split(',').map((name) => {
  console.error(`llama.cpp on ${name} …`);
  return { name, result: measureIn<{ readonly speeds: readonly SpeedAtDepth[] }>('peer.mjs', name, model) };
});

const number = (value: number | undefined): string => (value === undefined ? '–' : value.toFixed(value < 100 ? 1 : 0));
const ratio = (own: number, other: number | undefined): string =>
  other === undefined ? '–' : `${(own / other).toFixed(2)} ×`;

function row(own: SpeedAtDepth, measured: HearthResult): string[] {
  const others = peers.map(({ result }) =>
    failed(result) ? undefined : result.speeds.find(({ depth }) => depth === own.depth),
  );
  const share = (own.decode * measured.activeWeightBytes) / bandwidth;
  return [
    String(own.depth),
    number(own.decode),
    ...others.flatMap((other) => [number(other?.decode), ratio(own.decode, other?.decode)]),
    `${(100 * share).toFixed(0)} %`,
    number(own.prefill),
    ...others.flatMap((other) => [number(other?.prefill), ratio(own.prefill, other?.prefill)]),
  ];
}

const peerHeads = peers.flatMap(({ name }) => [`llama.cpp ${name}`, 'ratio']);
const heading = [
  'context',
  'Hearth decode',
  ...peerHeads,
  'weights read, of copy bandwidth',
  'Hearth prefill',
  ...peerHeads,
];
const lines = [heading, heading.map(() => '---:'), ...hearth.speeds.map((speed) => row(speed, hearth))];
console.log(`\n${device}\n`);
console.log(
  `GPT-OSS-20B's dimensions, ${size.layers} layers, ${size.experts} experts, vocabulary ${size.vocabularySize}, random weights of ${(hearth.weightBytes / 1e9).toFixed(2)} GB ` +
    `(${(hearth.activeWeightBytes / 1e9).toFixed(3)} GB read a token; a copy moves ${(bandwidth / 1e9).toFixed(1)} GB/s), loaded in ${hearth.loadSeconds.toFixed(1)} s. ` +
    `Tokens a second: decode of ${workload.decodeTokens}, prefill of ${workload.promptTokens} tokens. The GPU sampled ${(100 * hearth.deviceShare).toFixed(0)} % of Hearth's tokens itself.`,
);
if (tests) console.log(`Kernels' tests: ${tests.passed} passed, ${tests.failed} failed.`);
for (const { name, result } of peers)
  if (failed(result)) console.log(`llama.cpp ${name} could not be measured: ${result.failure}`);
console.log(`\n${lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n')}`);
process.exitCode = tests && tests.failed > 0 ? 1 : 0;
