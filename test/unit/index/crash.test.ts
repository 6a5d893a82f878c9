import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createMessageConnection, IPCMessageReader, IPCMessageWriter } from 'vscode-jsonrpc/node';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { bundle } from '../runtime/bundle.ts';
import { folderOf, repositoryOf } from './folder.ts';

let indexer: Awaited<ReturnType<typeof bundle>>;
beforeAll(async () => {
  indexer = await bundle('engine/indexer.ts');
});
afterAll(() => indexer.remove());

const functionsOf = (file: number): string =>
  Array.from({ length: 40 }, (_, i) => `export function f${file}_${i}(x: number) {\n  return x + ${i};\n}\n`).join(
    '\n',
  );

const contents = (path: string) => {
  const database = new DatabaseSync(path);
  database.exec("INSERT INTO terms(terms) VALUES ('integrity-check')");
  database.exec('CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, terms, row)');
  const all = (sql: string) =>
    database
      .prepare(sql)
      .all()
      .map((row) => ({ ...row }));
  const found = {
    check: all('PRAGMA integrity_check'),
    files: all('SELECT path, bytes, digest, skipped FROM files ORDER BY path'),
    chunks: all(
      'SELECT path, first_line, last_line FROM chunks JOIN files ON files.id = file ORDER BY path, first_line',
    ),
    symbols: all('SELECT path, name, name_line FROM symbols JOIN files ON files.id = file ORDER BY path, name_line'),
    terms: all('SELECT term, doc FROM vocabulary ORDER BY term'),
  };
  database.close();
  return found;
};

async function startOn(folder: string, database: string): Promise<ChildProcess> {
  const child = fork(indexer.path, [], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const connection = createMessageConnection(new IPCMessageReader(child), new IPCMessageWriter(child));
  connection.listen();
  await connection.sendRequest('open', { database, folders: [{ name: '', directory: folder }] });
  return child;
}

describe('an indexer that is killed in the middle of its work', () => {
  it('has lost nothing: the next one goes on, and ends with the index of one that was never killed', async () => {
    const files = Object.fromEntries(Array.from({ length: 600 }, (_, i) => [`src/f${i}.ts`, functionsOf(i)]));
    const folder = await folderOf(files);
    const storage = await folderOf({});
    const database = join(storage, 'killed.db');
    const random = seededRandom(7);
    const counts: number[] = [];
    for (let kill = 0; kill < 4; kill++) {
      const child = await startOn(folder, database);
      // Past the first transaction, which takes half a second.
      await sleep(700 + 500 * random());
      child.kill('SIGKILL');
      await once(child, 'exit');
      counts.push(contents(database).files.length);
    }
    expect(counts).toEqual([...counts].sort((a, b) => a - b));
    expect(counts.at(-1)).toBeGreaterThan(0);
    await (await repositoryOf(folder, { database })).indexer.settled();
    const unkilled = join(storage, 'whole.db');
    await repositoryOf(folder, { database: unkilled });
    expect(contents(database)).toEqual(contents(unkilled));
    expect(contents(database).files).toHaveLength(600);
  });
});
