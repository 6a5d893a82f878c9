/**
 * What a user waits for, on the CPU, beside llama-server with prompt caching: the next keystroke's completion, a chat's
 * second turn, a completion while a chat streams, the load. Both engines run as processes of their own on the same file
 * with the same threads, one after the other in turns. Prints medians and their ratio (below 1: Hearth is faster).
 *
 *   npm run bench:requests -- [--model FILE]… [--context N]… [--keystrokes N] [--turns N] [--threads N]
 *
 * The peer is `llama-server` from $HEARTH_LLAMA_SERVER or the PATH; without it Hearth is measured alone.
 */
import { readFileSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { cpus, loadavg } from 'node:os';
import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import { defaultThreads } from '../engine/backend/onnx/threads.ts';
import { startEngine } from '../engine/server/client.ts';
import { messages } from '../engine/server/protocol.ts';
import { defaultModelId } from '../engine/store/catalogue.ts';
import { findInstalled, pathToLoad } from '../engine/store/manifest.ts';
import { defaultStoreDirectory } from '../engine/store/paths.ts';
import { findLlamaServer, startLlamaServer } from './bench-llama-server.ts';

export interface ChatTurn {
  readonly role: 'user' | 'assistant';
  readonly content: string;
}

/** One engine in a process of its own, with a model loaded. */
export interface Requester {
  /** The first token after `prefix`. */
  complete(prefix: string): Promise<void>;
  chat(turns: readonly ChatTurn[], maxTokens: number): Promise<{ text: string; firstMs: number; totalMs: number }>;
  stop(): Promise<void>;
}

/** Milliseconds of each repetition, by what was waited for. */
type Waits = Map<string, number[]>;

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
/** Room for the chat's document, question and answers. */
const roomTokens = 1024;

async function startHearth(
  model: string,
  contextTokens: number,
): Promise<Requester & { count(text: string): Promise<number> }> {
  const engine = startEngine('dist/engine.mjs');
  await engine.request(messages.load, { model, backend: 'onnx', contextTokens, threads });
  let streams = 0;
  const listeners = new Map<string, () => void>();
  engine.on(messages.delta, ({ stream }) => listeners.get(stream)?.());
  return {
    async count(text) {
      return (await engine.request(messages.countTokens, { texts: [text] }))[0] ?? 0;
    },
    async complete(prefix) {
      await engine.request(messages.complete, { prefix, suffix: '', maxTokens: 1, sampling: { temperature: 0 } });
    },
    async chat(turns, maxTokens) {
      const stream = `${streams++}`;
      const start = performance.now();
      let firstMs: number | undefined;
      listeners.set(stream, () => {
        firstMs ??= performance.now() - start;
      });
      const sampling = { temperature: 0 };
      const { text } = await engine.request(messages.chat, { stream, messages: [...turns], maxTokens, sampling });
      listeners.delete(stream);
      return { text, firstMs: firstMs ?? Number.NaN, totalMs: performance.now() - start };
    },
    stop: () => engine.stop(),
  };
}

/** The beginning of a real file, of about as many tokens. */
async function sourceText(tokens: number, count: (text: string) => Promise<number>): Promise<string> {
  const text = readFileSync('node_modules/@types/vscode/index.d.ts', 'utf8');
  const sample = text.slice(0, 4 * tokens);
  return text.slice(0, Math.floor((sample.length * tokens) / (await count(sample))));
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

function note(waits: Waits, what: string, ms: number): void {
  const known = waits.get(what);
  if (known) known.push(ms);
  else waits.set(what, [ms]);
}

async function measureRequests(engine: Requester, text: string, label: string, waits: Waits): Promise<void> {
  const typed = 'export function sum(values) { return';
  note(waits, `first completion, ${label} tokens, ms`, await timed(() => engine.complete(text)));
  for (let i = 1; i <= Number(values.keystrokes); i++) {
    const prefix = text + typed.slice(0, i);
    note(waits, `after one more keystroke, ${label} tokens, ms`, await timed(() => engine.complete(prefix)));
  }
  const first: ChatTurn = { role: 'user', content: `${text}\nWhat does this file declare?` };
  const answer = await engine.chat([first], 24);
  const second: ChatTurn[] = [first, { role: 'assistant', content: answer.text }, { role: 'user', content: 'Why?' }];
  note(waits, `first token of a second turn, ${label} tokens, ms`, (await engine.chat(second, 24)).firstMs);
  await measureBeside(engine, text, second, label, waits);
}

/** Keystrokes while a chat streams, and what they cost the chat. */
async function measureBeside(
  engine: Requester,
  text: string,
  turns: readonly ChatTurn[],
  label: string,
  waits: Waits,
): Promise<void> {
  const alone = await engine.chat(turns, 64);
  let isStreaming = true;
  const chat = engine.chat(turns, 64).finally(() => {
    isStreaming = false;
  });
  for (let i = 0; isStreaming; i++) {
    const ms = await timed(() => engine.complete(`${text}let x${i} =`));
    if (isStreaming) note(waits, `keystroke while a chat streams, ${label} tokens, ms`, ms);
  }
  note(waits, `chat beside keystrokes ÷ alone, ${label} tokens`, (await chat).totalMs / alone.totalMs);
}

async function measure(model: string, peer: string | undefined): Promise<void> {
  const [own, theirs]: [Waits, Waits] = [new Map(), new Map()];
  for (let turn = 0; turn < Number(values.turns); turn++) {
    for (const context of values.context) {
      const tokens = Number(context);
      const contextTokens = tokens + roomTokens;
      note(own, 'plain read of the file, ms', await timed(() => readFile(model)));
      let start = performance.now();
      const hearth = await startHearth(model, contextTokens);
      note(own, 'start and load, ms', performance.now() - start);
      const text = await sourceText(tokens, hearth.count);
      await measureRequests(hearth, text, context, own);
      await hearth.stop();
      if (peer === undefined) continue;
      start = performance.now();
      const server = await startLlamaServer(model, 2 * contextTokens, threads);
      note(theirs, 'start and load, ms', performance.now() - start);
      await measureRequests(server, text, context, theirs);
      await server.stop();
    }
  }
  printTable(model, own, theirs);
}

function printTable(model: string, own: Waits, theirs: Waits): void {
  console.log(`\n${basename(model)}, ${(statSync(model).size / 1e6).toFixed(0)} MB\n`);
  console.log('| | Hearth | p95 | llama-server | p95 | ratio |\n|---|---:|---:|---:|---:|---:|');
  const digits = (value: number) => value.toFixed(value < 10 ? 2 : 0);
  for (const [what, waits] of own) {
    const peers = theirs.get(what);
    const [ours, peer] = [quantile(waits, 0.5), peers && quantile(peers, 0.5)];
    const right =
      peer === undefined
        ? ['–', '–', '–']
        : [digits(peer), digits(quantile(peers ?? [], 0.95)), (ours / peer).toFixed(2)];
    console.log(`| ${[what, digits(ours), digits(quantile(waits, 0.95)), ...right].join(' | ')} |`);
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

const peer = findLlamaServer();
console.log(
  `${cpus()[0]?.model.trim()}, ${threads} threads, Node ${process.version}, load ${(loadavg()[0] ?? 0).toFixed(1)} before, ` +
    (peer === undefined ? 'no llama-server found' : `llama.cpp ${peer}`),
);
for (const model of values.model ?? [await defaultModel()]) await measure(model, peer);
