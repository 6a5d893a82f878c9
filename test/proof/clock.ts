/**
 * Sets the clock while Hearth works: back a day, forward a year, then right again (`npm run proof:clock`). The engine answers as
 * before; caches keep the entries used since, and change sets the latest checkpoints; chats and the index lose nothing; a held
 * lock stays held, and one of a dead holder is taken over. Files get the date of the changed clock, as the system would do.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { withLock } from '../../engine/catalogue/files.ts';
import { HearthError } from '../../engine/errors.ts';
import { Repository } from '../../engine/index/repository/repository.ts';
import { listSnapshots } from '../../engine/kv/snapshotFile.ts';
import { limits } from '../../engine/limits.ts';
import { SummaryCache } from '../../engine/runtime/summaries.ts';
import { ChatStore } from '../../extension/chat/store.ts';
import { ChangeStore } from '../../extension/edits/changeStore.ts';
import { limits as ownLimits } from '../../extension/limits.ts';
import type { Log } from '../../extension/parts.ts';
import { Session } from '../fuzz/changedFiles.ts';
import { filesBelow } from '../fuzz/damage.ts';
import { saveSequence } from '../fuzz/fullDisk.ts';
import { makeTinyModel } from '../unit/runtime/tinyModel.ts';

const silent: Log = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} };
const RealDate = Date;
const dayMs = 86_400_000;
export const shiftsMs = { 'a day back': -dayMs, 'a year forward': 365 * dayMs } as const;

/** `Date` and the dates of the files below `folder`, if there is one. */
class Clock {
  readonly #folder: string | undefined;
  readonly #dated = new Map<string, number>();
  #byMs = 0;

  constructor(folder: string | undefined) {
    this.#folder = folder;
  }

  set(byMs: number): void {
    this.date();
    this.#byMs = byMs;
    globalThis.Date = new Proxy(RealDate, {
      construct: (target, args) => Reflect.construct(target, args.length === 0 ? [RealDate.now() + byMs] : args),
      get: (target, name) => (name === 'now' ? () => RealDate.now() + byMs : Reflect.get(target, name)),
    });
  }

  /** Dates what was written since by the clock that was set. */
  date(): void {
    for (const path of this.#folder === undefined ? [] : filesBelow(this.#folder)) {
      const { mtimeMs } = statSync(path);
      if (this.#dated.get(path) === mtimeMs) continue;
      // Some were dated by the engine, which reads the clock that was set.
      const isNew = Math.abs(mtimeMs - RealDate.now()) < dayMs / 24;
      const date = new RealDate(isNew ? mtimeMs + this.#byMs : mtimeMs);
      utimesSync(path, date, date);
      this.#dated.set(path, statSync(path).mtimeMs);
    }
  }

  end(): void {
    globalThis.Date = RealDate;
  }
}

interface Case {
  readonly name: string;
  /** Its files are dated by Hearth, not by the system. */
  readonly datesFiles?: true;
  /** Takes longer than a unit test may. */
  readonly isLong?: true;
  /** `set`: sets the clock. @returns what is wrong. */
  readonly run: (folder: string, clock: Clock, set: () => void) => Promise<readonly string[]>;
}

/** So that files have different dates. */
const tick = (): Promise<void> => sleep(15);

async function engine(folder: string, clock: Clock, set: () => void): Promise<readonly string[]> {
  const tiny = await makeTinyModel();
  const problems: string[] = [];
  try {
    let session = await Session.start(folder, tiny.path);
    const expected = await session.answer();
    const same = async (when: string): Promise<void> => {
      if ((await session.answer()) !== expected) problems.push(`another answer ${when}`);
    };
    set();
    await same('afterwards');
    await session.end();
    clock.date();
    session = await Session.start(folder, tiny.path);
    await same('after a restart');
    clock.set(0);
    await same('once the clock is right');
    await session.end();
    session = await Session.start(folder, tiny.path);
    await same('once the clock is right, after a restart');
    await session.end();
  } finally {
    await tiny.remove();
  }
  return problems;
}

async function snapshots(folder: string, clock: Clock, set: () => void): Promise<readonly string[]> {
  const problems: string[] = [];
  const save = async (from: number, when: string): Promise<void> => {
    await saveSequence(folder, from, 14_000);
    clock.date();
    await tick();
    saved.push(from);
    const kept = (await listSnapshots(folder)).map(({ header }) => header.tokens[0] ?? 0);
    const lost = saved.slice(-2).filter((one) => !kept.includes(one));
    if (lost.length > 0) problems.push(`keeps ${kept} and not ${lost}, used last, ${when}`);
  };
  let saved: number[] = [];
  for (const from of [0, 300, 600, 900, 1200]) await save(from, 'before');
  set();
  saved = [];
  for (const from of [1500, 1800, 2100]) await save(from, 'afterwards');
  clock.set(0);
  saved = [];
  for (const from of [2400, 2700, 3000]) await save(from, 'once the clock is right');
  return problems;
}

async function summaries(folder: string, clock: Clock, set: () => void): Promise<readonly string[]> {
  const directory = join(folder, 'summaries');
  const cache = new SummaryCache(directory);
  mkdirSync(directory, { recursive: true });
  // The second of two is one too many.
  const fill = (name: string): void => {
    for (let i = readdirSync(directory).length; i < limits.store.summaries - 1; i++)
      writeFileSync(join(directory, `${name}${i}.json`), '');
  };
  fill('old');
  set();
  const put = async (name: string): Promise<void> => {
    await cache.put(name, { text: name, parts: 1, finish: 'stop' });
    clock.date();
    await tick();
  };
  const problems: string[] = [];
  const putBoth = async (when: string): Promise<void> => {
    const names = [`first ${when}`, `second ${when}`];
    for (const name of names) await put(name);
    for (const name of names) if ((await cache.get(name)) === undefined) problems.push(`the ${name} is gone`);
  };
  await putBoth('afterwards');
  fill('more');
  clock.date();
  clock.set(0);
  await putBoth('once the clock is right');
  return problems;
}

async function changeSets(folder: string, clock: Clock, set: () => void): Promise<readonly string[]> {
  const store = new ChangeStore(folder, silent);
  const write = async (id: string): Promise<void> => {
    await store.write({ version: 1, id, title: id, at: Date.now(), files: [] });
    await store.prune();
    await tick();
  };
  for (let i = 0; i < ownLimits.edits.sets; i++) await write(`old${i}`);
  set();
  for (const id of ['a', 'b']) await write(id);
  clock.set(0);
  for (const id of ['c', 'd']) await write(id);
  const kept = (await store.list()).map(({ id }) => id);
  return ['a', 'b', 'c', 'd'].filter((id) => !kept.includes(id)).map((id) => `the checkpoint of ${id} is gone`);
}

async function chats(folder: string, clock: Clock, set: () => void): Promise<readonly string[]> {
  const problems: string[] = [];
  const store = new ChatStore(folder, silent);
  const ask = (turn: string): void => {
    store.record({ type: 'ask', turn, at: Date.now(), kind: 'chat', question: turn, attachments: [], omitted: [] });
    store.record({ type: 'delta', turn, kind: 'text', text: `answer of ${turn}` });
    store.record({ type: 'end', turn, outcome: { kind: 'stopped' } });
  };
  ask('before');
  await store.startNew();
  set();
  ask('during');
  await store.flush();
  clock.date();
  ask('later');
  clock.set(0);
  ask('after');
  await store.close();
  const next = new ChatStore(folder, silent);
  await next.restore();
  const answers = next.conversation.turns.map(({ view }) => view.answer);
  if (String(answers) !== 'answer of during,answer of later,answer of after') problems.push(`reads ${answers}`);
  const listed = await next.list();
  if (listed.length !== 2) problems.push(`lists ${listed.length} of 2 chats`);
  return problems;
}

async function index(folder: string, clock: Clock, set: () => void): Promise<readonly string[]> {
  const problems: string[] = [];
  const workspace = join(folder, 'workspace');
  mkdirSync(workspace);
  const options = { database: join(folder, 'index.db'), folders: [{ name: '', directory: workspace }] };
  const write = async (name: string): Promise<void> => {
    writeFileSync(join(workspace, 'one.ts'), `export function ${name}() { return 1; }\n`);
    clock.date();
    await tick();
  };
  const finds = async (name: string, when: string): Promise<void> => {
    const repository = await Repository.open(options);
    repository.indexer.rescan();
    await repository.settled();
    if (repository.symbols(name, 1)[0]?.name !== name) problems.push(`${name} is not found ${when}`);
    await repository.close();
  };
  await write('alpha');
  await finds('alpha', 'before');
  set();
  await finds('alpha', 'afterwards');
  await write('gamma');
  await finds('gamma', 'afterwards');
  clock.set(0);
  await write('delta');
  await finds('delta', 'once the clock is right');
  return problems;
}

async function heldLock(folder: string, _: Clock, set: () => void): Promise<readonly string[]> {
  const path = join(folder, 'a.lock');
  let release = (): void => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  const holding = withLock(path, {}, () => released);
  await sleep(100);
  set();
  const waiting = new AbortController();
  // Longer than a lock that looks old is watched.
  const timer = setTimeout(() => waiting.abort(), 20_000);
  const taken = await withLock(path, { signal: waiting.signal }, async () => true).catch((error: unknown) => {
    if (error instanceof HearthError && error.code === 'cancelled') return false;
    throw error;
  });
  clearTimeout(timer);
  release();
  await holding;
  return taken ? ['a lock that is held was taken over'] : [];
}

async function deadLock(folder: string, clock: Clock, set: () => void): Promise<readonly string[]> {
  const path = join(folder, 'a.lock');
  writeFileSync(path, JSON.stringify({ pid: 1, host: `not-${hostname()}`, token: 'gone' }));
  clock.date();
  set();
  const waiting = new AbortController();
  const timer = setTimeout(() => waiting.abort(), 2 * limits.store.lockStaleMs);
  await withLock(path, { signal: waiting.signal }, async () => undefined);
  clearTimeout(timer);
  return [];
}

export const cases: readonly Case[] = [
  { name: 'the engine', run: engine },
  { name: 'snapshots', run: snapshots },
  { name: 'summaries', run: summaries },
  { name: 'checkpoints of changes', datesFiles: true, run: changeSets },
  { name: 'chats', run: chats },
  { name: 'the index', run: index },
  { name: 'a lock that is held', isLong: true, run: heldLock },
  { name: 'a lock whose holder died on another machine', isLong: true, run: deadLock },
];

/** @returns what is wrong when the clock is set by `byMs` in the middle of a case. */
export async function setClock({ run, datesFiles }: Case, byMs: number): Promise<readonly string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'hearth-clock-'));
  const clock = new Clock(datesFiles ? undefined : folder);
  try {
    return await run(folder, clock, () => clock.set(byMs));
  } catch (error) {
    return [String(error instanceof Error ? error.stack : error)];
  } finally {
    clock.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  for (const each of cases) {
    for (const [name, byMs] of Object.entries(shiftsMs)) {
      const problems = await setClock(each, byMs);
      console.log(`${each.name}, ${name}: ${problems.length === 0 ? 'sound' : problems.join('; ')}`);
      if (problems.length > 0) process.exitCode = 1;
    }
  }
}
