import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { expect, it } from 'vitest';
import { openDatabase } from '../../../engine/index/repository/database.ts';
import { Segments } from '../../../engine/index/repository/segments.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { folderOf, repositoryOf } from './folder.ts';

const random = seededRandom(3);
/** Different words, in lines as people write them. */
const words = (count: number): string =>
  Array.from(
    { length: count },
    (_, i) => `w${Math.floor(random() * 1e9).toString(36)}${i % 9 === 8 ? '\n' : ' '}`,
  ).join('');

/** FTS5 would join some of them at random moments. */
const leaveSegments = "INSERT INTO terms(terms, rank) VALUES ('automerge', 0)";

const segmentsOf = (database: DatabaseSync): number =>
  Number(database.prepare('SELECT count(DISTINCT segid) AS n FROM terms_idx').get()?.['n']);

it('segments of a large index are merged step by step, with the same content', async () => {
  const database = await openDatabase(':memory:');
  database.exec(leaveSegments);
  const insert = database.prepare("INSERT INTO terms (rowid, path, names, body) VALUES (?, '', '', ?)");
  const texts = Array.from({ length: 6 }, () => words(20_000));
  for (const [row, text] of texts.entries()) insert.run(row + 1, text);
  const segments = new Segments(database);
  expect(segments.areScattered).toBe(true);
  let steps = 1;
  while (segments.joinSome()) steps++;
  expect(steps).toBeGreaterThan(1);
  expect(segmentsOf(database)).toBe(1);
  expect(segments.areScattered).toBe(false);
  database.exec("INSERT INTO terms(terms) VALUES ('integrity-check')");
  const find = database.prepare('SELECT rowid AS row FROM terms WHERE terms MATCH ?');
  for (const [row, text] of texts.entries()) {
    expect(find.all(`"${text.slice(0, text.indexOf(' '))}"`).map((own) => own['row'])).toContain(row + 1);
  }
  database.close();
});

it('a small index stays as it is', async () => {
  const database = await openDatabase(':memory:');
  const insert = database.prepare("INSERT INTO terms (rowid, path, names, body) VALUES (?, '', '', ?)");
  for (let row = 1; row <= 3; row++) insert.run(row, words(100));
  expect(segmentsOf(database)).toBe(3);
  expect(new Segments(database).areScattered).toBe(false);
  database.close();
});

it('the indexer merges them once all files are indexed', async () => {
  const files = Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`text${i}.txt`, words(20_000)]));
  const database = join(await folderOf({}), 'index.db');
  const prepared = await openDatabase(database);
  prepared.exec(leaveSegments);
  prepared.close();
  const repository = await repositoryOf(await folderOf(files), { database });
  expect(repository.state).toMatchObject({ phase: 'idle', pending: 0, files: 12, skipped: {} });
  const other = new DatabaseSync(database, { readOnly: true });
  expect(segmentsOf(other)).toBe(1);
  other.close();
});
