/**
 * What a user waits for, on the CPU, beside llama-server with prompt caching: the first token after one more keystroke, of a
 * chat's second turn and after a restart, a completion while a chat streams, the load. Both engines run as processes of
 * their own on the same file with the same threads and prompts, one after the other in turns. Prints medians and their
 * ratio (below 1: Hearth is faster).
 *
 *   npm run bench:requests -- [--model FILE]… [--context N]… [--keystrokes N] [--turns N] [--threads N]
 *
 * The peer is `llama-server` from $HEARTH_LLAMA_SERVER or the PATH; without it Hearth is measured alone.
 */
import { readFileSync, rmSync, statSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { cpus, loadavg, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { defaultThreads } from '../../engine/backend/onnx/threads.ts';
import { defaultModelId } from '../../engine/store/catalogue.ts';
import { findInstalled, pathToLoad } from '../../engine/store/manifest.ts';
import { defaultStoreDirectory } from '../../engine/store/paths.ts';
import { startHearth } from './hearthEngine.ts';
import { findLlamaServer, startLlamaServer } from './llamaServer.ts';

export interface ChatTurn {
  readonly role: 'user' | 'assistant';
  readonly content: string;
}

/** One engine in a process of its own, with a model loaded. */
export interface Requester {
  /** The first token after `text`, as it is. */
  next(text: string): Promise<void>;
  /** The same as a request that goes before a chat, where the engine knows of such. */
  keystroke(text: string): Promise<void>;
  chat(turns: readonly ChatTurn[], maxTokens: number): Promise<{ text: string; firstMs: number; totalMs: number }>;
  /** Puts what is known of `text` on the disk. */
  store(text: string): Promise<void>;
  /** After a restart: takes what was stored in again, where that must be asked for. */
  recall(): Promise<void>;
  residentBytes(): number;
  stop(): Promise<void>;
}

export interface EngineOptions {
  readonly model: string;
  readonly contextTokens: number;
  readonly threads: number;
  /** For what is kept between starts. */
  readonly directory: string;
}

type Start = (options: EngineOptions) => Promise<Requester>;

/** Of each repetition, by what was measured. */
type Figures = Map<string, number[]>;

const { values } = parseArgs({
  options: {
    model: { type: 'string', multiple: true },
    context: { type: 'string', multiple: true, default: ['4096'] },
    keystrokes: { type: 'string', default: '12' },
    turns: { type: 'string', default: '3' },
    threads: { type: 'string' },
  },
});
const threads = values.threads === undefined ? defaultThreads() : Number(values.threads);
/** Room for the chat's template, question and answers. */
const roomTokens = 512;
/** Before the cursor while a chat streams: what the editor's completion sends. */
const keystrokeTokens = 1024;
const answerTokens = 64;

/** Its first 4 × `tokens` characters have about as many tokens: the same text for both. */
const sourceText = (tokens: number): string =>
  readFileSync('node_modules/@types/vscode/index.d.ts', 'utf8').slice(0, Math.floor(3.6 * tokens));

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

function note(figures: Figures, what: string, value: number): void {
  const known = figures.get(what);
  if (known) known.push(value);
  else figures.set(what, [value]);
}

/** A text is read, typed on, asked about, and found again after a restart. */
async function measureEngine(start: Start, options: EngineOptions, tokens: number, figures: Figures): Promise<void> {
  const at = `${tokens} tokens`;
  const text = sourceText(tokens);
  const begun = performance.now();
  const engine = await start(options);
  note(figures, 'start and load, ms', performance.now() - begun);
  note(figures, 'resident after the load ÷ file', engine.residentBytes() / statSync(options.model).size);
  note(figures, `first token of a new prompt, ${at}, ms`, await timed(() => engine.next(text)));
  const typed = '\nexport function sum(values) { return';
  for (let i = 1; i <= Number(values.keystrokes); i++) {
    note(figures, `after one more keystroke, ${at}, ms`, await timed(() => engine.next(text + typed.slice(0, i))));
  }
  await engine.store(text);
  const first: ChatTurn = { role: 'user', content: `${text}\nWhat does this file declare?` };
  const { text: answer } = await engine.chat([first], 24);
  const turns: ChatTurn[] = [first, { role: 'assistant', content: answer }, { role: 'user', content: 'Why?' }];
  note(figures, `first token of a chat's second turn, ${at}, ms`, (await engine.chat(turns, 24)).firstMs);
  await measureBeside(engine, turns, at, figures);
  note(figures, `resident with ${at} known ÷ file`, engine.residentBytes() / statSync(options.model).size);
  await engine.stop();
  await measureRestart(start, options, { prompt: `${text}${typed}`, at }, figures);
}

/** Asked as soon as the model is loaded, and by someone who looks for a second first, in which an engine may read what it stored. */
async function measureRestart(
  start: Start,
  options: EngineOptions,
  { prompt, at }: { readonly prompt: string; readonly at: string },
  figures: Figures,
): Promise<void> {
  let engine = await start(options);
  const recallAndAsk = async (): Promise<void> => {
    await engine.recall();
    await engine.next(prompt);
  };
  note(figures, `first token after a restart, ${at} on the disk, ms`, await timed(recallAndAsk));
  await engine.stop();
  engine = await start(options);
  await Promise.all([engine.recall(), sleep(1000)]);
  const what = `first token a second after a restart, ${at} on the disk, ms`;
  note(figures, what, await timed(() => engine.next(prompt)));
  await engine.stop();
}

/** Keystrokes while a chat streams, and what they cost the chat. */
async function measureBeside(
  engine: Requester,
  turns: readonly ChatTurn[],
  at: string,
  figures: Figures,
): Promise<void> {
  const text = sourceText(keystrokeTokens);
  const place = (i: number): string => `${text}let x${i} =`;
  await engine.keystroke(place(0));
  const alone: number[] = [];
  for (let i = 1; i <= Number(values.keystrokes); i++) alone.push(await timed(() => engine.keystroke(place(i))));
  await engine.chat(turns, answerTokens);
  const chatAlone = await engine.chat(turns, answerTokens);
  const stepMs = (chatAlone.totalMs - chatAlone.firstMs) / (answerTokens - 1);
  let isStreaming = true;
  let servedMs = 0;
  const chat = engine.chat(turns, answerTokens).finally(() => {
    isStreaming = false;
  });
  for (let i = 100; isStreaming; i++) {
    const ms = await timed(() => engine.keystroke(place(i)));
    if (!isStreaming) break;
    servedMs += quantile(alone, 0.5);
    note(figures, `keystroke while a chat streams, ${at}, ms`, ms);
    note(figures, `added to a keystroke by the chat, in its steps, ${at}`, (ms - quantile(alone, 0.5)) / stepMs);
    // Someone who types fast: five keys a second.
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, 200 - ms)));
  }
  const { totalMs } = await chat;
  note(figures, `chat beside keystrokes ÷ alone, ${at}`, totalMs / chatAlone.totalMs);
  note(
    figures,
    `chat beside keystrokes ÷ alone and the keystrokes' own work, ${at}`,
    totalMs / (chatAlone.totalMs + servedMs),
  );
}

async function measure(model: string, peer: string | undefined): Promise<void> {
  const [own, theirs]: [Figures, Figures] = [new Map(), new Map()];
  const directory = await mkdtemp(join(tmpdir(), 'hearth-bench-'));
  // Who stops it has what was measured until then.
  const stop = (): never => {
    printTable(model, own, theirs);
    rmSync(directory, { recursive: true, force: true });
    process.exit(1);
  };
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, stop);
  try {
    const [least] = values.context;
    const options = { model, contextTokens: Number(least), threads, directory };
    // Weights are packed at the first start with a model, which is not every start.
    note(own, 'first start with this model, ms', await timed(async () => (await startHearth(options)).stop()));
    for (let turn = 0; turn < Number(values.turns); turn++) {
      for (const context of values.context) {
        const tokens = Number(context);
        note(own, 'plain read of the file, ms', await timed(() => readFile(model)));
        const options = { model, contextTokens: tokens + roomTokens, threads, directory };
        await measureEngine(startHearth, options, tokens, own);
        if (peer !== undefined) await measureEngine(startLlamaServer, options, tokens, theirs);
        await rm(join(directory, 'sequences'), { recursive: true, force: true });
      }
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  printTable(model, own, theirs);
}

function printTable(model: string, own: Figures, theirs: Figures): void {
  console.log(`\n${basename(model)}, ${(statSync(model).size / 1e6).toFixed(0)} MB\n`);
  console.log('| median | Hearth | p95 | llama-server | p95 | ratio |\n|---|---:|---:|---:|---:|---:|');
  const digits = (value: number) => value.toFixed(Math.abs(value) < 10 ? 2 : 0);
  for (const [what, figures] of own) {
    const peers = theirs.get(what);
    const [ours, peer] = [quantile(figures, 0.5), peers && quantile(peers, 0.5)];
    const right =
      peer === undefined
        ? ['–', '–', '–']
        : [digits(peer), digits(quantile(peers ?? [], 0.95)), (ours / peer).toFixed(2)];
    console.log(`| ${[what, digits(ours), digits(quantile(figures, 0.95)), ...right].join(' | ')} |`);
  }
}

function quantile(numbers: readonly number[], share: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

async function defaultModel(): Promise<string> {
  const installed = await findInstalled(defaultStoreDirectory(), defaultModelId);
  if (!installed) throw new Error(`${defaultModelId} is not in the model store: hearth models pull, or --model FILE.`);
  return pathToLoad(installed);
}

const load = (): string => (loadavg()[0] ?? 0).toFixed(1);
const peer = findLlamaServer();
console.log(
  `${cpus()[0]?.model.trim()}, ${threads} threads, Node ${process.version}, load ${load()} before, ` +
    (peer === undefined ? 'no llama-server found' : `llama.cpp ${peer}`),
);
for (const model of values.model ?? [await defaultModel()]) await measure(model, peer);
console.log(`\nload ${load()} after`);
