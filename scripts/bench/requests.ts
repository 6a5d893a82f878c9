/**
 * What a user waits for, on the CPU, beside llama-server with prompt caching: the first token after one more keystroke, of a
 * chat's second turn and after a restart, a completion while a chat streams. Both engines run as processes of their own on the same
 * file with the same threads and prompts, one after the other in turns.
 */
import { readFileSync, statSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openModel } from '../../engine/model/open.ts';
import { startHearth } from './hearthEngine.ts';
import { startLlamaServer } from './llamaServer.ts';
import { withLongContext } from './longContext.ts';
import { defaultModel } from './models.ts';
import { type Goal, type Line, quantile, type Report, type Side, type Summary } from './report.ts';
import { type ChatTurn, type EngineOptions, type Requester, type Start, timed } from './requester.ts';
import { count, type Settings, turnsAt } from './settings.ts';

/** Room for the chat's template, question and answers. */
const roomTokens = 512;
/** Before the cursor while a chat streams: what the editor's completion sends. */
const keystrokeTokens = 1024;
const answerTokens = 128;

/** @returns what cuts so many tokens off the beginning of a long source file: the same text for both engines. */
async function openSource(model: string): Promise<(tokens: number) => string> {
  const { file, tokenizer } = await openModel(model);
  await file.close();
  if (!tokenizer) throw new Error(`${basename(model)} has no vocabulary.`);
  const source = readFileSync('node_modules/@types/vscode/index.d.ts', 'utf8');
  return (tokens) => {
    const ids = tokenizer.encode(source.slice(0, 8 * tokens), { special: 'plain' });
    return tokenizer.decode(ids.slice(0, tokens));
  };
}

const wellBelow: Goal = { of: 'ratio', bound: '≤', value: 0.8 };
const atMostOne: Goal = { of: 'figure', bound: '≤', value: 1 };

function linesOf(model: string, tokens: number) {
  const of = `${model}, ${count(tokens)} tokens of context`;
  const first = `${of}: first token in ms, against llama-server`;
  const beside = `${of}: a completion of ${count(keystrokeTokens)} tokens while a chat streams, against llama-server`;
  const line = (section: string, what: string, goal?: Goal, summary?: Summary): Line => ({
    section,
    what,
    ...(goal && { goal }),
    ...(summary && { summary }),
  });
  return {
    newPrompt: line(first, 'of a new prompt'),
    keystroke: line(first, 'after one more keystroke', wellBelow),
    keystroke95: line(first, 'after one more keystroke', undefined, 'p95'),
    secondTurn: line(first, "of a chat's second turn", wellBelow),
    restart: line(first, 'after a restart, asked as soon as the model is ready', wellBelow),
    restartLater: line(first, 'after a restart, asked a second later', wellBelow),
    alone: line(beside, 'ms without the chat'),
    streaming: line(beside, 'ms'),
    streaming95: line(beside, 'ms', undefined, 'p95'),
    step: line(beside, "ms of the chat's token without completions"),
    run: line(beside, "ms of the chat's run, of one token or several"),
    run95: line(beside, "ms of the chat's run, of one token or several", undefined, 'p95'),
    addedToken: line(beside, "added by the chat ÷ the chat's ms a token", undefined, 'p95'),
    added: line(beside, "added by the chat ÷ the chat's median run", atMostOne, 'p95'),
    chat: line(beside, 'time of the chat ÷ that without completions'),
    share: line(beside, 'time of the chat ÷ that without and what completions take without it', atMostOne),
    resident: line(`${of}: resident memory ÷ file, against llama-server`, 'with all of that known'),
  };
}

type Lines = ReturnType<typeof linesOf>;

export async function measureRequests(report: Report, settings: Settings): Promise<void> {
  for (const file of settings.models.length > 0 ? settings.models : [await defaultModel()]) {
    for (const tokens of settings.contexts) {
      const what = `requests to ${basename(file)} with ${count(tokens)} tokens`;
      await report.attempt(what, async () => {
        const contextTokens = tokens + roomTokens;
        const model = await withLongContext(file, contextTokens, report);
        await measureContext(report, settings, { model, contextTokens, threads: settings.threads }, tokens);
      });
    }
  }
}

async function measureContext(
  report: Report,
  { turns, keystrokes, server }: Settings,
  model: Omit<EngineOptions, 'directory'>,
  tokens: number,
): Promise<void> {
  const lines = linesOf(basename(model.model), tokens);
  const textOf = await openSource(model.model);
  const directory = await mkdtemp(join(tmpdir(), 'hearth-bench-'));
  const options = { ...model, directory };
  const engines: [Side, string, Start][] = [['hearth', 'Hearth', startHearth]];
  if (server !== undefined) engines.push(['other', 'llama-server', startLlamaServer]);
  try {
    // The first start with a model packs its weights, which is not every start.
    await (await startHearth(options)).stop();
    for (let turn = 1; turn <= turnsAt(turns, tokens); turn++) {
      for (const [side, name, start] of engines) {
        console.error(`${name} with ${count(tokens)} tokens, turn ${turn}`);
        const user = { textOf, lines, keystrokes, note: (line: Line, value: number) => report.note(side, line, value) };
        await report.attempt(`${name} with ${count(tokens)} tokens`, () => measureEngine(start, options, tokens, user));
      }
      await rm(join(directory, 'sequences'), { recursive: true, force: true });
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Who uses an engine, and where what is seen of it goes. */
interface User {
  readonly textOf: (tokens: number) => string;
  readonly note: (line: Line, value: number) => void;
  readonly lines: Lines;
  readonly keystrokes: number;
}

const typed = '\nexport function sum(values) { return';

/**
 * A text is read, typed on, asked about, and found again after a restart: by someone who asks at once, and by someone who looks for
 * a second first, in which an engine may read what it stored.
 */
async function measureEngine(start: Start, options: EngineOptions, tokens: number, user: User): Promise<void> {
  const text = user.textOf(tokens);
  await during(await start(options), async (engine) => {
    await measureKeystrokes(engine, text, user);
    await engine.store(text);
    const turns = await measureSecondTurn(engine, text, user);
    await measureBeside(engine, turns, user);
    user.note(user.lines.resident, engine.residentBytes() / statSync(options.model).size);
  });
  await during(await start(options), async (engine) => {
    const recallAndNext = async (): Promise<void> => {
      await engine.recall();
      await engine.next(text + typed);
    };
    user.note(user.lines.restart, await timed(recallAndNext));
  });
  await during(await start(options), async (engine) => {
    await Promise.all([engine.recall(), sleep(1000)]);
    user.note(user.lines.restartLater, await timed(() => engine.next(text + typed)));
  });
}

async function during(engine: Requester, use: (engine: Requester) => Promise<void>): Promise<void> {
  try {
    await use(engine);
  } finally {
    await engine.stop();
  }
}

async function measureKeystrokes(engine: Requester, text: string, { note, lines, keystrokes }: User): Promise<void> {
  note(lines.newPrompt, await timed(() => engine.next(text)));
  for (let i = 1; i <= keystrokes; i++) {
    const ms = await timed(() => engine.next(text + typed.slice(0, i)));
    for (const line of [lines.keystroke, lines.keystroke95]) note(line, ms);
  }
}

/** @returns the conversation. */
async function measureSecondTurn(engine: Requester, text: string, { note, lines }: User): Promise<ChatTurn[]> {
  const first: ChatTurn = { role: 'user', content: `${text}\nWhat does this file declare?` };
  const { text: answer } = await engine.chat([first], 24);
  const turns: ChatTurn[] = [first, { role: 'assistant', content: answer }, { role: 'user', content: 'Why?' }];
  note(lines.secondTurn, (await engine.chat(turns, 24)).firstMs);
  return turns;
}

/** Completions while a chat streams, and what they cost the chat. */
async function measureBeside(engine: Requester, turns: readonly ChatTurn[], user: User): Promise<void> {
  const { note, lines, keystrokes } = user;
  const text = user.textOf(keystrokeTokens);
  const place = (i: number): string => `${text}let x${i} =`;
  await engine.keystroke(place(0));
  const alone: number[] = [];
  for (let i = 1; i <= keystrokes; i++) alone.push(await timed(() => engine.keystroke(place(i))));
  for (const ms of alone) note(lines.alone, ms);
  const aloneMs = quantile(alone, 0.5) ?? Number.NaN;
  await engine.chat(turns, answerTokens);
  const chatAlone = await engine.chat(turns, answerTokens);
  const stepMs = (chatAlone.totalMs - chatAlone.firstMs) / (answerTokens - 1);
  note(lines.step, stepMs);
  const runsBefore = await engine.chatRuns?.();
  let isStreaming = true;
  const addedMs: number[] = [];
  const chat = engine.chat(turns, answerTokens).finally(() => {
    isStreaming = false;
  });
  for (let i = 100; isStreaming; i++) {
    const ms = await timed(() => engine.keystroke(place(i)));
    if (!isStreaming) break;
    for (const line of [lines.streaming, lines.streaming95]) note(line, ms);
    addedMs.push(ms - aloneMs);
    // Someone who types fast: five keys a second.
    await sleep(Math.max(0, 200 - ms));
  }
  const { totalMs } = await chat;
  const runs = await engine.chatRuns?.();
  const runMs = runs && runsBefore ? runs.recentMs.slice(runsBefore.count - runs.count) : [stepMs];
  for (const ms of runMs) for (const line of [lines.run, lines.run95]) note(line, ms);
  for (const ms of addedMs) {
    note(lines.addedToken, ms / stepMs);
    note(lines.added, ms / (quantile(runMs, 0.5) ?? Number.NaN));
  }
  note(lines.chat, totalMs / chatAlone.totalMs);
  note(lines.share, totalMs / (chatAlone.totalMs + addedMs.length * aloneMs));
}
