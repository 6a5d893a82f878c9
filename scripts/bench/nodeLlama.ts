/**
 * Replaces llama-bench with the prebuilt llama.cpp of npm's node-llama-cpp, downloaded on demand and not part of the product.
 * As a script, it measures one workload and prints JSON:
 *
 *   node scripts/bench/nodeLlama.ts FILE WORKLOAD
 */
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { perSecond, type SpeedPeer, type Speeds, someTokens, type Workload } from './workload.ts';

const version = '3.22.1';
const directory = resolve('.cache/bench/peer');
const library = join(directory, 'node_modules/node-llama-cpp/dist/index.js');

/** Name of node-llama-cpp's prebuilt package for this machine. */
function binaryPackage(): string {
  const { platform, arch } = process;
  const name = platform === 'darwin' ? `mac-${arch}${arch === 'arm64' ? '-metal' : ''}` : `${platform}-${arch}`;
  return `@node-llama-cpp/${name.replace('win32', 'win')}`;
}

export function fetchNodeLlamaCpp(): SpeedPeer {
  if (!existsSync(library)) {
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'package.json'), '{ "private": true, "type": "module" }\n');
    const packages = [`node-llama-cpp@${version}`, `${binaryPackage()}@${version}`];
    const options = ['install', '--omit=optional', '--ignore-scripts', '--no-audit', '--no-fund', ...packages];
    const { status } = spawnSync('npm', options, {
      cwd: directory,
      stdio: 'inherit',
      shell: process.platform === 'win32',
    });
    if (status !== 0) throw new Error(`npm could not fetch ${packages.join(' and ')}`);
  }
  return { version: `in node-llama-cpp ${version}`, measure: measureInChild };
}

/** Runs in a child process, so that memory and threads are separate from Hearth's. */
async function measureInChild(path: string, workload: Workload): Promise<Speeds> {
  const script = fileURLToPath(import.meta.url);
  const { stdout } = await promisify(execFile)(process.execPath, [script, path, JSON.stringify(workload)]);
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '');
}

/** The used part of node-llama-cpp's sequence. */
interface LlamaSequence {
  readonly nextTokenIndex: number;
  eraseContextTokenRanges(ranges: readonly { readonly start: number; readonly end: number }[]): Promise<void>;
  evaluateWithoutGeneratingNewTokens(tokens: readonly number[]): Promise<void>;
  evaluate(tokens: readonly number[], options: { readonly temperature: number }): AsyncIterable<number>;
}

async function openSequence(path: string, workload: Workload): Promise<LlamaSequence> {
  const { promptTokens, decodeTokens, depthTokens, threads } = workload;
  const { getLlama } = await import(pathToFileURL(library).href);
  const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error', maxThreads: threads });
  const model = await llama.loadModel({ modelPath: resolve(path) });
  const contextSize = depthTokens + Math.max(promptTokens, decodeTokens) + 64;
  const context = await model.createContext({ contextSize, threads, batchSize: 512 });
  return context.getSequence();
}

async function measureHere(path: string, workload: Workload): Promise<Speeds> {
  const { promptTokens, decodeTokens, depthTokens, samples } = workload;
  const sequence = await openSequence(path, workload);
  const speeds: { prefill: number[]; decode: number[] } = { prefill: [], decode: [] };
  const goBack = () => sequence.eraseContextTokenRanges([{ start: depthTokens, end: sequence.nextTokenIndex }]);
  await sequence.evaluateWithoutGeneratingNewTokens(someTokens(depthTokens + 8));
  for (let i = 0; i < samples; i++) {
    await goBack();
    let start = performance.now();
    await sequence.evaluateWithoutGeneratingNewTokens(someTokens(promptTokens));
    speeds.prefill.push(perSecond(promptTokens, performance.now() - start));
    await goBack();
    let decoded = -1;
    for await (const _ of sequence.evaluate([5], { temperature: 0 })) {
      // The first token comes with the prompt's evaluation.
      if (decoded++ < 0) start = performance.now();
      if (decoded === decodeTokens) break;
    }
    speeds.decode.push(perSecond(decodeTokens, performance.now() - start));
  }
  return speeds;
}

if (import.meta.main) {
  const [path = '', workload = ''] = process.argv.slice(2);
  console.log(JSON.stringify(await measureHere(path, JSON.parse(workload))));
  process.exit(0);
}
