/**
 * Measures how the work of public operations grows: `npm run proof:complexity [-- NAME]`. Each runs at 1, 10 and 100 times its usual
 * input, plain and hostile (one long line, one repeated character, many equal names). From 10 to 100 times it may take at
 * most 10 · log 100 / log 10 = 20 times as much processor time, and no step without a pause may take over 50 ms at ten
 * times the usual input. Exits with 1 otherwise.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Repository } from '../../engine/index/repository/repository.ts';
import { chunksOf } from '../../engine/index/syntax/source.ts';
import type { ChatMessage } from '../../engine/prompt/conversation.ts';
import { promptFormatOf } from '../../engine/prompt/formats/promptFormat.ts';
import { Grammars } from '../../engine/sampling/grammar.ts';
import { prepareChat } from '../../engine/tasks/chat.ts';
import { completionPrompt } from '../../engine/tasks/completionPrompt.ts';
import { runInSlices } from '../../engine/tasks/generate.ts';
import { sectionsOf } from '../../engine/tasks/sections.ts';
import { lexMarkdown } from '../../extension/answerMarkup.ts';
import { checkCitations } from '../../extension/chat/citations.ts';
import { replay } from '../../extension/chat/conversation.ts';
import { parseJournal } from '../../extension/chat/journal.ts';
import { parseMentions } from '../../extension/context/mentions.ts';
import { place } from '../../extension/edits/placement.ts';
import { patternOf, placesOf } from '../../extension/nextEdit/pattern.ts';
import { highlight } from '../../media/highlight.ts';
import { smallTokenizer } from '../unit/tokenizer/vocabularies.ts';

export interface Operation {
  readonly name: string;
  /** Runs with `times` the usual input. */
  readonly run: (times: number) => unknown;
  /** Largest multiple that the operation takes; default 100. */
  readonly most?: number;
}

const prose =
  'The `store` in src/catalogue/store.ts:12 keeps *models*; see [its tests](test/store.test.ts:3) and retry.\n\n';
const code = 'export function retry(attempts: number): string {\n  return "after " + attempts;\n}\n';
const fence = `\`\`\`ts\n${code.repeat(8)}\`\`\`\n\n`;
const chatml =
  '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}';
const tokenizer = smallTokenizer({ chat_template: chatml, eos_token: '<|im_end|>' });

const turns = (count: number, text: string): ChatMessage[] =>
  Array.from({ length: count }, (_, i) => ({
    role: i % 2 === 0 ? ('user' as const) : ('assistant' as const),
    content: `${i} ${text}`,
  })).concat({
    role: 'user',
    content: 'Why?',
  });
const prepared = (messages: ChatMessage[]) =>
  prepareChat(
    { format: promptFormatOf(tokenizer), contextTokens: 8192 },
    messages,
    { thinking: 'off', now: new Date(0) },
    {},
  );

function journal(asks: number, deltas: number): string {
  const lines = Array.from({ length: asks }, (_, i) => [
    { type: 'ask', turn: `t${i}`, kind: 'chat', question: 'Why?', attachments: [] },
    { type: 'begin', turn: `t${i}`, model: 'a model' },
    ...Array.from({ length: deltas }, () => ({ type: 'delta', turn: `t${i}`, kind: 'answer', text: 'some words ' })),
    { type: 'end', turn: `t${i}`, outcome: { kind: 'complete', note: '' } },
  ]);
  return lines
    .flat()
    .map((record) => JSON.stringify(record))
    .join('\n');
}

const lines = (count: number, line: string): string[] => Array.from({ length: count }, (_, i) => `${line}${i};`);
const surroundings = { selection: undefined, symbols: [], cursorLine: 3 };
const found = async (path: string) => ({ path, lines: 1e6 });
const properties = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`name${i}`, { type: 'string' }]));

async function compiled(schema: unknown): Promise<void> {
  const grammars = new Grammars(tokenizer);
  try {
    (await grammars.walk({ form: [[{ kind: 'json', schema }]], last: true })).close();
  } finally {
    await grammars.close();
  }
}

const folders: string[] = [];
process.once('exit', () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** An index in memory of a folder with a file of each text. */
async function indexOf(texts: readonly string[]): Promise<Repository> {
  const directory = mkdtempSync(join(tmpdir(), 'hearth-complexity-'));
  folders.push(directory);
  for (const [file, text] of texts.entries()) writeFileSync(join(directory, `f${file}.ts`), text);
  const repository = await Repository.open({ database: ':memory:', folders: [{ name: '', directory }] });
  repository.indexer.rescan();
  await repository.indexer.settled();
  return repository;
}

const definitions = (count: number): string =>
  Array.from({ length: count }, (_, i) => `export function retry${i}() {\n  return retry0();\n}\n`).join('');
const filesOf = (times: number) => Array.from({ length: 4 * times }, () => definitions(4));

/** One for each size: the first of three measurements makes it. */
const repositories = new Map<number, Promise<Repository>>();
function repositoryOf(times: number): Promise<Repository> {
  const repository = repositories.get(times) ?? indexOf(filesOf(times));
  repositories.set(times, repository);
  return repository;
}

export const operations: readonly Operation[] = [
  { name: 'tokenizer, prose', run: (times) => runInSlices(tokenizer.encodeSliced([prose.repeat(20 * times)]), {}) },
  {
    name: 'tokenizer, one character',
    run: (times) => runInSlices(tokenizer.encodeSliced(['x'.repeat(2000 * times)]), {}),
  },
  { name: 'tokenizer, blanks', run: (times) => runInSlices(tokenizer.encodeSliced([' '.repeat(2000 * times)]), {}) },
  { name: 'tokenizer, beginnings of framing', run: (times) => tokenizer.split('<|'.repeat(1000 * times)) },
  { name: 'chat, turns', run: (times) => prepared(turns(10 * times, prose)) },
  { name: 'chat, one long message', run: (times) => prepared(turns(2, prose.repeat(20 * times))) },
  {
    name: 'completion prompt, lines',
    run: (times) =>
      completionPrompt(
        tokenizer,
        {
          prefix: lines(100 * times, 'const a = ').join('\n'),
          suffix: lines(100 * times, 'b(').join('\n'),
          snippets: [],
        },
        2048,
      ),
  },
  {
    name: 'completion prompt, one line',
    run: (times) =>
      completionPrompt(
        tokenizer,
        { prefix: 'x'.repeat(2000 * times), suffix: 'y'.repeat(2000 * times), snippets: [] },
        2048,
      ),
  },
  // A schema has at most 256 kB.
  {
    name: 'grammar, properties',
    most: 100,
    run: (times) => compiled({ type: 'object', properties: properties(10 * times) }),
  },
  { name: 'grammar, choices', run: (times) => compiled({ enum: Object.keys(properties(10 * times)) }) },
  { name: 'markdown, prose', run: (times) => lexMarkdown(prose.repeat(20 * times)) },
  { name: 'markdown, paragraphs', run: (times) => lexMarkdown('a\n\n'.repeat(200 * times)) },
  { name: 'markdown, code', run: (times) => lexMarkdown(fence.repeat(4 * times)) },
  { name: 'markdown, quotes', run: (times) => lexMarkdown('> '.repeat(500 * times)) },
  { name: 'markdown, stars', run: (times) => lexMarkdown('**'.repeat(500 * times)) },
  { name: 'markdown, brackets', run: (times) => lexMarkdown('[a]('.repeat(500 * times)) },
  { name: 'markdown, dollars', run: (times) => lexMarkdown('a $b '.repeat(400 * times)) },
  { name: 'markdown, formulas', run: (times) => lexMarkdown('$$\na\n\n'.repeat(100 * times)) },
  { name: 'markdown, list', run: (times) => lexMarkdown('- a\n'.repeat(200 * times)) },
  { name: 'markdown, table', run: (times) => lexMarkdown(`|a|b|\n|-|-|\n${'|1|2|\n'.repeat(200 * times)}`) },
  ...['typescript', 'python', 'ini', 'csharp', 'markdown', 'xml', 'cpp'].flatMap((language): Operation[] => [
    { name: `highlighting ${language}, code`, run: (times) => highlight(code.repeat(2 * times), language) },
    { name: `highlighting ${language}, one word`, run: (times) => highlight('a'.repeat(200 * times), language) },
    { name: `highlighting ${language}, brackets`, run: (times) => highlight('<('.repeat(100 * times), language) },
  ]),
  { name: 'citations', run: (times) => checkCitations(prose.repeat(20 * times), found) },
  { name: 'citations, slashes', run: (times) => checkCitations('a/'.repeat(1000 * times), found) },
  { name: 'mentions', run: (times) => parseMentions('@file:a.ts '.repeat(10 * times)) },
  { name: 'mentions, signs', run: (times) => parseMentions('@'.repeat(200 * times)) },
  {
    name: 'placement, a changed line',
    run: (times) =>
      place(lines(200 * times, 'let a = ').join('\n'), lines(20 * times, 'let a = ').join('\n'), surroundings),
  },
  {
    name: 'placement, equal lines',
    run: (times) => place('x\n'.repeat(200 * times), 'x\n'.repeat(20 * times), surroundings),
  },
  {
    name: 'next edit, lines',
    run: (times) => {
      const pattern = patternOf('let a = 1;', 'const a = 1;');
      return pattern && placesOf(pattern, lines(200 * times, 'let a = '), 3);
    },
  },
  {
    name: 'next edit, one line',
    run: (times) => patternOf(`a${'x '.repeat(200 * times)}`, `b${'x '.repeat(200 * times)}`),
  },
  { name: 'journal, turns', run: (times) => replay('id', parseJournal(journal(20 * times, 5)).records) },
  { name: 'journal, pieces', run: (times) => replay('id', parseJournal(journal(1, 200 * times)).records) },
  { name: 'index, files', run: (times) => indexOf(filesOf(times)) },
  { name: 'index, one file of definitions', run: (times) => indexOf([definitions(20 * times)]) },
  { name: 'index, one line', run: (times) => indexOf(['x '.repeat(100 * times)]) },
  { name: 'search, files', run: async (times) => (await repositoryOf(times)).search('where is retry1 called', 10) },
  { name: 'search, words', run: async (times) => (await repositoryOf(1)).search('retry1 why '.repeat(5 * times), 10) },
  { name: 'search, other words', run: async (times) => (await repositoryOf(1)).search(definitions(times), 10) },
  { name: 'symbols, files', run: async (times) => (await repositoryOf(times)).symbols('retry', 100) },
  { name: 'references, files', run: async (times) => (await repositoryOf(times)).references('retry0', 100) },
  { name: 'map, files', run: async (times) => (await repositoryOf(times)).map({ maxChars: 4000 }) },
  { name: 'chunks, lines', run: (times) => chunksOf(lines(200 * times, 'let a = '), undefined) },
  { name: 'chunks, one line', run: (times) => chunksOf(['x'.repeat(5000 * times)], undefined) },
  {
    name: 'sections of a summary',
    run: (times) => sectionsOf(lines(200 * times, 'let a = ').join('\n'), [], (text) => text.length / 4, 3000),
  },
];

export interface Growth {
  readonly name: string;
  /** Processor time at 1, 10 and 100 times. */
  readonly ms: readonly number[];
  /** The longest time in which nothing else ran, at each. */
  readonly blockedMs: readonly number[];
}

const cpuMs = (): number => (process.cpuUsage().user + process.cpuUsage().system) / 1000;

/** The least of three measurements, because other work runs on the machine. */
async function measured({ run }: Operation, times: number): Promise<[ms: number, blockedMs: number]> {
  let best: [number, number] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let round = 0; round < 3; round++) {
    const delays = monitorEventLoopDelay({ resolution: 1 });
    delays.enable();
    const start = cpuMs();
    const running = run(times);
    // The loop's own clock sees only what runs after the first pause.
    const firstStepMs = cpuMs() - start;
    await running;
    const ms = cpuMs() - start;
    await new Promise((done) => setTimeout(done, 5));
    delays.disable();
    best = [Math.min(best[0], ms), Math.min(best[1], Math.max(firstStepMs, delays.max / 1e6))];
    if (ms > 10_000) break;
  }
  return best;
}

export async function growthOf(operation: Operation): Promise<Growth> {
  // Compiles what all sizes run.
  await operation.run(1);
  const sizes = [1, 10, operation.most ?? 100];
  const results: [number, number][] = [];
  for (const times of sizes) results.push(await measured(operation, times));
  return { name: operation.name, ms: results.map(([ms]) => ms), blockedMs: results.map(([, blocked]) => blocked) };
}

/** Below it, clocks and garbage collection decide. */
const leastMs = 20;
const mostGrowth = 20;
const mostBlockedMs = 50;

/** Faster than n log n from 10 to 100 times. */
export function isSteep({ ms }: Growth): boolean {
  const [, ten = 0, hundred = 0] = ms;
  return hundred > leastMs && hundred / Math.max(ten, 0.5) > mostGrowth;
}

if (import.meta.main) {
  const wanted = process.argv[2] ?? '';
  let faults = 0;
  for (const operation of operations.filter(({ name }) => name.includes(wanted))) {
    const grown = await growthOf(operation);
    const { name, ms, blockedMs } = grown;
    const growth = (ms[2] ?? 0) / Math.max(ms[1] ?? 0, 0.5);
    const steep = isSteep(grown);
    const blocks = (blockedMs[1] ?? 0) > mostBlockedMs;
    if (steep || blocks) faults++;
    const shown = (values: readonly number[]): string => values.map((value) => value.toFixed(1).padStart(8)).join('');
    console.log(
      `${name.padEnd(36)}${shown(ms)}  ×${growth.toFixed(1).padStart(6)}  blocks${shown(blockedMs)}${steep ? '  STEEP' : ''}${blocks ? '  BLOCKS' : ''}`,
    );
  }
  console.log(`${faults} operations grow faster than n log n or block.`);
  process.exitCode = faults > 0 ? 1 : 0;
}
