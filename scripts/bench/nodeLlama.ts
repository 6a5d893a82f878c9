/**
 * llama.cpp where no llama-bench is installed: the prebuilt library in npm's node-llama-cpp, fetched on demand and no
 * part of the product. Run as a script it measures one workload and prints JSON:
 *
 *   node scripts/bench/nodeLlama.ts FILE PROMPT_TOKENS DECODE_TOKENS DEPTH_TOKENS THREADS
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { Workload } from '../bench.ts';
import type { Peer } from './llamaBench.ts';

const version = '3.22.1';
const directory = resolve('.cache/bench/peer');
const library = join(directory, 'node_modules/node-llama-cpp/dist/index.js');

/** The package of prebuilt libraries for this machine, as node-llama-cpp names it. */
function binaryPackage(): string {
  const { platform, arch } = process;
  const name = platform === 'darwin' ? `mac-${arch}${arch === 'arm64' ? '-metal' : ''}` : `${platform}-${arch}`;
  return `@node-llama-cpp/${name.replace('win32', 'win')}`;
}

export function fetchNodeLlamaCpp(): Peer {
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

/** A process of its own, so that no memory or thread of the peer meets Hearth's. */
function measureInChild(path: string, { promptTokens, decodeTokens, depthTokens, threads }: Workload) {
  const numbers = [promptTokens, decodeTokens, depthTokens, threads].map(String);
  const script = fileURLToPath(import.meta.url);
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, path, ...numbers], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`node-llama-cpp failed on ${path}: ${stderr.trim().split('\n').at(-1)}`);
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '');
}

/** What is used of a sequence of node-llama-cpp. */
interface LlamaSequence {
  clearHistory(): Promise<void>;
  evaluateWithoutGeneratingNewTokens(tokens: readonly number[]): Promise<void>;
  evaluate(tokens: readonly number[], options: { readonly temperature: number }): AsyncIterable<number>;
}

async function measureHere(path: string, workload: Workload): Promise<void> {
  const { promptTokens, decodeTokens, depthTokens, threads } = workload;
  const { getLlama } = await import(pathToFileURL(library).href);
  const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error', maxThreads: threads });
  const model = await llama.loadModel({ modelPath: resolve(path) });
  const contextSize = Math.max(promptTokens, depthTokens + decodeTokens) + 64;
  const context = await model.createContext({ contextSize, threads, batchSize: 512 });
  const sequence: LlamaSequence = context.getSequence();
  const tokens = (count: number) => Array.from({ length: count }, (_, i) => 3 + ((i * 37) % 200));

  await sequence.evaluateWithoutGeneratingNewTokens(tokens(8));
  await sequence.clearHistory();
  let start = performance.now();
  await sequence.evaluateWithoutGeneratingNewTokens(tokens(promptTokens));
  const prefill = (promptTokens * 1000) / (performance.now() - start);
  await sequence.clearHistory();
  if (depthTokens > 0) await sequence.evaluateWithoutGeneratingNewTokens(tokens(depthTokens));
  let decoded = -1;
  for await (const _ of sequence.evaluate([5], { temperature: 0 })) {
    // The first token comes with the prompt's evaluation.
    if (decoded++ < 0) start = performance.now();
    if (decoded === decodeTokens) break;
  }
  const decode = (decodeTokens * 1000) / (performance.now() - start);
  console.log(JSON.stringify({ prefill, decode }));
  process.exit(0);
}

if (import.meta.main) {
  const [path = '', ...numbers] = process.argv.slice(2);
  const [promptTokens = 128, decodeTokens = 32, depthTokens = 0, threads = 1] = numbers.map(Number);
  await measureHere(path, { promptTokens, decodeTokens, depthTokens, threads });
}
