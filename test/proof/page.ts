/**
 * Blocks of the chat page's event loop: `npm run proof:page [-- NAME]`. The page runs in Chromium with its real policy. Each
 * operation gets 1, 10 and 100 times its usual input (10 where text is streamed), and the longest task of the page's main thread is shown in milliseconds
 * of processor time, so that other programs don't count. Exits with 1 if one takes over 50 ms at ten times the usual input.
 */
import { type Browser, chromium, type Page } from 'playwright-core';
import * as z from 'zod';
import type { ToPage, Turn } from '../../extension/messages.ts';
import { ensureBrowser } from '../../scripts/browser.ts';
import { hold, openPage, post, postHeld, servePage } from '../e2e/chatPage.ts';

interface Operation {
  readonly name: string;
  /** Groups of messages; the page comes to rest between them. */
  readonly messages: (times: number) => Iterable<readonly ToPage[]>;
  /** Largest multiple; default 100. */
  readonly most?: number;
  /** What it ends with, if that comes later. */
  readonly until?: string;
}

const prose = 'The `store` in src/store.ts:12 keeps *models*; see [its tests](test/store.test.ts:3) and **retry**.\n\n';
const code = 'export function retry(attempts: number): string {\n  return "after " + attempts;\n}\n';
const diagramOf = (edges: number): string =>
  `\`\`\`mermaid\nflowchart TD\n${Array.from({ length: edges }, (_, i) => `N${i}[Step ${i}] --> N${i + 1 + (i % 3)}`).join('\n')}\n\`\`\`\n`;
const turn = (id: string, answer: string, outcome: Turn['outcome']): Turn => ({
  ...{ id, kind: 'chat', question: 'Why?', chips: [], omitted: [], model: 'M', thinking: '', steps: [] },
  ...{ answer, citations: [], missing: [], outcome },
});
const stopped = { kind: 'stopped' } as const;

/** At once, as when a conversation is opened. */
const opened = (name: string, answer: (times: number) => string): Operation => ({
  name: `opens ${name}`,
  messages: (times) => [[{ type: 'conversation', turns: [turn('a', answer(times), stopped)] }]],
});

/** In pieces of 20 characters, 50 before the page comes to rest: a quick model. */
const streamed = (name: string, answer: (times: number) => string): Operation => ({
  name: `streams ${name}`,
  most: 10,
  *messages(times) {
    const text = answer(times);
    yield [{ type: 'conversation', turns: [turn('a', '', { kind: 'running', note: '' })] }];
    for (let at = 0; at < text.length; at += 1000) {
      const pieces = text.slice(at, at + 1000).match(/.{1,20}/gs) ?? [];
      yield pieces.map((piece): ToPage => ({ type: 'delta', turn: 'a', kind: 'text', text: piece }));
    }
    yield [{ type: 'end', turn: 'a', outcome: stopped }];
  },
});

const answers: readonly (readonly [string, (times: number) => string])[] = [
  ['prose', (times) => prose.repeat(20 * times)],
  ['code', (times) => `\`\`\`ts\n${code.repeat(20 * times)}\`\`\`\n`],
  ['one long line', (times) => 'word '.repeat(400 * times)],
  ['one character', (times) => 'a'.repeat(2000 * times)],
  ['quotes', (times) => '> '.repeat(500 * times)],
  ['stars', (times) => '**'.repeat(500 * times)],
  ['brackets', (times) => '[a]('.repeat(500 * times)],
  ['a list', (times) => '- a\n'.repeat(100 * times)],
  ['a table', (times) => `|a|b|\n|-|-|\n${'|1|2|\n'.repeat(50 * times)}`],
  ['mathematics', (times) => '$$\n\\frac{a}{b} + \\sum_{i=0}^n x_i\n$$\n\n'.repeat(5 * times)],
];

const operations: readonly Operation[] = [
  ...answers.map(([name, answer]) => opened(name, answer)),
  ...answers.map(([name, answer]) => streamed(name, answer)),
  {
    name: 'opens turns',
    messages: (times) => [
      [
        {
          type: 'conversation',
          turns: Array.from({ length: 10 * times }, (_, i) => turn(`t${i}`, prose.repeat(3), stopped)),
        },
      ],
    ],
  },
  {
    name: 'shows citations',
    messages: (times) => {
      const places = Array.from({ length: 10 * times }, (_, i) => `src/f${i}.ts:${i + 1}`);
      const citations = places.map((text, i) => ({ text, path: `src/f${i}.ts`, line: i + 1, endLine: i + 1 }));
      const running = turn('a', places.map((place) => `See ${place}.\n\n`).join(''), { kind: 'running', note: '' });
      return [
        [{ type: 'conversation', turns: [running] }],
        [{ type: 'cited', turn: 'a', citations, missing: [] }],
        [{ type: 'end', turn: 'a', outcome: stopped }],
      ];
    },
  },
  {
    name: 'draws a diagram',
    // Of more than 100 edges none is drawn.
    most: 10,
    messages: (times) => [[{ type: 'conversation', turns: [turn('a', diagramOf(6 * times), stopped)] }]],
    until: '.diagram img',
  },
  {
    name: 'shows suggestions',
    messages: (times) => [
      [{ type: 'draft', draft: { text: '@a'.repeat(20 * times), start: 2, end: 2 } }],
      [{ type: 'focus' }],
    ],
  },
];

const trace = z.object({
  traceEvents: z.array(
    z.object({ name: z.string(), pid: z.number(), tid: z.number(), tdur: z.number().optional(), args: z.unknown() }),
  ),
});

/** Marked by the page itself, since a diagram's frame is a process of its own. */
const mark = 'hearth-page';

/** Microseconds on the page's main thread, of the longest task. */
function longestTask(json: string): number {
  const { traceEvents } = trace.parse(JSON.parse(json));
  const mains = new Set(traceEvents.flatMap(({ name, pid, tid }) => (name === mark ? [`${pid}:${tid}`] : [])));
  const tasks = traceEvents.filter(({ name, pid, tid }) => name.endsWith('RunTask') && mains.has(`${pid}:${tid}`));
  if (tasks.length === 0) throw new Error('The trace has no tasks of the page.');
  return Math.max(...tasks.map(({ tdur = 0 }) => tdur));
}

const rest = (page: Page): Promise<void> =>
  page.evaluate(async () => {
    for (let frames = 0; frames < 2; frames++) await new Promise((done) => requestAnimationFrame(done));
  });

async function blockedMs(browser: Browser, origin: string, operation: Operation, times: number): Promise<number> {
  const page = await openPage(browser, origin);
  page.setDefaultTimeout(120_000);
  try {
    // Compiles what the page does with any answer.
    await post(page, [{ type: 'conversation', turns: [turn('w', prose + code, stopped)] }]);
    await rest(page);
    const groups = [...operation.messages(times)];
    // In VS Code they come from another frame; here, that would be a task of the page.
    await hold(page, groups);
    await browser.startTracing(page, { categories: ['toplevel', 'blink.user_timing'] });
    await page.evaluate((name) => performance.mark(name), mark);
    for (const group of groups.keys()) {
      await postHeld(page, group);
      await rest(page);
    }
    if (operation.until !== undefined) await page.locator(operation.until).waitFor();
    return longestTask((await browser.stopTracing()).toString()) / 1000;
  } finally {
    await page.close();
  }
}

const wanted = process.argv[2] ?? '';
const mostMs = 50;
const executablePath = await ensureBrowser(console.log);
if (executablePath === undefined) throw new Error('No Chromium, Chrome or Edge is installed.');
const root = process.getuid?.() === 0;
const browser = await chromium.launch({ executablePath, args: ['--disable-gpu', ...(root ? ['--no-sandbox'] : [])] });
const { server, origin } = await servePage();
let faults = 0;
for (const operation of operations.filter(({ name }) => name.includes(wanted))) {
  const longest: number[] = [];
  for (const times of [1, 10, operation.most ?? 100].filter((n, i, all) => all.indexOf(n) === i))
    longest.push(await blockedMs(browser, origin, operation, times));
  const blocks = (longest[1] ?? 0) > mostMs;
  if (blocks) faults++;
  const figures = longest.map((ms) => ms.toFixed(1).padStart(9)).join('');
  console.log(`${operation.name.padEnd(28)}${figures}${blocks ? '  BLOCKS' : ''}`);
}
await browser.close();
server.close();
console.log(`${faults} operations block the page for over ${mostMs} ms at ten times the usual input.`);
process.exitCode = faults > 0 ? 1 : 0;
