/**
 * Processes and threads that are killed, stopped, paused, starved of memory, hang or fail at random moments while a window chats,
 * completes, summarises and indexes: `npm run proof:processes [-- --moments 200] [--seed 1] [--only TEXT]`. After each moment:
 * nothing is lost (journal, question, queue, partial answer, files to index), every answer is the one of a window that was left
 * alone or failed in one typed sentence, a dead or stopped process was replaced, and nothing is left of it.
 */
import { fork, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import * as z from 'zod';
import { seededRandom } from '../../engine/sampling/random.ts';
import { ChatStore } from '../../extension/chat/store.ts';
import { EngineFailure } from '../../extension/client/failure.ts';
import { buildProduct } from '../unit/built/product.ts';
import { makeTinyModel } from '../unit/runtime/tinyModel.ts';
import { type Answer, type Kind, kinds, question, Window, type WindowPaths } from './processWindow.ts';

const threads = { 'grammar thread': 'hearth-grammar', 'graph thread': 'hearth-compute' } as const;

/**
 * `stop`: for good. `pause`: for less than a missed heartbeat allows. `starve`: no more memory for a second and a half. `hang`: a
 * native call of this thread does not return, while the heartbeat goes on.
 */
const attacks = [
  ...(['kill', 'stop', 'pause', 'starve'] as const).flatMap((how) => [
    { target: 'engine' as const, how },
    { target: 'indexer' as const, how },
  ]),
  ...(['end', 'fail', 'pause'] as const).flatMap((how) => [
    { target: 'grammar thread' as const, how },
    { target: 'graph thread' as const, how },
  ]),
  { target: 'graph thread' as const, how: 'hang' as const },
  { target: 'engine' as const, how: 'hang' as const },
  // Alone with its engine; beside another one that shares the engine; and two that start at the same time.
  { target: 'window' as const, how: 'kill' as const },
  { target: 'other window' as const, how: 'kill' as const },
  { target: 'other window' as const, how: 'stop' as const },
  { target: 'two windows' as const, how: 'start' as const },
];
type Attack = (typeof attacks)[number];
export const nameOf = ({ target, how }: Attack): string => `${target}: ${how}`;

export interface Moment {
  readonly name: string;
  /** Into the work. */
  readonly atMs: number;
  /** From the kill, or from the stop, to the answer of a new process; undefined where none was needed. */
  readonly backMs?: number;
  /** The same with the models loaded. */
  readonly readyMs?: number;
  /** Until the children of a killed window were gone. */
  readonly goneMs?: number;
  /** Expected failures. */
  readonly failed: readonly string[];
  readonly problems: readonly string[];
}

/**
 * Loaded before the engine: on SIGUSR2 it does to its threads what the file HEARTH_FAULT says. Threads load it too. For what
 * hangs, looks at it come every two milliseconds instead of once or twice a second.
 */
const faults = `
const threads = require('node:worker_threads');
const { readFileSync, writeFileSync } = require('node:fs');
const channelOf = () => new threads.BroadcastChannel('hearth-faults');
const wait = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
const { setInterval } = globalThis;
const looks = [];
globalThis.setInterval = (look, ms, ...rest) => {
  looks.push(look);
  return setInterval(look, ms, ...rest);
};
const hasten = () => setInterval(() => { for (const look of looks) look(); }, 2);
if (threads.isMainThread) {
  const channel = channelOf();
  channel.unref();
  const running = new Set();
  threads.Worker = class extends threads.Worker {
    constructor(file, options) {
      super(file, options);
      const entry = { name: options?.name, worker: this };
      running.add(entry);
      this.once('exit', () => running.delete(entry));
    }
  };
  require('node:module').syncBuiltinESMExports();
  process.on('SIGUSR2', () => {
    const fault = JSON.parse(readFileSync(process.env.HEARTH_FAULT, 'utf8'));
    const hit = [...running].filter(({ name }) => name === fault.thread);
    if (fault.how === 'end') for (const { worker } of hit) void worker.terminate();
    else channel.postMessage(fault);
    writeFileSync(process.env.HEARTH_FAULT + '.hit', String(fault.thread === '' ? 1 : hit.length));
    if (fault.how !== 'hang') return;
    if (fault.thread === '') wait();
    else hasten();
  });
} else if (threads.threadName.startsWith('hearth-')) {
  const channel = channelOf();
  channel.onmessage = ({ data }) => {
    if (data.thread !== threads.threadName) return;
    if (data.how === 'pause') wait(data.ms);
    else if (data.how === 'hang') wait();
    else setImmediate(() => { throw new Error('A fault of the test.'); });
  };
  channel.unref();
} else {
  const channel = channelOf();
  channel.onmessage = ({ data }) => {
    if (data.how === 'hang' && data.thread === '') hasten();
  };
  channel.unref();
}
`;

export interface CampaignOptions {
  readonly moments: number;
  readonly seed: number;
  /** Names of attacks to choose from. Default: all. */
  readonly only?: (name: string) => boolean;
  readonly onMoment?: (moment: Moment) => void;
}

export async function attackProcesses({ moments, seed, only = () => true, onMoment }: CampaignOptions) {
  const root = mkdtempSync(join(tmpdir(), 'hearth-processes-'));
  const [product, chat, completing] = await Promise.all([buildProduct(), makeTinyModel(), makeTinyModel()]);
  const hook = join(root, 'faults.cjs');
  writeFileSync(hook, faults);
  const env = {
    HEARTH_HOME: join(root, 'store'),
    HEARTH_FAULT: join(root, 'fault.json'),
    NODE_OPTIONS: `--require=${hook}`,
  };
  const paths = {
    engine: product.engine,
    indexer: product.indexer,
    chatModel: chat.path,
    completionModel: completing.path,
  };
  const campaign = new Campaign({ ...paths, env }, root, seededRandom(seed));
  const chosen = attacks.filter((attack) => only(nameOf(attack)));
  const results: Moment[] = [];
  try {
    for (let i = 0; i < moments; i++) {
      const attack = chosen[i % chosen.length];
      if (attack === undefined) break;
      const moment = await campaign.moment(attack);
      results.push(moment);
      onMoment?.(moment);
    }
    return { moments: results, left: await campaign.end() };
  } finally {
    await Promise.all([product.remove(), chat.remove(), completing.remove()]);
    rmSync(root, { recursive: true, force: true });
  }
}

class Campaign {
  readonly #paths: Omit<WindowPaths, 'folder'>;
  readonly #root: string;
  readonly #random: () => number;
  #windows = 0;
  #window: Window | undefined;
  /** Answers and the length of a work that is left alone. */
  #usual: { answers: Record<Kind, string>; ms: number } | undefined;

  constructor(paths: Omit<WindowPaths, 'folder'>, root: string, random: () => number) {
    this.#paths = paths;
    this.#root = root;
    this.#random = random;
  }

  async moment(attack: Attack): Promise<Moment> {
    const window = await this.#open();
    this.#usual ??= await usualOf(window);
    const { ms } = this.#usual;
    const atMs = this.#random() * ms;
    if (attack.target === 'window') return this.#killWindow(nameOf(attack), atMs);
    if (attack.target === 'two windows') return this.#startTwo(nameOf(attack));
    const problems: string[] = [];
    const lines = window.lines.length;
    const other = attack.target === 'other window' ? await this.#fork(this.#paths) : undefined;
    if (other && other.pids[0] !== window.engine.pid) problems.push('two windows have two engines');
    const watch = new Watch(window, attack.target);
    const work = window.work();
    await sleep(atMs);
    watch.attacked();
    if (other && attack.how === 'stop') other.signal('SIGSTOP');
    if (other && attack.how === 'kill') other.signal('SIGKILL');
    const undo = other ? async () => other.signal('SIGKILL') : await this.#attack(window, attack);
    const answers = await within(work, 60_000);
    await undo().catch((error: Error) => problems.push(error.message));
    const failed: string[] = [];
    if (answers === undefined) problems.push('the work did not end within a minute');
    else problems.push(...this.#judge(attack, answers, failed));
    problems.push(...(await journalProblems(window, this.#usual.answers)));
    if (other && (await lives(other.pids[1], 3000))) problems.push('the indexer of the killed window is an orphan');
    if (other && window.engine.pid !== watch.pid) problems.push('the engine went with the other window');
    const isFatal = !other && (attack.how === 'kill' || attack.how === 'stop' || attack.how === 'hang');
    if (isFatal || watch.died) await within(watch.back(), 30_000);
    let after = await this.#afterwards(window);
    if (attack.how === 'starve' && after.length > 0 && watch.died) {
      // It ran out of memory and was still running when the attack was over.
      await within(watch.back(), 30_000);
      after = await this.#afterwards(window);
    }
    problems.push(...after);
    const died = watch.died;
    if (died && (await lives(watch.pid, 3000))) problems.push(`process ${watch.pid} is still there`);
    if (!died && isFatal) problems.push('the process was not replaced');
    if (problems.length > 0) problems.push(...window.lines.slice(lines));
    // The next loss within minutes would be treated otherwise (back-off, a second lost thread), and a window that hangs hangs again.
    const isLoss = died || (attack.target === 'graph thread' && attack.how !== 'pause');
    if (isLoss || problems.length > 0) await this.#close();
    return { name: nameOf(attack), atMs, ...watch.times, failed, problems };
  }

  /** @returns what of our processes and temporary files is left. */
  async end(): Promise<string[]> {
    await this.#close();
    await sleep(500);
    return childrenOf(process.pid).filter(
      (line) => line.includes(this.#paths.engine) || line.includes(this.#paths.indexer),
    );
  }

  async #open(): Promise<Window> {
    if (this.#window) return this.#window;
    const folder = join(this.#root, `window${++this.#windows}`);
    this.#window = new Window({ ...this.#paths, folder });
    await this.#window.ready();
    // Starts the grammar's thread too.
    await this.#window.work();
    return this.#window;
  }

  async #close(): Promise<void> {
    await this.#window?.close();
    this.#window = undefined;
  }

  /** @returns a function that undoes it. */
  async #attack(window: Window, { target, how }: Attack): Promise<() => Promise<void>> {
    if (target === 'grammar thread' || target === 'graph thread' || how === 'hang') {
      const thread = target === 'grammar thread' || target === 'graph thread' ? threads[target] : '';
      const fault = this.#paths.env['HEARTH_FAULT'] ?? '';
      rmSync(`${fault}.hit`, { force: true });
      writeFileSync(fault, JSON.stringify({ thread, how, ms: 200 + this.#random() * 1500 }));
      process.kill(window.engine.pid ?? 0, 'SIGUSR2');
      return async () => {
        for (let left = 300; left > 0 && !existsSync(`${fault}.hit`); left--) await sleep(10);
        if (!(Number(readFileSync(`${fault}.hit`, 'utf8')) > 0)) throw new Error(`There is no ${target} to attack.`);
      };
    }
    const pid = (target === 'engine' ? window.engine.pid : window.index.pid) ?? 0;
    if (how === 'kill') process.kill(pid, 'SIGKILL');
    if (how === 'starve') return starve(pid);
    if (how === 'stop' || how === 'pause') process.kill(pid, 'SIGSTOP');
    if (how !== 'pause') return async () => {};
    const resumed = sleep(200 + this.#random() * 2500).then(() => process.kill(pid, 'SIGCONT'));
    return async () => void (await resumed);
  }

  /** Adds expected failures to `failed`. @returns problems */
  #judge({ target, how }: Attack, answers: Record<Kind, Answer>, failed: string[]): string[] {
    // ONNX Runtime's binding aborts the process if its thread is ended during a call.
    const isGraph = target === 'graph thread' && (how === 'end' || how === 'hang');
    const deadly = how === 'kill' || how === 'stop' || how === 'starve' || how === 'hang' || isGraph;
    return kinds.flatMap((kind) => {
      const answer = answers[kind];
      if (answer === this.#usual?.answers[kind]) return [];
      const own = kind === 'search' ? 'indexer' : 'engine';
      if (!(deadly && (isGraph ? 'engine' : target) === own)) return [`${kind}: ${shown(answer)}`];
      // A question continues without the index.
      if (kind === 'search' && answer === '') failed.push('search: nothing');
      else if (answer instanceof Error && isClear(answer)) failed.push(`${kind}: ${answer.message}`);
      else return [`${kind}: ${shown(answer)}`];
      return [];
    });
  }

  /** Everything works again and gives the usual answers, and no file is missing from the index. */
  async #afterwards(window: Window): Promise<string[]> {
    const answers = await within(window.work(), 60_000);
    if (answers === undefined) return ['afterwards: the work did not end within a minute'];
    const different = kinds.filter((kind) => answers[kind] !== this.#usual?.answers[kind]);
    const missing = await within(window.missingFiles(), 60_000);
    return [
      ...different.map((kind) => `afterwards: ${kind}: ${shown(answers[kind])}`),
      ...(missing ?? ['the index']).map((name) => `afterwards: ${name} is not indexed`),
    ];
  }

  async #killWindow(name: string, atMs: number): Promise<Moment> {
    // With an engine of its own.
    const env = { ...this.#paths.env, HEARTH_ALONE: `${this.#windows}` };
    const { folder, pids, signal } = await this.#fork({ ...this.#paths, env });
    await sleep(atMs);
    signal('SIGKILL');
    const killedAtMs = performance.now();
    const problems = await orphans(pids);
    const goneMs = performance.now() - killedAtMs;
    const store = new ChatStore(join(folder, 'chats'), console);
    await store.restore();
    problems.push(...turnProblems(store, this.#usual?.answers));
    return { name, atMs, goneMs, failed: [], problems };
  }

  /** Two windows start at the same time, are killed at the same time, and have had one engine. */
  async #startTwo(name: string): Promise<Moment> {
    const env = { ...this.#paths.env, HEARTH_ALONE: `${this.#windows}` };
    const two = await Promise.all([this.#fork({ ...this.#paths, env }), this.#fork({ ...this.#paths, env })]);
    const problems = two[0].pids[0] === two[1].pids[0] ? [] : ['two windows have two engines'];
    for (const { signal } of two) signal('SIGKILL');
    const killedAtMs = performance.now();
    problems.push(...(await orphans(two.flatMap(({ pids }) => pids))));
    return { name, atMs: 0, goneMs: performance.now() - killedAtMs, failed: [], problems };
  }

  /** A window that is a process of its own. @returns its engine's and its indexer's ids once both are ready. */
  async #fork(paths: Omit<WindowPaths, 'folder'>) {
    const folder = join(this.#root, `window${++this.#windows}`);
    const script = fileURLToPath(import.meta.url);
    const stub = new URL('vscodeStub.ts', import.meta.url).href;
    const child = fork(script, ['--window', JSON.stringify({ ...paths, folder })], { execArgv: ['--import', stub] });
    const [message] = await once(child, 'message');
    const signal = (name: NodeJS.Signals): void => void child.kill(name);
    return { folder, pids: z.array(z.number()).parse(message), signal };
  }
}

async function orphans(pids: readonly number[]): Promise<string[]> {
  const problems: string[] = [];
  for (const pid of new Set(pids)) if (await lives(pid, 3000)) problems.push(`process ${pid} is an orphan`);
  return problems;
}

/** Sees that a process died and was replaced. */
class Watch {
  readonly pid: number | undefined;
  #attackedMs = performance.now();
  readonly #current: () => number | undefined;
  #diedMs: number | undefined;
  #backMs: number | undefined;
  #readyMs: number | undefined;
  readonly #ready: Promise<void>;

  constructor(window: Window, target: Attack['target']) {
    const { engine, index } = window;
    this.#current = () => (target === 'indexer' ? index.pid : engine.pid);
    this.pid = this.#current();
    this.#ready = new Promise((resolve) => {
      const back = (isBack: boolean, isReady: boolean): void => {
        if (this.#current() !== this.pid) this.#diedMs ??= performance.now();
        if (this.#diedMs === undefined) return;
        if (isBack) this.#backMs ??= performance.now();
        if (!isReady) return;
        this.#readyMs ??= performance.now();
        resolve();
      };
      if (target === 'indexer') index.onView(({ kind }) => back(kind === 'open', kind === 'open'));
      else engine.onView(({ state: { kind } }) => back(kind !== 'restarting' && kind !== 'starting', kind === 'ready'));
    });
  }

  attacked(): void {
    this.#attackedMs = performance.now();
  }

  get died(): boolean {
    return this.#diedMs !== undefined || this.#current() !== this.pid;
  }

  get times(): Pick<Moment, 'backMs' | 'readyMs'> {
    const [from, back, ready] = [this.#attackedMs, this.#backMs, this.#readyMs];
    return back === undefined || ready === undefined ? {} : { backMs: back - from, readyMs: ready - from };
  }

  back(): Promise<void> {
    return this.#ready;
  }
}

async function usualOf(window: Window): Promise<{ answers: Record<Kind, string>; ms: number }> {
  const startMs = performance.now();
  const answers = await window.work();
  const ms = performance.now() - startMs;
  const texts = z.record(z.enum(kinds), z.string().min(1)).parse(answers);
  return { answers: texts, ms };
}

/** Limits the address space to what it is now, for a second and a half. */
async function starve(pid: number): Promise<() => Promise<void>> {
  const bytes = 1024 * Number(/^VmSize:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
  const limit = (value: string): unknown => spawnSync('prlimit', ['--pid', String(pid), `--as=${value}:unlimited`]);
  limit(String(bytes));
  const freed = sleep(1500).then(() => limit('unlimited'));
  return async () => void (await freed);
}

/** The journal holds what the window shows: the questions, and an answer or its beginning. */
async function journalProblems({ store }: Window, usual: Record<Kind, string>): Promise<string[]> {
  await store.flush();
  const [shownNow, id] = [store.conversation.turns, store.conversation.id];
  const read = await store.read(id);
  const same = JSON.stringify(read?.turns) === JSON.stringify(shownNow);
  return [...(same ? [] : ['the journal differs from the screen']), ...turnProblems(store, usual)];
}

function turnProblems(store: ChatStore, usual: Record<Kind, string> | undefined): string[] {
  const [chat, summary] = store.conversation.turns.map(({ view }) => view);
  const problems: string[] = [];
  if (chat?.question !== question) problems.push(`the question is lost: ${chat?.question}`);
  if (!usual?.chat.startsWith(chat?.answer ?? '')) problems.push(`the answer is another: ${chat?.answer}`);
  if (summary === undefined) problems.push('the queued summary is lost');
  if (!usual?.summary.startsWith(summary?.answer ?? '')) problems.push(`the summary is another: ${summary?.answer}`);
  return problems;
}

const clearCodes: ReadonlySet<string> = new Set(['engine-ended', 'out-of-memory', 'device-lost']);
/** A turn has only its sentence left. */
const isClear = (error: Error): boolean =>
  error instanceof EngineFailure ? clearCodes.has(error.code) : !/internal|undefined/i.test(error.message);

const shown = (answer: Answer): string =>
  answer instanceof EngineFailure ? `${answer.code}: ${answer.message}` : String(answer).slice(0, 200);

async function lives(pid: number | undefined, waitMs: number): Promise<boolean> {
  const untilMs = performance.now() + waitMs;
  for (;;) {
    try {
      process.kill(pid ?? 0, 0);
    } catch {
      return false;
    }
    if (performance.now() > untilMs) return true;
    await sleep(10);
  }
}

async function within<T>(value: Promise<T>, ms: number): Promise<T | undefined> {
  const stop = new AbortController();
  const late = sleep(ms, undefined, { signal: stop.signal }).catch(() => undefined);
  try {
    return await Promise.race([value, late]);
  } finally {
    stop.abort();
  }
}

/** Command lines of the processes of Linux whose parent is `parent`, or that have lost theirs. */
function childrenOf(parent: number): string[] {
  if (!existsSync('/proc')) return [];
  return readdirSync('/proc').flatMap((pid) => {
    try {
      const owner = Number(/^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
      return owner === parent || owner === 1 ? [readFileSync(`/proc/${pid}/cmdline`, 'utf8')] : [];
    } catch {
      return [];
    }
  });
}

async function runAsWindow(paths: WindowPaths): Promise<void> {
  mkdirSync(paths.folder, { recursive: true });
  const window = new Window(paths);
  await window.ready();
  process.send?.([window.engine.pid, window.index.pid]);
  await window.work();
}

const percentile = (values: readonly number[], share: number): number =>
  [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(share * values.length))] ?? 0;

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      moments: { type: 'string', default: '200' },
      seed: { type: 'string', default: '1' },
      only: { type: 'string', default: '' },
      window: { type: 'string' },
    },
  });
  if (values.window !== undefined) await runAsWindow(JSON.parse(values.window));
  else {
    const { moments, left } = await attackProcesses({
      moments: Number(values.moments),
      seed: Number(values.seed),
      only: (name) => name.includes(values.only),
      onMoment: ({ name, atMs, backMs, failed, problems }) => {
        console.log(
          `${name.padEnd(24)} at ${atMs.toFixed(0).padStart(5)} ms  back ${backMs?.toFixed(0) ?? '-'} ms  failed ${failed.length}${problems.length > 0 ? '  PROBLEM' : ''}`,
        );
        for (const problem of problems) console.log(`    ${problem}`);
      },
    });
    for (const field of ['backMs', 'readyMs', 'goneMs'] as const) {
      const times = moments.flatMap(({ [field]: ms }) => ms ?? []);
      console.log(
        `${field}: ${times.length} times, median ${percentile(times, 0.5).toFixed(0)}, p95 ${percentile(times, 0.95).toFixed(0)}, most ${percentile(times, 1).toFixed(0)}`,
      );
    }
    const bad = moments.filter(({ problems }) => problems.length > 0).length;
    console.log(`${moments.length} moments, ${bad} with problems, ${left.length} processes left; load ${loadavg()[0]}`);
    process.exitCode = bad + left.length > 0 ? 1 : 0;
  }
}
