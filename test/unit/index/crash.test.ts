import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { createMessageConnection, IPCMessageReader, IPCMessageWriter } from 'vscode-jsonrpc/node';
import { z } from 'zod';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { bundle } from '../runtime/bundle.ts';
import { folderOf, repositoryOf, tablesOf } from './folder.ts';

let indexer: Awaited<ReturnType<typeof bundle>>;
beforeAll(async () => {
  indexer = await bundle('engine/indexer.ts');
});
afterAll(() => indexer.remove());

const functionsOf = (file: number): string =>
  Array.from({ length: 40 }, (_, i) => `export function f${file}_${i}(x: number) {\n  return x + ${i};\n}\n`).join(
    '\n',
  );

async function startOn(folder: string, database: string): Promise<ChildProcess> {
  const child = fork(indexer.path, [], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const connection = createMessageConnection(new IPCMessageReader(child), new IPCMessageWriter(child));
  connection.listen();
  await connection.sendRequest('open', { database, folders: [{ name: '', directory: folder }] });
  return child;
}

/** Waits for a transaction that leaves more than `count` files in the index, or all of them. */
async function untilMoreFiles(path: string, count: number): Promise<void> {
  await vi.waitUntil(
    () => {
      if (!existsSync(path)) return false;
      const database = new DatabaseSync(path, { readOnly: true });
      try {
        const { files } = z
          .object({ files: z.number() })
          .parse(database.prepare('SELECT count(*) AS files FROM files').get());
        return files > count || files === fileCount;
      } catch (error) {
        // The tables are not there yet, or the indexer holds the lock.
        if (error instanceof Error && /no such table|locked/.test(error.message)) return false;
        throw error;
      } finally {
        database.close();
      }
    },
    { timeout: 60_000, interval: 20 },
  );
}

const fileCount = 600;

describe('an indexer that is killed in the middle of its work', () => {
  it('loses nothing: the next one continues and ends with the same index', async () => {
    const files = Object.fromEntries(Array.from({ length: fileCount }, (_, i) => [`src/f${i}.ts`, functionsOf(i)]));
    const folder = await folderOf(files);
    const storage = await folderOf({});
    const database = join(storage, 'killed.db');
    const random = seededRandom(7);
    const counts: number[] = [];
    for (let kill = 0; kill < 4; kill++) {
      const child = await startOn(folder, database);
      await untilMoreFiles(database, counts.at(-1) ?? 0);
      await sleep(300 * random());
      child.kill('SIGKILL');
      await once(child, 'exit');
      counts.push(tablesOf(database).files.length);
    }
    expect(counts).toEqual([...counts].sort((a, b) => a - b));
    expect(counts.at(-1)).toBeGreaterThan(0);
    await (await repositoryOf(folder, { database })).indexer.settled();
    const unkilled = join(storage, 'whole.db');
    await repositoryOf(folder, { database: unkilled });
    expect(tablesOf(database)).toEqual(tablesOf(unkilled));
    expect(tablesOf(database).files).toHaveLength(fileCount);
  });
});
