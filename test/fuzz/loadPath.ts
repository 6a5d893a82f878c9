/**
 * Hostile models through the commands that a user gives them to: `npm run fuzz:load -- --count 10000 [--seed 1]
 * [--only NUMBER]`. Every mutant of a GGUF, a safetensors file, a config.json, a tokenizer.json or a chat template is read
 * by `hearth inspect` and `hearth generate`. Each must answer, or refuse with one line, within five seconds of processor
 * time and bounded memory. A worker runs the mutants, so that a hang or exhausted memory is detected, counted and skipped.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { generate } from '../../engine/cli/chat.ts';
import { type Command, readArguments } from '../../engine/cli/command.ts';
import { inspect } from '../../engine/cli/models.ts';
import { HearthError } from '../../engine/errors.ts';
import { parseGgufHeader } from '../../engine/formats/gguf.ts';
import { memorySource } from '../unit/formats/builders.ts';
import { makeTinyModel } from '../unit/runtime/tinyModel.ts';
import { below, mutated, pick, type Random, seededRandom } from './mutants.ts';

const slowMs = 5000;
const hangMs = 60_000;
const extraBytes = 512 * 2 ** 20;

/** A model as files: one GGUF, or a folder with a checkpoint. */
export type Files = ReadonlyMap<string, Uint8Array>;

const goldens = resolve(import.meta.dirname, '../fixtures/goldens/gguf');
const families = ['llama', 'qwen2', 'qwen3-yarn', 'gpt-oss', 'deepseek-v3'];

export async function readSeeds(): Promise<Files[]> {
  const ggufs = families.map(
    (name) => new Map([['model.gguf', new Uint8Array(readFileSync(join(goldens, `${name}-bf16.gguf`)))]]),
  );
  const { path, remove } = await makeTinyModel();
  const names = ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'];
  const folder = new Map(names.map((name) => [name, new Uint8Array(readFileSync(join(path, name)))] as const));
  await remove();
  return [...ggufs, folder];
}

// ---- What hostile files say ----

const numbers = [
  0,
  -1,
  1,
  0.5,
  3,
  1e-320,
  1e38,
  1e308,
  -1e-6,
  2 ** 31,
  2 ** 32 - 1,
  2 ** 53,
  Number.NaN,
  Number.POSITIVE_INFINITY,
];

const hostileText = (random: Random): string =>
  pick(random, [
    '',
    '\u001b[2J',
    'x'.repeat(5000),
    '../../x',
    '<|end|>',
    '\u0000',
    '{%',
    '\ud800',
    'e\u0301'.repeat(300),
  ]);

const normaliser = (content: string) => ({ type: 'Replace', pattern: { String: 'e' }, content });
const nested = (levels: number): unknown =>
  Array.from({ length: levels }).reduce<unknown>(
    (inner) => ({ type: 'Sequence', normalizers: [inner] }),
    normaliser('ee'),
  );

const hostileJson = (random: Random): unknown =>
  pick<() => unknown>(random, [
    () => pick(random, numbers.filter(Number.isFinite)),
    () => hostileText(random),
    () => null,
    () => true,
    () => [],
    () => ({}),
    () => Array.from({ length: 50_000 }, (_, i) => i),
    () => normaliser('y'.repeat(100_000)),
    () => nested(500),
    () => ({ type: 'Split', pattern: { Regex: '(a|a)*b' }, behavior: 'Isolated', invert: false }),
    () => Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [`${i}`.padEnd(4000, 'z'), i])),
    () => Array.from({ length: 60_000 }, (_, id) => ({ id, content: `<|reserved_${id}|>`, special: true })),
  ])();

const templates = [
  '{% for i in range(100000000) %}{{ i }}{% endfor %}',
  '{{ "x" * 1000000000 }}',
  '{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}',
  '{% set ns = namespace(a="x") %}{% for i in range(64) %}{% set ns.a = ns.a + ns.a %}{% endfor %}{{ ns.a }}',
  '{{ messages.__class__.__mro__ }}',
  '{{ raise_exception("no\nlines") }}',
  `${'{% if true %}'.repeat(2000)}${'{% endif %}'.repeat(2000)}`,
  `{{ ${'('.repeat(5000)}1${')'.repeat(5000)} }}`,
  '{{ messages[0].content.split("") | map("upper") | join("x") * 100000 }}',
  '{{ messages | tojson(indent=1000000) }}',
];

// ---- Mutations: of bytes, of values where the format knows them, and of weights ----

const float32 = (value: number): Uint8Array => new Uint8Array(Float32Array.of(value).buffer);

/** Overwrites the value of one key: its bytes follow the name and the type. */
function withHostileKey(bytes: Uint8Array, random: Random): Uint8Array {
  const copy = Buffer.from(bytes);
  const keys = [...parseGgufHeader(memorySource(Uint8Array.from(bytes))).metadata.keys()];
  for (let left = 1 + below(random, 2); left > 0; left--) {
    const key = pick(random, keys);
    const at = copy.indexOf(key) + key.length;
    const type = copy.readUInt32LE(at);
    if (type === 6) copy.set(float32(pick(random, numbers)), at + 4);
    else if (type < 8)
      copy.writeUInt32LE(
        Number(BigInt.asUintN(32, BigInt(pick(random, [0, 1, 2, 3, 7, 2 ** 20, 2 ** 31, 2 ** 32 - 1])))),
        at + 4,
      );
    else if (type === 8) copy.writeUInt8(below(random, 256), at + 12);
    else copy.writeUInt32LE(pick(random, [0, 4, 6, 8, 9, 12]), at + 4);
  }
  return copy;
}

/** A run of weights that are NaN, infinite, huge or noise. */
function withHostileWeights(bytes: Uint8Array, random: Random): Uint8Array {
  const copy = Uint8Array.from(bytes);
  const from = Math.floor(bytes.length * (0.1 + 0.9 * random()));
  const to = random() < 0.3 ? bytes.length : from + below(random, 4096);
  const [low, high] = pick(random, [
    [0xff, 0xff],
    [0x80, 0x7f],
    [0x7f, 0x7f],
    [below(random, 256), below(random, 256)],
  ] as const);
  for (let at = from; at < to; at++) copy[at] = at % 2 === 0 ? low : high;
  return copy;
}

const headerOf = (bytes: Uint8Array): number => Math.min(bytes.length, 64 * 1024);

/** Mutates the part that describes the file, which is far smaller than its weights. */
function withHostileHeader(bytes: Uint8Array, random: Random): Uint8Array {
  return Buffer.concat([mutated(bytes.subarray(0, headerOf(bytes)), random), bytes.subarray(headerOf(bytes))]);
}

/** Replaces values at random places of a JSON document. */
function withHostileValues(bytes: Uint8Array, random: Random): Uint8Array {
  const document: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'));
  for (let left = 1 + below(random, 2); left > 0; left--) replaceOne(document, random);
  return Buffer.from(JSON.stringify(document));
}

function replaceOne(document: unknown, random: Random): void {
  let at = document;
  for (;;) {
    if (typeof at !== 'object' || at === null) return;
    const keys = Object.keys(at);
    if (keys.length === 0) return;
    const key = pick(random, keys);
    const inner: unknown = Reflect.get(at, key);
    if (typeof inner === 'object' && inner !== null && random() < 0.6) {
      at = inner;
      continue;
    }
    if (random() < 0.15) Reflect.deleteProperty(at, key);
    else Reflect.set(at, key, hostileJson(random));
    return;
  }
}

function withHostileTemplate(bytes: Uint8Array, random: Random): Uint8Array {
  const config: { chat_template: string } = JSON.parse(Buffer.from(bytes).toString('utf8'));
  const sound = config.chat_template;
  const at = below(random, sound.length);
  const hostile =
    random() < 0.5
      ? pick(random, templates)
      : Buffer.from(mutated(new TextEncoder().encode(sound), random)).toString('utf8');
  config.chat_template = random() < 0.5 ? hostile : sound.slice(0, at) + hostile + sound.slice(at);
  return Buffer.from(JSON.stringify(config));
}

type Mutation = readonly [name: string, change: (bytes: Uint8Array, random: Random) => Uint8Array];

const mutations: Readonly<Record<string, readonly Mutation[]>> = {
  'model.gguf': [
    ['keys', withHostileKey],
    ['keys', withHostileKey],
    ['header', withHostileHeader],
    ['weights', withHostileWeights],
  ],
  'model.safetensors': [
    ['header', withHostileHeader],
    ['weights', withHostileWeights],
  ],
  'config.json': [
    ['values', withHostileValues],
    ['values', withHostileValues],
    ['text', mutated],
  ],
  'tokenizer.json': [
    ['values', withHostileValues],
    ['values', withHostileValues],
    ['text', mutated],
  ],
  'tokenizer_config.json': [
    ['template', withHostileTemplate],
    ['values', withHostileValues],
    ['text', mutated],
  ],
};

export interface Hostile {
  readonly what: string;
  readonly files: Files;
}

/** Mutant `number` of campaign `campaign`, reproducibly. */
export function hostileModel(seeds: readonly Files[], campaign: number, number: number): Hostile {
  const random = seededRandom(Math.imul(campaign, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b));
  // Half are folders, which have four kinds of file.
  const files = random() < 0.5 ? (seeds.at(-1) ?? new Map()) : pick(random, seeds.slice(0, -1));
  const name = pick(random, [...files.keys()]);
  const [kind, change] = pick(random, mutations[name] ?? []);
  return {
    what: `${name}, ${kind}`,
    files: new Map([...files, [name, change(files.get(name) ?? new Uint8Array(), random)]]),
  };
}

// ---- What the commands make of them ----

export type Verdict = 'answered' | 'refused';

/** @throws what is not one line for a person: a fault of Hearth. */
async function judge(command: Command, args: readonly string[]): Promise<Verdict> {
  const terminal = { out: () => {}, err: () => {}, interactive: false, signal: new AbortController().signal };
  try {
    await command.run(readArguments(command, args), terminal);
    return 'answered';
  } catch (error) {
    if (!(error instanceof HearthError)) throw error;
    if (error.message.length > 2000)
      throw new Error(`a message of ${error.message.length} characters`, { cause: error });
    if (error.code === 'cancelled' || /\b(?:undefined|NaN|\[object)\b/.test(error.message))
      throw new Error(`unclear: ${error.message}`, { cause: error });
    return 'refused';
  }
}

export interface Judged {
  readonly inspect: Verdict;
  readonly generate: Verdict;
}

/** Writes the mutant to `folder` and gives it to both commands. */
export async function judgeHostile({ files }: Hostile, folder: string, number: number): Promise<Judged> {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const [name, bytes] of files) writeFileSync(join(folder, name), bytes);
  const model = files.has('model.gguf') ? join(folder, 'model.gguf') : folder;
  // ONNX Runtime takes a thread and most of the time.
  const backend = number % 8 === 0 ? 'onnx' : 'reference';
  const context = number % 3 === 0 ? [] : ['--context', '128'];
  const question = [
    '--model',
    model,
    '--prompt',
    'Hi there',
    '--max-tokens',
    '3',
    '--threads',
    '1',
    '--backend',
    backend,
  ];
  return {
    inspect: await judge(inspect, [model]),
    generate: await judge(generate, [...question, ...(number % 2 === 0 ? ['--raw'] : []), ...context]),
  };
}

// ---- The campaign ----

interface Task {
  readonly campaign: number;
  readonly first: number;
  readonly count: number;
  /** Number of the current mutant. */
  readonly progress: Int32Array;
}

interface Outcome {
  readonly figures: Record<string, number>;
  readonly faults: readonly string[];
  readonly slowestMs: number;
  readonly largestGrowthBytes: number;
}

const peakBytes = (): number => process.resourceUsage().maxRSS * 1024;
const cpuMs = (): number => (process.cpuUsage().user + process.cpuUsage().system) / 1000;

async function runTask({ campaign, first, count, progress }: Task): Promise<Outcome> {
  const root = mkdtempSync(join(tmpdir(), 'hearth-load-'));
  process.env['HEARTH_HOME'] = join(root, 'store');
  const seeds = await readSeeds();
  const figures: Record<string, number> = {};
  const faults: string[] = [];
  let [slowestMs, largestGrowthBytes] = [0, 0];
  for (let number = first; number < first + count; number++) {
    Atomics.store(progress, 0, number);
    const hostile = hostileModel(seeds, campaign, number);
    const fault = (text: string): void => void faults.push(`mutant ${number} (${hostile.what}): ${text}`);
    const [peak, started] = [peakBytes(), cpuMs()];
    try {
      const judged = await judgeHostile(hostile, join(root, 'model'), number);
      for (const [command, verdict] of Object.entries(judged)) {
        const key = `${command} ${verdict}`;
        figures[key] = (figures[key] ?? 0) + 1;
      }
    } catch (error) {
      fault(error instanceof Error ? (error.stack ?? error.message) : String(error));
    }
    const [elapsed, growth] = [cpuMs() - started, peakBytes() - peak];
    slowestMs = Math.max(slowestMs, elapsed);
    largestGrowthBytes = Math.max(largestGrowthBytes, growth);
    if (elapsed > slowMs) fault(`took ${elapsed.toFixed(0)} ms of processor time`);
    if (growth > extraBytes) fault(`took ${growth} bytes of memory`);
  }
  rmSync(root, { recursive: true, force: true });
  return { figures, faults, slowestMs, largestGrowthBytes };
}

function runInWorker(task: Task): Promise<Outcome | string> {
  return new Promise((done) => {
    const worker = new Worker(new URL(import.meta.url), {
      workerData: task,
      resourceLimits: { maxOldGenerationSizeMb: 1024 },
    });
    let [last, since] = [-1, performance.now()];
    const watch = setInterval(() => {
      const current = Atomics.load(task.progress, 0);
      if (current !== last) [last, since] = [current, performance.now()];
      else if (performance.now() - since > hangMs) finish('hangs');
    }, 500);
    const finish = (result: Outcome | string): void => {
      clearInterval(watch);
      void worker.terminate();
      done(result);
    };
    worker.on('message', finish);
    worker.on('error', (error: Error) => finish(`crashed: ${error.message}`));
  });
}

async function runCampaign(campaign: number, total: number): Promise<number> {
  const progress = new Int32Array(new SharedArrayBuffer(4));
  const [started, share] = [performance.now(), 500];
  const figures: Record<string, number> = {};
  const faults: string[] = [];
  let [done, slowestMs, largestGrowthBytes] = [0, 0, 0];
  while (done < total) {
    const outcome = await runInWorker({ campaign, first: done, count: Math.min(share, total - done), progress });
    if (typeof outcome === 'string') {
      const number = Atomics.load(progress, 0);
      faults.push(`mutant ${number} ${outcome}`);
      done = number + 1;
      continue;
    }
    for (const [key, count] of Object.entries(outcome.figures)) figures[key] = (figures[key] ?? 0) + count;
    faults.push(...outcome.faults);
    slowestMs = Math.max(slowestMs, outcome.slowestMs);
    largestGrowthBytes = Math.max(largestGrowthBytes, outcome.largestGrowthBytes);
    done += share;
  }
  console.log(`models ${total}, campaign ${campaign}, ${((performance.now() - started) / 1000).toFixed(0)} s`);
  console.log(
    Object.entries(figures)
      .map(([key, count]) => `${key} ${count}`)
      .sort()
      .join(', '),
  );
  console.log(
    `faults (crash, hang, stack trace, unclear line, over ${slowMs} ms or ${extraBytes / 2 ** 20} MiB): ${faults.length}`,
  );
  console.log(
    `slowest ${slowestMs.toFixed(0)} ms of processor time; memory grew by at most ${(largestGrowthBytes / 2 ** 20).toFixed(0)} MiB in one, to ${(peakBytes() / 2 ** 20).toFixed(0)} MiB`,
  );
  for (const fault of faults) console.error(fault);
  return faults.length;
}

if (import.meta.main && isMainThread) {
  const { values } = parseArgs({
    options: {
      count: { type: 'string', default: '10000' },
      seed: { type: 'string', default: '1' },
      only: { type: 'string' },
    },
  });
  const campaign = Number(values.seed);
  if (values.only === undefined) process.exitCode = (await runCampaign(campaign, Number(values.count))) > 0 ? 1 : 0;
  else {
    const root = mkdtempSync(join(tmpdir(), 'hearth-load-'));
    process.env['HEARTH_HOME'] = join(root, 'store');
    console.log(
      await judgeHostile(
        hostileModel(await readSeeds(), campaign, Number(values.only)),
        join(root, 'model'),
        Number(values.only),
      ),
    );
    rmSync(root, { recursive: true, force: true });
  }
} else if (!isMainThread && parentPort && workerData?.progress)
  parentPort.postMessage(await runTask(workerData as Task));
