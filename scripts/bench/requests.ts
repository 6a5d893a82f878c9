/**
 * Latencies that a user feels on the CPU, compared with llama-server and its prompt cache: the first token after another
 * keystroke, in a chat's second turn and after a restart, and a completion while a chat streams. Both engines run in their own
 * process, alternately, with the same file, threads and prompts.
 */
import { readFileSync, statSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openModel } from '../../engine/model/open.ts';
import {
  type DuringChatLines,
  duringChatLines,
  keystrokeTokens,
  measureCompletionDuringChat,
} from './completionDuringChat.ts';
import { startHearth } from './hearthEngine.ts';
import { startLlamaServer } from './llamaServer.ts';
import { withLongContext } from './longContext.ts';
import { defaultModel } from './models.ts';
import type { Goal, Line, Report, Side } from './report.ts';
import { type ChatTurn, type EngineOptions, type Requester, type Start, timed } from './requester.ts';
import { count, type Settings, turnsAt } from './settings.ts';

/** Context tokens for the chat's template, question and answers. */
const roomTokens = 512;

/** @returns a function that takes the first N tokens of a long source file, so that both engines get the same text. */
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

function linesOf(model: string, tokens: number) {
  const of = `${model}, ${count(tokens)} tokens of context`;
  const first = `${of}: first token in ms, against llama-server`;
  return {
    newPrompt: { section: first, what: 'of a new prompt' },
    keystroke: { section: first, what: 'after one more keystroke', goal: wellBelow },
    keystroke95: { section: first, what: 'after one more keystroke', summary: 'p95' },
    secondTurn: { section: first, what: "of a chat's second turn", goal: wellBelow },
    restart: { section: first, what: 'after a restart, as soon as the model is ready', goal: wellBelow },
    restartLater: { section: first, what: 'after a restart, a second later', goal: wellBelow },
    duringChat: duringChatLines(of),
    resident: { section: `${of}: resident memory ÷ file, against llama-server`, what: 'with all of that cached' },
  } satisfies Record<string, Line | DuringChatLines>;
}

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
    // Only the first start with a model packs its weights.
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

/** An engine under test, and the callback for its figures. */
interface User {
  readonly textOf: (tokens: number) => string;
  readonly note: (line: Line, value: number) => void;
  readonly lines: ReturnType<typeof linesOf>;
  readonly keystrokes: number;
}

const typed = '\nexport function sum(values) { return';

/**
 * Prefills a text, simulates typing and a chat, restarts the engine and asks again: once immediately, and once after a second
 * in which the engine can restore its snapshot.
 */
async function measureEngine(start: Start, options: EngineOptions, tokens: number, user: User): Promise<void> {
  const text = user.textOf(tokens);
  await during(await start(options), async (engine) => {
    await measureKeystrokes(engine, text, user);
    await engine.store(text);
    const turns = await measureSecondTurn(engine, text, user);
    await measureCompletionDuringChat(engine, turns, user.textOf(keystrokeTokens), {
      ...user,
      lines: user.lines.duringChat,
    });
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
