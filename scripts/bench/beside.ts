/** Completions while a chat streams: what the chat adds to them, and what they take from the chat. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Goal, type Line, quantile, type Summary } from './report.ts';
import { type ChatTurn, type Requester, timed } from './requester.ts';
import { count } from './settings.ts';

/** Before the cursor: what the editor's completion sends. */
export const keystrokeTokens = 1024;
const answerTokens = 128;
/** Someone who types fast: five keys a second. */
const keyMs = 200;

const atMostOne: Goal = { of: 'figure', bound: '≤', value: 1 };

export type BesideLines = ReturnType<typeof besideLines>;

export function besideLines(of: string) {
  const section = `${of}: a completion of ${count(keystrokeTokens)} tokens while a chat streams, against llama-server`;
  const line = (what: string, goal?: Goal): Line => ({ section, what, ...(goal && { goal }) });
  const p95 = (what: string, goal?: Goal): Line & { summary: Summary } => ({ ...line(what, goal), summary: 'p95' });
  return {
    alone: line('ms without the chat'),
    streaming: line('ms'),
    streaming95: p95('ms'),
    token: line("ms of the chat's token without completions"),
    run: line("ms of the chat's run, of one token or several"),
    run95: p95("ms of the chat's run, of one token or several"),
    addedToken: p95("added by the chat ÷ the chat's ms a token"),
    added: p95("added by the chat ÷ the chat's median run", atMostOne),
    chat: line('time of the chat ÷ that without completions'),
    share: line('time of the chat ÷ that without and what completions take without it', atMostOne),
  };
}

interface Typist {
  readonly note: (line: Line, value: number) => void;
  readonly lines: BesideLines;
  readonly keystrokes: number;
}

/** @param text before the cursor */
export async function measureBeside(
  engine: Requester,
  turns: readonly ChatTurn[],
  text: string,
  { note, lines, keystrokes }: Typist,
): Promise<void> {
  const place = (i: number): string => `${text}let x${i} =`;
  await engine.keystroke(place(0));
  const alone: number[] = [];
  for (let i = 1; i <= keystrokes; i++) alone.push(await timed(() => engine.keystroke(place(i))));
  for (const ms of alone) note(lines.alone, ms);
  const aloneMs = quantile(alone, 0.5) ?? Number.NaN;

  await engine.chat(turns, answerTokens);
  const chatAlone = await engine.chat(turns, answerTokens);
  const tokenMs = (chatAlone.totalMs - chatAlone.firstMs) / (chatAlone.tokens - 1);
  note(lines.token, tokenMs);

  const runsBefore = await engine.chatRuns?.();
  const { keyMs: besideMs, totalMs } = await typeWhile(engine.chat(turns, answerTokens), (i) =>
    engine.keystroke(place(100 + i)),
  );
  const runs = await engine.chatRuns?.();
  const runMs = runs && runsBefore ? runs.recentMs.slice(runsBefore.count - runs.count) : [tokenMs];
  for (const ms of runMs) for (const line of [lines.run, lines.run95]) note(line, ms);
  for (const ms of besideMs) {
    for (const line of [lines.streaming, lines.streaming95]) note(line, ms);
    note(lines.addedToken, (ms - aloneMs) / tokenMs);
    note(lines.added, (ms - aloneMs) / (quantile(runMs, 0.5) ?? Number.NaN));
  }
  note(lines.chat, totalMs / chatAlone.totalMs);
  note(lines.share, totalMs / (chatAlone.totalMs + besideMs.length * aloneMs));
}

/** @returns how long each key took that was answered while the chat went on, and how long the chat took. */
async function typeWhile(
  chat: ReturnType<Requester['chat']>,
  key: (i: number) => Promise<void>,
): Promise<{ keyMs: readonly number[]; totalMs: number }> {
  let isStreaming = true;
  const end = (): void => {
    isStreaming = false;
  };
  // Whether it fails is seen below.
  chat.then(end, end);
  const besideMs: number[] = [];
  for (let i = 0; isStreaming; i++) {
    const ms = await timed(() => key(i));
    if (!isStreaming) break;
    besideMs.push(ms);
    await sleep(Math.max(0, keyMs - ms));
  }
  return { keyMs: besideMs, totalMs: (await chat).totalMs };
}
