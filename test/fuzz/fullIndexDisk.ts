/**
 * An indexer whose files can't grow beyond n bytes, for many n, as on a full disk: its process is limited from outside
 * (`prlimit --fsize`; Node ignores the signal, so that SQLite's writes fail). Saved files are indexed meanwhile. The process
 * stays, says in one sentence that the index could not be written, answers from what it holds, and has everything once there is
 * room and a file is saved, without a restart and with a sound database. Linux only.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '../../extension/parts.ts';
import { IndexClient } from '../../extension/repository/indexClient.ts';
import type { DiskFigures } from './fullDisk.ts';

const silent: Log = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} };
const code = (name: string): string =>
  `export function ${name}(attempts: number) {\n  return attempts + 1;\n}\n`.repeat(40);
const [before, added] = [20, 30];
const patienceMs = 30_000;
/** Pages are 4 kB; a limit below one page fails the first write; limits below the database's size fail writes of the log. */
const sizes = 24;

async function idle(client: IndexClient): Promise<Awaited<ReturnType<typeof client.requests.state>>> {
  for (const end = performance.now() + patienceMs; ; await sleep(20)) {
    const state = await client.requests.state();
    if (state.phase === 'idle' && state.pending === 0) return state;
    if (performance.now() > end) throw new Error(`The index does not come to rest: ${JSON.stringify(state)}`);
  }
}

/** @param indexer the built process. @param step 1: every size; otherwise one of so many. */
export async function fillIndexDisk(indexer: string, step: number): Promise<DiskFigures> {
  const root = mkdtempSync(join(tmpdir(), 'hearth-index-disk-'));
  const problems: string[] = [];
  let [moments, same, refused] = [0, 0, 0];
  try {
    const wholeBytes = await once(indexer, join(root, 'whole'), undefined, () => {});
    for (let size = 0; size < sizes; size += step) {
      const bytes = Math.floor((wholeBytes * size) / sizes);
      moments++;
      const found: string[] = [];
      await once(indexer, join(root, String(size)), bytes, (problem) => found.push(problem)).then(
        () => (found.length === 0 ? same++ : 0),
        (error: unknown) => found.push(String(error instanceof Error ? error.stack : error)),
      );
      if (found.includes(wasRefused)) refused++;
      problems.push(
        ...found.filter((text) => text !== wasRefused).map((text) => `files of ${bytes} bytes at most: ${text}`),
      );
    }
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
  return { moments, same, refused, problems };
}

const wasRefused = 'refused';

/** @returns the size of the largest of the index's files. */
async function once(
  indexer: string,
  folder: string,
  limitBytes: number | undefined,
  tell: (problem: string) => void,
): Promise<number> {
  const [workspace, database] = [join(folder, 'workspace'), join(folder, 'index.db')];
  mkdirSync(workspace, { recursive: true });
  const save = (name: string): void => writeFileSync(join(workspace, `${name}.ts`), code(name));
  for (let i = 0; i < before; i++) save(`early${i}`);
  const options = () => ({ database, folders: [{ name: '', directory: workspace }] });
  const client = new IndexClient(() => ({ entry: indexer, env: {} }), silent, options);
  const finds = async (name: string): Promise<boolean> => {
    const [symbol] = await client.requests.symbols({ name, limit: 1 });
    return symbol?.path === `${name}.ts`;
  };
  try {
    await client.start();
    await idle(client);
    const { pid } = client;
    const limit = (size: number | 'unlimited'): unknown =>
      execFileSync('prlimit', ['--pid', String(pid), `--fsize=${size}:unlimited`]);
    if (limitBytes !== undefined) limit(limitBytes);
    for (let i = 0; i < added; i++) save(`late${i}`);
    await client.requests.update({ paths: Array.from({ length: added }, (_, i) => `late${i}.ts`) });
    const { problem } = await idle(client);
    if (problem !== undefined) tell(problem.includes('\n') ? problem : wasRefused);
    if (!(await finds('early7'))) tell('what it held is not found while the disk is full');
    if (limitBytes !== undefined) limit('unlimited');
    save('last');
    await client.requests.update({ paths: ['last.ts'] });
    const later = await idle(client);
    if (later.problem !== undefined || later.files !== before + added + 1) tell(`afterwards: ${JSON.stringify(later)}`);
    if (!(await finds('early7')) || !(await finds(`late${added - 1}`))) tell('something is not found afterwards');
    if (client.pid !== pid) tell('the process ended');
    const bytes = Math.max(...['', '-wal'].map((suffix) => statSync(database + suffix).size));
    await client.stop();
    const read = new DatabaseSync(database);
    const integrity = JSON.stringify(read.prepare('PRAGMA integrity_check').all());
    read.close();
    if (!integrity.includes('"ok"')) tell(`the database is damaged: ${integrity}`);
    return bytes;
  } finally {
    client.dispose();
  }
}
