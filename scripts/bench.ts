/**
 * Decode and prefill speed on the CPU beside llama.cpp: same files, same threads, same machine, one run, repetitions
 * taken in turn so that both meet the same disturbances. Prints medians, medians of the ratios of each turn, and the
 * ratio of each side's best turn, which other work on the machine distorts least.
 *
 *   npm run bench -- [--threads N] [--repetitions N] [--prompt N] [--tokens N] [--depth N] [--model FILE]… [--fetch-peer] [--json]
 *
 * The peer is `llama-bench` from $HEARTH_LLAMA_BENCH or the PATH, else with --fetch-peer the library that npm's
 * node-llama-cpp brings (100 MB into .cache); without either, Hearth's figures stand alone.
 */
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { defaultThreads } from '../engine/backend/onnx/threads.ts';
import { defaultModelId } from '../engine/store/catalogue.ts';
import { findInstalled, pathToLoad } from '../engine/store/manifest.ts';
import { defaultStoreDirectory } from '../engine/store/paths.ts';
import { openHearth } from './bench/hearthDecoder.ts';
import { findLlamaBench, type Peer } from './bench/llamaBench.ts';
import { fetchNodeLlamaCpp } from './bench/nodeLlama.ts';
import { type BenchType, writeBenchModel } from './bench/randomModel.ts';

export interface Workload {
  readonly promptTokens: number;
  readonly decodeTokens: number;
  /** Tokens in the cache before the decode begins. */
  readonly depthTokens: number;
  readonly threads: number;
}

/** Tokens a second. */
export interface Speeds {
  readonly prefill: number;
  readonly decode: number;
}

interface Result {
  readonly model: string;
  readonly fileBytes: number;
  readonly hearth: Speeds;
  readonly peer?: Speeds;
  /** Medians over the turns of Hearth's speed by the peer's. */
  readonly ratio?: Speeds;
  readonly ratioOfBests?: Speeds;
  readonly residentBytes: number;
}

const { values } = parseArgs({
  options: {
    threads: { type: 'string' },
    repetitions: { type: 'string', default: '7' },
    prompt: { type: 'string', default: '128' },
    tokens: { type: 'string', default: '32' },
    depth: { type: 'string', default: '0' },
    model: { type: 'string', multiple: true },
    'fetch-peer': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});

const modelsDirectory = '.cache/bench';

/** The default model where it is installed, and random weights in Qwen3-0.6B's shapes. */
async function defaultModels(): Promise<string[]> {
  const installed = await findInstalled(defaultStoreDirectory(), defaultModelId);
  if (!installed) console.error(`${defaultModelId} is not in the model store and left out (hearth models pull).`);
  const types: BenchType[] = ['Q8_0', 'Q4_0'];
  return [...(installed ? [pathToLoad(installed)] : []), ...types.map((type) => randomModel('qwen3-0.6b', type))];
}

function randomModel(shape: string, type: BenchType): string {
  const path = join(modelsDirectory, `${shape}-random-${type}.gguf`);
  mkdirSync(modelsDirectory, { recursive: true });
  if (!existsSync(path)) writeBenchModel(shape, type, path);
  return path;
}

async function measure(path: string, workload: Workload, repetitions: number, peer: Peer | undefined): Promise<Result> {
  const hearth = await openHearth(path, workload);
  const turns: { readonly hearth: Speeds; readonly peer?: Speeds }[] = [];
  for (let turn = 0; turn < repetitions; turn++) {
    const own = await hearth.measure();
    turns.push({ hearth: own, ...(peer && { peer: peer.measure(path, workload) }) });
  }
  const residentBytes = process.memoryUsage().rss;
  await hearth.close();
  const peers = turns.flatMap((turn) => (turn.peer ? [{ hearth: turn.hearth, peer: turn.peer }] : []));
  return {
    model: basename(path),
    fileBytes: statSync(path).size,
    hearth: medians(turns.map((turn) => turn.hearth)),
    ...(peers.length > 0 && {
      peer: medians(peers.map((turn) => turn.peer)),
      ratio: medians(
        peers.map((turn) => ({
          prefill: turn.hearth.prefill / turn.peer.prefill,
          decode: turn.hearth.decode / turn.peer.decode,
        })),
      ),
      ratioOfBests: {
        prefill: best(peers, (turn) => turn.hearth.prefill) / best(peers, (turn) => turn.peer.prefill),
        decode: best(peers, (turn) => turn.hearth.decode) / best(peers, (turn) => turn.peer.decode),
      },
    }),
    residentBytes,
  };
}

function medians(speeds: readonly Speeds[]): Speeds {
  return { prefill: median(speeds.map(({ prefill }) => prefill)), decode: median(speeds.map(({ decode }) => decode)) };
}

function best<T>(turns: readonly T[], speed: (turn: T) => number): number {
  return Math.max(...turns.map(speed));
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

function printTable(results: readonly Result[], { promptTokens, decodeTokens, depthTokens }: Workload): void {
  const speed = (value: number | undefined) => (value === undefined ? '–' : value.toFixed(1));
  const ratio = (value: number | undefined) => (value === undefined ? '–' : `${value.toFixed(2)} ×`);
  console.log(
    `prefill of ${promptTokens} tokens, decode of ${decodeTokens} at a depth of ${depthTokens}; tokens a second\n`,
  );
  console.log(
    '| model | MB | prefill | llama.cpp | ratio | of bests | decode | llama.cpp | ratio | of bests | resident MB |',
  );
  console.log('|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|');
  for (const { model, fileBytes, hearth, peer, ratio: ratios, ratioOfBests, residentBytes } of results) {
    const cells = [
      model,
      (fileBytes / 1e6).toFixed(0),
      speed(hearth.prefill),
      speed(peer?.prefill),
      ratio(ratios?.prefill),
      ratio(ratioOfBests?.prefill),
      speed(hearth.decode),
      speed(peer?.decode),
      ratio(ratios?.decode),
      ratio(ratioOfBests?.decode),
      (residentBytes / 1e6).toFixed(0),
    ];
    console.log(`| ${cells.join(' | ')} |`);
  }
}

const workload: Workload = {
  promptTokens: Number(values.prompt),
  decodeTokens: Number(values.tokens),
  depthTokens: Number(values.depth),
  threads: values.threads === undefined ? defaultThreads() : Number(values.threads),
};
const peer = findLlamaBench() ?? (values['fetch-peer'] ? fetchNodeLlamaCpp() : undefined);
if (!peer)
  console.error('No llama-bench on the PATH or in $HEARTH_LLAMA_BENCH, and no --fetch-peer: Hearth is measured alone.');
const busy = loadavg()[0] ?? 0;
if (busy > 0.5) console.error(`Other work keeps ${busy.toFixed(1)} threads busy: the figures will be low and uneven.`);
const results: Result[] = [];
for (const path of values.model ?? (await defaultModels())) {
  results.push(await measure(path, workload, Number(values.repetitions), peer));
}
const machine = `${cpus()[0]?.model.trim()}, ${workload.threads} threads, Node ${process.version}, load ${busy.toFixed(1)} before`;
if (values.json) {
  console.log(JSON.stringify({ machine, peer: peer?.version, workload, results }, null, 1));
} else {
  console.log(`${machine}${peer ? `, llama.cpp ${peer.version}` : ''}`);
  printTable(results, workload);
  console.log(
    '\nWhat a user waits for, beside llama-server: npm run bench:requests. What guesses save: npm run bench:speculation.',
  );
}
