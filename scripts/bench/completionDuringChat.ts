/** Completions while a chat streams: how much they slow each other down. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Goal, type Line, quantile, type Summary } from './report.ts';
import { type ChatTurn, type Requester, timed } from './requester.ts';
import { count } from './settings.ts';

/** Prompt length of a completion. */
export const keystrokeTokens = 1024;
const answerTokens = 128;
/** A fast typist: five keys a second. */
const keyMs = 200;

const atMostOne: Goal = { of: 'figure', bound: '≤', value: 1 };

export type DuringChatLines = ReturnType<typeof duringChatLines>;

export function duringChatLines(of: string) {
  const section = `${of}: a completion of ${count(keystrokeTokens)} tokens while a chat streams, against llama-server`;
  const line = (what: string, goal?: Goal): Line => ({ section, what, ...(goal && { goal }) });
  const p95 = (what: string, goal?: Goal): Line & { summary: Summary } => ({ ...line(what, goal), summary: 'p95' });
  return {
    alone: line('ms without the chat'),
    streaming: line('ms'),
    streaming95: p95('ms'),
    token: line("ms of the chat's token without completions"),
    run: line("ms of the chat's forward pass, of one token or several"),
    run95: p95("ms of the chat's forward pass, of one token or several"),
    addedToken: p95("added by the chat ÷ the chat's ms a token"),
    added: p95("added by the chat ÷ the chat's median forward pass", atMostOne),
    chat: line('time of the chat ÷ its time without completions'),
    share: line("time of the chat ÷ its time alone plus the completions' time alone", atMostOne),
  };
}

interface Typist {
  readonly note: (line: Line, value: number) => void;
  readonly lines: DuringChatLines;
  readonly keystrokes: number;
}

/** @param text before the cursor */
export async function measureCompletionDuringChat(
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
  const { latenciesMs, totalMs } = await typeWhile(engine.chat(turns, answerTokens), (i) =>
    engine.keystroke(place(100 + i)),
  );
  const runs = await engine.chatRuns?.();
  const runMs = runs && runsBefore ? runs.recentMs.slice(runsBefore.count - runs.count) : [tokenMs];
  for (const ms of runMs) for (const line of [lines.run, lines.run95]) note(line, ms);
  for (const ms of latenciesMs) {
    for (const line of [lines.streaming, lines.streaming95]) note(line, ms);
    note(lines.addedToken, (ms - aloneMs) / tokenMs);
    note(lines.added, (ms - aloneMs) / (quantile(runMs, 0.5) ?? Number.NaN));
  }
  note(lines.chat, totalMs / chatAlone.totalMs);
  note(lines.share, totalMs / (chatAlone.totalMs + latenciesMs.length * aloneMs));
}

/** @returns the latency of each key answered while the chat was streaming, and the chat's duration. */
async function typeWhile(
  chat: ReturnType<Requester['chat']>,
  key: (i: number) => Promise<void>,
): Promise<{ latenciesMs: readonly number[]; totalMs: number }> {
  let isStreaming = true;
  const end = (): void => {
    isStreaming = false;
  };
  // Awaited below, where a failure is thrown.
  chat.then(end, end);
  const latenciesMs: number[] = [];
  for (let i = 0; isStreaming; i++) {
    const ms = await timed(() => key(i));
    if (!isStreaming) break;
    latenciesMs.push(ms);
    await sleep(Math.max(0, keyMs - ms));
  }
  return { latenciesMs, totalMs: (await chat).totalMs };
}
