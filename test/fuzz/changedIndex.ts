/**
 * The index's database and the two files beside it change while the indexer runs or between two of its starts. Afterwards a
 * search finds every file, including one saved then, also in the next process. Opening the index may fail with one line if
 * something else is in its place or its folder refuses writes.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { EngineFailure } from '../../extension/client/failure.ts';
import type { Log } from '../../extension/parts.ts';
import { IndexClient } from '../../extension/repository/indexClient.ts';
import { asOrdinaryUser, type ChangeFigures, clear, damageBelow } from './damage.ts';

const silent: Log = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} };
const files = 60;
const code = (name: string): string =>
  `export function ${name}(attempts: number) {\n  return attempts + 1;\n}\n`.repeat(30);
/** Until the index is whole again, however busy the machine. */
const patienceMs = 30_000;
/** These are refused as long as they last. */
const lasting = ['replaced by a folder', 'not writable'];

class Window {
  readonly #client: IndexClient;

  constructor(indexer: string, folder: string) {
    const options = () => ({
      database: join(folder, 'index', 'index.db'),
      folders: [{ name: '', directory: join(folder, 'workspace') }],
    });
    this.#client = new IndexClient(() => ({ entry: indexer, env: {} }), silent, options);
  }

  /** @returns what is wrong; undefined once all files are found. @throws EngineFailure where the index is refused. */
  async problem(expected: readonly string[]): Promise<string | undefined> {
    let wrong: string | undefined = 'nothing was asked';
    for (const end = performance.now() + patienceMs; performance.now() < end; await sleep(50)) {
      wrong = await this.#look(expected).catch((error: unknown) => {
        if (error instanceof EngineFailure && error.code === 'unavailable' && /index could not/.test(error.message))
          throw error;
        return String(error);
      });
      if (wrong === undefined) return undefined;
    }
    return wrong;
  }

  async #look(expected: readonly string[]): Promise<string | undefined> {
    const { requests } = this.#client;
    const { phase, files: count, problem } = await requests.state();
    if (phase !== 'idle' || problem !== undefined) return problem ?? phase;
    if (count !== expected.length) return `it holds ${count} of ${expected.length} files`;
    for (const name of expected) {
      const [symbol] = await requests.symbols({ name, limit: 1 });
      const [passage] = await requests.search({ question: name, limit: 1 });
      if (symbol?.path !== `${name}.ts` || passage?.path !== `${name}.ts`) return `${name} is not found`;
    }
    return undefined;
  }

  async update(path: string): Promise<void> {
    // The process may end by this; the next one compares all files.
    await this.#client.requests.update({ paths: [path] }).catch(() => undefined);
  }

  async end(): Promise<void> {
    await this.#client.stop();
    this.#client.dispose();
  }
}

const names = Array.from({ length: files }, (_, file) => `thing${file}`);

/** A workspace, and its index after a process that was killed, which leaves all three files. */
async function prepare(indexer: string, folder: string): Promise<void> {
  mkdirSync(join(folder, 'workspace'), { recursive: true });
  for (const name of names) writeFileSync(join(folder, 'workspace', `${name}.ts`), code(name));
  const window = new Window(indexer, folder);
  const wrong = await window.problem(names);
  await window.end();
  if (wrong !== undefined) throw new Error(wrong);
}

/** @param indexer the built process. @param step 1: every change of every file; otherwise one of so many. */
export const changeIndex = (indexer: string, step: number): Promise<ChangeFigures> =>
  asOrdinaryUser(() => changeEach(indexer, step));

async function changeEach(indexer: string, step: number): Promise<ChangeFigures> {
  const root = mkdtempSync(join(tmpdir(), 'hearth-index-'));
  const [sound, folder] = [join(root, 'sound'), join(root, 'used')];
  await prepare(indexer, sound);
  const kinds = damageBelow(join(sound, 'index'), join(folder, 'index'));
  const moments = ['between two starts', 'before a search', 'before a save'] as const;
  const all = kinds.flatMap((kind) => moments.map((moment) => ({ ...kind, moment })));
  const chosen = all.filter((_, number) => number % step === 0);
  const problems: string[] = [];
  let [same, refused] = [0, 0];
  for (const { path, name, change, moment } of chosen) {
    const what = `${relative(root, path)} ${name} ${moment}`;
    clear(folder);
    cpSync(sound, folder, { recursive: true });
    let window = new Window(indexer, folder);
    try {
      if (moment !== 'between two starts') await window.problem(names);
      if (existsSync(path)) change(path);
      if (moment === 'before a search') await window.problem(names);
      writeFileSync(join(folder, 'workspace', 'fresh.ts'), code('fresh'));
      await window.update('fresh.ts');
      const now = await window.problem([...names, 'fresh']);
      if (now !== undefined) problems.push(`${what}: ${now}`);
      await window.end();
      window = new Window(indexer, folder);
      const later = await window.problem([...names, 'fresh']);
      if (later !== undefined) problems.push(`${what}, after a restart: ${later}`);
      if (now === undefined && later === undefined) same++;
    } catch (error) {
      refused++;
      const isOneLine = error instanceof EngineFailure && !error.message.includes('\n');
      if (!isOneLine || !lasting.includes(name))
        problems.push(`${what}: ${error instanceof Error ? error.stack : error}`);
    } finally {
      await window.end();
    }
  }
  clear(root);
  rmSync(root, { recursive: true, force: true });
  return { changes: chosen.length, same, refused, problems };
}
