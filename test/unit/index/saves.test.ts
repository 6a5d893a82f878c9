import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { folderOf, repositoryOf, tablesOf } from './folder.ts';

const functionOf = (name: string, lines = 12): string => {
  const body = Array.from({ length: lines }, (_, i) => `  total += ${name}Part(${i});`).join('\n');
  return `export function ${name}(total: number) {\n${body}\n  return total;\n}\n`;
};

const names = Array.from({ length: 30 }, (_, i) => `first${i}`);
const pieces = [
  "import { a } from './a.ts';\n",
  'class Holder {\n  kept = 1;\n',
  ...names.map((name) => functionOf(name)),
  '}\n',
];

/** A saved index on disk, and the rows that a save may keep. */
async function saved(before: string) {
  const folder = await folderOf({ 'file.ts': before, 'other.ts': functionOf('elsewhere') });
  const database = join(await folderOf({}), 'index.db');
  const repository = await repositoryOf(folder, { database });
  return {
    folder,
    database,
    repository,
    save: async (text: string): Promise<void> => {
      writeFileSync(join(folder, 'file.ts'), text);
      repository.indexer.update(['file.ts']);
      await repository.indexer.settled();
    },
  };
}

function idsIn(path: string, table: 'chunks' | 'symbols'): number[] {
  const database = new DatabaseSync(path, { readOnly: true });
  const rows = database.prepare(`SELECT id FROM ${table} ORDER BY id`).all();
  database.close();
  return rows.map(({ id }) => Number(id));
}

describe('a saved file', () => {
  it('leaves the same index as a rebuild, whatever was inserted, removed, repeated or renamed', async () => {
    const random = seededRandom(5);
    const { folder, database, save, repository } = await saved(pieces.join(''));
    let now: readonly string[] = pieces;
    for (let round = 0; round < 12; round++) {
      const at = Math.floor(random() * (now.length + 1));
      const length = Math.floor(random() * 6);
      const others = [functionOf(`new${round}`, 3), '\n\n', now[at] ?? '', 'const one = 1;\n', ...now.slice(0, 2)];
      now = now.toSpliced(at, length, ...others.slice(0, Math.floor(random() * 7)));
      await save(now.join(''));
      const fresh = join(await folderOf({}), 'fresh.db');
      const { files, chunks, symbols } = (await repositoryOf(folder, { database: fresh })).state;
      expect(tablesOf(database)).toEqual(tablesOf(fresh));
      expect(repository.state).toMatchObject({ files, chunks, symbols });
    }
  });

  it('writes only changed rows; others stay, even if their lines moved', async () => {
    const functions = names.map((name) => functionOf(name, 40));
    const { database, save } = await saved(functions.join(''));
    const before = { chunks: idsIn(database, 'chunks'), symbols: idsIn(database, 'symbols') };
    await save(functions.with(14, functionOf('changed', 41)).join(''));
    const after = { chunks: idsIn(database, 'chunks'), symbols: idsIn(database, 'symbols') };
    for (const table of ['chunks', 'symbols'] as const) {
      expect(after[table]).toHaveLength(before[table].length);
      expect(after[table].filter((id) => !before[table].includes(id))).toHaveLength(1);
    }
  });

  it('that became binary and text again is searched again', async () => {
    const { save, repository } = await saved(functionOf('comesBack'));
    await save('\0');
    expect(repository.state).toMatchObject({ files: 2, skipped: { binary: 1 } });
    expect(repository.definitions('comesBack', 1)).toEqual([]);
    await save(functionOf('comesBack'));
    expect(repository.state).toMatchObject({ files: 2, skipped: {} });
    expect(repository.definitions('comesBack', 1)).toHaveLength(1);
  });
});
