/**
 * A disk that is full from the n-th write on, for every n: `npm run fuzz:disk [-- STEP]`. With a new store a model is loaded,
 * completes and summarises. Each time the result is the usual answer or a one-line error; once the disk has space again, a start
 * gives the usual answer and leaves the usual files, so no partial file remains. Snapshots and chats have separate parts; SQLite's
 * writes fail in its own process (fullIndexDisk.ts). Writes of other threads do not fail.
 */
import { cpSync, existsSync, promises, rmSync } from 'node:fs';
import { mkdtemp, open } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { HearthError } from '../../engine/errors.ts';
import { PrefixCache } from '../../engine/kv/prefixCache.ts';
import { type Digest, Snapshots } from '../../engine/kv/snapshots.ts';
import type { Log } from '../../extension/parts.ts';
import { bundle } from '../unit/runtime/bundle.ts';
import { makeTinyModel } from '../unit/runtime/tinyModel.ts';
import { FakeDecoder } from '../unit/scheduler/fakeDecoder.ts';
import { Session } from './changedFiles.ts';
import { converse, restored, screenOf } from './changedJournal.ts';
import { filesBelow, runParts } from './damage.ts';
import { fillIndexDisk } from './fullIndexDisk.ts';

type Write = (...args: readonly unknown[]) => Promise<unknown>;

/** Counts the writes of this process, and fails all from a given one on. */
class Disk {
  writes = 0;
  fullFrom = Number.POSITIVE_INFINITY;
  #restore: (() => void)[] = [];

  static async watched(): Promise<Disk> {
    const disk = new Disk();
    const file = await open(import.meta.filename);
    disk.#wrap(Object.getPrototypeOf(file), ['write', 'writev', 'writeFile', 'appendFile']);
    disk.#wrap(promises, ['writeFile', 'appendFile', 'copyFile', 'mkdir']);
    await file.close();
    syncBuiltinESMExports();
    return disk;
  }

  remove(): void {
    for (const restore of this.#restore) restore();
    syncBuiltinESMExports();
  }

  #wrap(holder: object, names: readonly string[]): void {
    for (const name of names) {
      const write: Write = Reflect.get(holder, name);
      const count = (): void => this.#count();
      const wrapped: Write = async function (this: unknown, ...args) {
        count();
        return Reflect.apply(write, this, args);
      };
      Reflect.set(holder, name, wrapped);
      this.#restore.push(() => Reflect.set(holder, name, write));
    }
  }

  #count(): void {
    if (++this.writes < this.fullFrom) return;
    const message = 'ENOSPC: no space left on device, write';
    throw Object.assign(new Error(message), { code: 'ENOSPC', errno: -28, syscall: 'write' });
  }
}

export interface DiskFigures {
  readonly moments: number;
  readonly same: number;
  readonly refused: number;
  readonly problems: readonly string[];
}

/** @param step 1: full from every write on; otherwise from one of so many. */
export async function fillDisk(step: number): Promise<DiskFigures> {
  const root = await mkdtemp(join(tmpdir(), 'hearth-disk-'));
  const store = join(root, 'store');
  const model = join(store, 'models', `sha256-${'c'.repeat(64)}`);
  const tiny = await makeTinyModel();
  const disk = await Disk.watched();
  const renew = (): void => {
    rmSync(store, { recursive: true, force: true });
    cpSync(tiny.path, model, { recursive: true });
    disk.writes = 0;
  };
  const files = (): string[] => filesBelow(store).map((path) => relative(store, path));
  const problems: string[] = [];
  let [moments, same, refused] = [0, 0, 0];
  try {
    renew();
    const expected = await answerOf(store, model);
    const [usual, writes] = [files(), disk.writes];
    for (let from = 1; from <= writes; from += step) {
      const problem = (text: string): void => void problems.push(`full from write ${from} of ${writes}: ${text}`);
      moments++;
      renew();
      disk.fullFrom = from;
      try {
        if ((await answerOf(store, model)) === expected) same++;
        else problem('another answer');
      } catch (error) {
        refused++;
        if (!(error instanceof HearthError)) problem(String(error instanceof Error ? error.stack : error));
        else if (error.message.includes('\n')) problem(error.message);
      }
      disk.fullFrom = Number.POSITIVE_INFINITY;
      if ((await answerOf(store, model)) !== expected) problem('another answer afterwards');
      const left = files().filter((path) => !usual.includes(path));
      if (left.length > 0) problem(`leaves ${left.join(', ')}`);
    }
  } finally {
    disk.remove();
    await tiny.remove();
    rmSync(root, { recursive: true, force: true });
  }
  return { moments, same, refused, problems };
}

/**
 * An engine's life: a prompt of 240 tokens, whose sequence is saved.
 * @returns how many of its tokens were found on the disk.
 */
export async function saveSequence(directory: string, firstToken: number, limitBytes: number): Promise<number> {
  const prompt = Array.from({ length: 240 }, (_, i) => firstToken + i);
  const decoder = new FakeDecoder({ contextTokens: 1000, vocabularySize: 5000 });
  const cache = new PrefixCache({ decoder, maxIdle: () => 8 });
  const digest: Digest = { known: 'a'.repeat(64), compute: async () => 'a'.repeat(64) };
  const snapshots = new Snapshots({ directory, limitBytes, digest, model: 'Fake', decoder, cache, minTokens: 32 });
  await snapshots.restorePrefix(prompt, 'chat');
  const lease = cache.acquire(prompt, 'chat');
  const { sequence, cachedTokens } = lease;
  await decoder.run([{ sequence, tokens: prompt.slice(cachedTokens), logits: 'none' }]);
  cache.release(lease, prompt);
  await snapshots.save();
  await snapshots.stop();
  return cachedTokens;
}

/** The same for the sequences of a model that are written while the engine is idle. */
export async function fillSnapshots(): Promise<DiskFigures> {
  const root = await mkdtemp(join(tmpdir(), 'hearth-disk-'));
  const directory = join(root, 'sequences');
  const live = (): Promise<number> => saveSequence(directory, 0, 1e6);
  const disk = await Disk.watched();
  const problems: string[] = [];
  let [moments, same, refused] = [0, 0, 0];
  try {
    await live();
    const [usual, writes] = [filesBelow(directory), disk.writes];
    for (let from = 1; from <= writes; from++) {
      const problem = (text: string): void =>
        void problems.push(`snapshot, full from write ${from} of ${writes}: ${text}`);
      moments++;
      rmSync(directory, { recursive: true, force: true });
      disk.writes = 0;
      disk.fullFrom = from;
      await live().then(
        () => refused++,
        (error: unknown) => problem(String(error instanceof Error ? error.stack : error)),
      );
      const partial = existsSync(directory) ? filesBelow(directory) : [];
      if (partial.length > 0) problem(`leaves ${partial.join(', ')}`);
      disk.fullFrom = Number.POSITIVE_INFINITY;
      const [found, again] = [await live(), await live()];
      if (found !== 0 || again < 200) problem(`finds ${found} tokens, then ${again}`);
      else same++;
      if (String(filesBelow(directory)) !== String(usual)) problem(`leaves ${filesBelow(directory).join(', ')}`);
    }
  } finally {
    disk.remove();
    rmSync(root, { recursive: true, force: true });
  }
  return { moments, same, refused, problems };
}

/** The same for a chat: what is on screen stays there, and is on the disk once there is room and something else is written. */
export async function fillChats(): Promise<DiskFigures> {
  const root = await mkdtemp(join(tmpdir(), 'hearth-disk-'));
  const folder = join(root, 'chats');
  let lines: string[] = [];
  const note = (line: string): void => void lines.push(line);
  const log: Log = { error: note, warn: note, info: () => {}, debug: () => {} };
  const disk = await Disk.watched();
  const problems: string[] = [];
  let [moments, same, refused] = [0, 0, 0];
  /** A window, and what the next one reads. @param room the disk has some again before the last question, or once it is closed. */
  const chat = async (room: 'soon' | 'never'): Promise<'whole' | 'begun' | 'another'> => {
    const store = await restored(folder, log);
    converse(store, 0, 3);
    await store.flush();
    if (room === 'soon') disk.fullFrom = Number.POSITIVE_INFINITY;
    converse(store, 3, 4);
    await store.close();
    disk.fullFrom = Number.POSITIVE_INFINITY;
    const next = await restored(folder, log);
    await next.close();
    const [shown, stored] = [screenOf(store), screenOf(next)];
    if (shown.length === 4 && String(stored) === String(shown)) return 'whole';
    // The last one may be cut.
    const sound = stored.slice(0, -1);
    return shown.length === 4 && String(sound) === String(shown.slice(0, sound.length)) ? 'begun' : 'another';
  };
  try {
    await chat('soon');
    const { writes } = disk;
    for (const room of ['soon', 'never'] as const) {
      for (let from = 1; from <= writes; from++) {
        const problem = (text: string): void =>
          void problems.push(`chat, full from write ${from} of ${writes}, room ${room}: ${text}`);
        moments++;
        rmSync(folder, { recursive: true, force: true });
        lines = [];
        disk.writes = 0;
        disk.fullFrom = from;
        const stored = await chat(room);
        if (stored === 'whole') same++;
        else if (stored === 'begun' && room === 'never' && lines.length > 0) refused++;
        else problem(`the next window reads ${stored} chat, ${lines.length} lines in the log`);
        const partial = filesBelow(root).filter((path) => path.endsWith('.new'));
        if (partial.length > 0) problem(`leaves ${partial}`);
        if (lines.some((line) => line.includes('\n'))) problem(lines.join(' | '));
      }
    }
  } finally {
    disk.remove();
    rmSync(root, { recursive: true, force: true });
  }
  return { moments, same, refused, problems };
}

async function answerOf(store: string, model: string): Promise<string> {
  const session = await Session.start(store, model);
  try {
    return await session.answer();
  } finally {
    await session.end();
  }
}

if (import.meta.main) {
  const step = Number(process.argv[2] ?? 1);
  const indexer = await bundle('engine/indexer.ts');
  const parts = {
    index: () => fillIndexDisk(indexer.path, step),
    snapshots: () => fillSnapshots(),
    chats: () => fillChats(),
    engine: () => fillDisk(step),
  };
  try {
    await runParts(parts);
  } finally {
    await indexer.remove();
  }
}
