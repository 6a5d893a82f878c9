/**
 * Two processes that read and write the same files at the same time: `npm run proof:shared [-- ROUNDS]`. Packed weights, digests,
 * snapshots and summaries of two engines, the database of two indexers, one journal of two windows, and the model store under
 * two command lines. Nothing is damaged, every answer is the one of a process that is alone, and one waits or says why it can't.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { readJournal } from '../../extension/chat/journal.ts';
import { ChatStore } from '../../extension/chat/store.ts';
import type { Log } from '../../extension/parts.ts';
import { IndexClient } from '../../extension/repository/indexClient.ts';
import { type EngineProcess, startEngine } from '../../scripts/shared/engineProcess.ts';
import { buildProduct, type Product, runNode } from '../unit/built/product.ts';
import { makeTinyModel } from '../unit/runtime/tinyModel.ts';

const silent: Log = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} };
const code = (name: string): string => `export function ${name}(attempts) {\n  return attempts + 1;\n}\n`;

interface Case {
  readonly name: string;
  /** @returns what is wrong, one sentence each. */
  readonly run: (product: Product, folder: string, round: number) => Promise<string[]>;
}

/** Loads, answers, summarises and unloads, which writes snapshots. */
async function answers(engine: EngineProcess, model: string): Promise<string> {
  await engine.requests.load({ model, backend: 'onnx', contextTokens: 512, threads: 1, diskCacheBytes: 64 * 2 ** 20 });
  const sampling = { temperature: 0 };
  const place = { prefix: 'value = other(1)\n'.repeat(20), suffix: '\n', maxTokens: 16, whole: true, sampling };
  const { text } = await engine.requests.complete(place);
  const file = { stream: 's', path: 'one.js', languageId: 'javascript', text: code('one').repeat(9), maxTokens: 24 };
  const summary = await engine.requests.summarise(file);
  await engine.requests.unload({});
  return `${text}\n${summary.text}`;
}

async function twoEngines({ engine }: Product, folder: string): Promise<string[]> {
  const tiny = await makeTinyModel();
  const start = (home: string): EngineProcess => startEngine(engine, { stderr: 'ignore', env: { HEARTH_HOME: home } });
  const engines: EngineProcess[] = [];
  try {
    const [alone, ...both] = [start(join(folder, 'alone')), start(join(folder, 'both')), start(join(folder, 'both'))];
    engines.push(alone, ...both);
    const expected = await answers(alone, tiny.path);
    const problems: string[] = [];
    // At first nothing is packed, digested or summarised; then each reads what the other wrote.
    for (const time of ['first', 'second']) {
      const results = await Promise.allSettled(both.map((each) => answers(each, tiny.path)));
      for (const result of results) {
        if (result.status === 'rejected') problems.push(`${time} time: ${result.reason}`);
        else if (result.value !== expected) problems.push(`${time} time: another answer: ${result.value}`);
      }
    }
    const left = readdirSync(join(folder, 'both'), { recursive: true, encoding: 'utf8' });
    return [
      ...problems,
      ...left.filter((name) => /\.(part|partial|tmp|new|lock)$|~$/.test(name)).map((name) => `${name} is left`),
    ];
  } finally {
    for (const each of engines) await each.stop();
    await tiny.remove();
  }
}

async function twoIndexers({ indexer }: Product, folder: string): Promise<string[]> {
  const workspace = join(folder, 'workspace');
  mkdirSync(workspace, { recursive: true });
  for (let i = 0; i < 150; i++) writeFileSync(join(workspace, `f${i}.js`), code(`f${i}`).repeat(10));
  const database = join(folder, 'index.db');
  const options = () => ({ database, folders: [{ name: '', directory: workspace }] });
  const both = [1, 2].map(() => new IndexClient(() => ({ entry: indexer, env: {} }), silent, options));
  try {
    await Promise.all(both.map((each) => each.start()));
    for (let i = 0; i < 20; i++) {
      writeFileSync(join(workspace, `fresh${i}.js`), code(`fresh${i}`));
      await Promise.all(both.map((each) => each.requests.update({ paths: [`fresh${i}.js`] })));
    }
    const problems: string[] = [];
    for (const each of both) {
      let state = await each.requests.state();
      for (let left = 1200; left > 0 && state.phase !== 'idle'; left--) {
        await sleep(50);
        state = await each.requests.state();
      }
      if (state.problem !== undefined) problems.push(state.problem);
      const [found] = await each.requests.symbols({ name: 'fresh19', limit: 1 });
      if (found?.path !== 'fresh19.js') problems.push('a file is missing from the index');
    }
    await Promise.all(both.map((each) => each.stop()));
    const read = new DatabaseSync(database);
    const integrity = JSON.stringify(read.prepare('PRAGMA integrity_check').all());
    const twice = read.prepare('SELECT path FROM files GROUP BY path HAVING count(*) > 1').all();
    const files = JSON.stringify(read.prepare('SELECT count(*) AS files FROM files').all());
    read.exec("INSERT INTO terms(terms) VALUES ('integrity-check')");
    read.close();
    if (!integrity.includes('"ok"')) problems.push(`the database is damaged: ${integrity}`);
    if (twice.length > 0) problems.push(`${twice.length} files are indexed twice`);
    if (!files.includes(':170}')) problems.push(`the index holds ${files}`);
    return problems;
  } finally {
    for (const each of both) each.dispose();
  }
}

const journalTurns = 120;
const journalText = (writer: string, turn: number): string => `${writer}${turn} `.repeat(400);

/** In a process of its own: questions and answers into a conversation that both have open. */
async function writeJournal(folder: string, writer: string): Promise<void> {
  const store = new ChatStore(folder, silent);
  if (!(await store.open('shared'))) throw new Error('The conversation is not there.');
  for (let i = 0; i < journalTurns; i++) {
    const turn = `${writer}${i}`;
    const asked = { kind: 'chat' as const, question: turn, attachments: [], omitted: [] };
    store.record({ type: 'ask', turn, at: 1, ...asked });
    store.record({ type: 'text', turn, thinking: '', answer: journalText(writer, i) });
    store.record({ type: 'end', turn, outcome: { kind: 'stopped' } });
    if (i % 7 === 0) await store.flush();
  }
  await store.close();
}

async function twoWindows(_: Product, folder: string): Promise<string[]> {
  const path = join(folder, 'shared.jsonl');
  writeFileSync(path, `${JSON.stringify({ type: 'chat', version: 1, id: 'shared', at: 1 })}\n`);
  const stub = new URL('vscodeStub.ts', import.meta.url).href;
  const windows = ['a', 'b'].map((writer) =>
    fork(fileURLToPath(import.meta.url), ['--journal', folder, writer], { execArgv: ['--import', stub] }),
  );
  // A program that only dates the file makes both read it again.
  const dating = setInterval(() => utimesSync(path, new Date(), new Date()), 3);
  const statuses = await Promise.all(windows.map((window: ChildProcess) => once(window, 'exit')));
  clearInterval(dating);
  const problems = statuses.flatMap(([status]) => (status === 0 ? [] : [`a window ended with ${status}`]));
  const { skipped } = (await readJournal(path)) ?? { skipped: -1 };
  if (skipped !== 0) problems.push(`${skipped} lines are damaged`);
  const read = await new ChatStore(folder, silent).read('shared');
  const answerOf = new Map(read?.turns.map(({ view }) => [view.id, view.answer]));
  for (const writer of ['a', 'b']) {
    for (let i = 0; i < journalTurns; i++)
      if (answerOf.get(`${writer}${i}`) !== journalText(writer, i)) problems.push(`turn ${writer}${i} is lost`);
  }
  return problems;
}

/** Two command lines import, list, verify and remove one model at once. */
async function twoCommandLines({ cli }: Product, folder: string): Promise<string[]> {
  const tiny = await makeTinyModel();
  const env = { HEARTH_HOME: join(folder, 'store') };
  const hearth = (...args: string[]) => runNode([cli, 'models', ...args], { env });
  try {
    const problems: string[] = [];
    const together = async (what: string, ...commands: string[][]): Promise<void> => {
      const results = await Promise.all(commands.map((args) => hearth(...args)));
      if (results.every(({ status }) => status !== 0)) problems.push(`${what}: none succeeded`);
      for (const { status, stderr } of results) {
        const [line = '', ...more] = stderr.trim().split('\n');
        if (status === 0 || (status === 1 && more.length === 0 && line !== '' && !/internal|\bat \b.*:\d+/.test(line)))
          continue;
        problems.push(`${what}: status ${status}: ${stderr}`);
      }
    };
    await together('added twice', ['add', tiny.path], ['add', tiny.path]);
    const id = basename(tiny.path).toLowerCase();
    const listed = await hearth('list');
    if (!listed.stdout.toLowerCase().includes(id)) problems.push(`it is not listed: ${listed.stdout}${listed.stderr}`);
    await together('verified and removed', ['verify', id], ['remove', id]);
    await together('added and listed', ['add', tiny.path], ['list']);
    await together('removed twice', ['remove', id], ['remove', id]);
    return problems;
  } finally {
    await tiny.remove();
  }
}

export const cases: readonly Case[] = [
  { name: 'packed weights, digests, snapshots and summaries', run: twoEngines },
  { name: "the index's database", run: twoIndexers },
  { name: 'a journal', run: twoWindows },
  { name: 'the model store', run: twoCommandLines },
];

export async function shareFiles(rounds: number, onResult: (line: string) => void = () => {}): Promise<string[]> {
  const product = await buildProduct();
  const problems: string[] = [];
  try {
    for (let round = 0; round < rounds; round++) {
      for (const { name, run } of cases) {
        const folder = mkdtempSync(join(tmpdir(), 'hearth-shared-'));
        const found = await run(product, folder, round);
        problems.push(...found.map((problem) => `${name}: ${problem}`));
        onResult(`round ${round + 1}, ${name}: ${found.length === 0 ? 'sound' : found.join('; ')}`);
        rmSync(folder, { recursive: true, force: true });
      }
    }
    return problems;
  } finally {
    await product.remove();
  }
}

if (import.meta.main) {
  const [first = '1', ...rest] = process.argv.slice(2);
  if (first === '--journal') await writeJournal(rest[0] ?? '', rest[1] ?? '');
  else {
    const problems = await shareFiles(Number(first), console.log);
    console.log(`${problems.length} problems`);
    process.exitCode = problems.length > 0 ? 1 : 0;
  }
}
