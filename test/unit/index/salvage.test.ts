import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, describe, expect, it } from 'vitest';
import { type IndexService, Repository } from '../../../engine/index/repository/repository.ts';
import { seal, unseal } from '../../../engine/index/repository/vectors.ts';
import { damageVectors, EmbeddedIndex, type Page, pageBytes } from '../../fuzz/damagedVectors.ts';

const index = await EmbeddedIndex.make();
afterAll(() => index.remove());
const all = index.rows.length;
const vectorPages = index.pagesOf('vectors').filter(({ rows }) => rows > 0);
const rowsOf = (pages: readonly Page[]) => pages.reduce((sum, { rows }) => sum + rows, 0);
const [filesPage, vectorsPage] = [index.pagesOf('files')[0]?.at ?? 0, vectorPages[2] ?? { at: 0, rows: 0 }];
const middle = vectorPages[Math.floor(vectorPages.length / 2)]?.at ?? 0;

const fill = (from: number, to?: number) => (path: string) =>
  writeFileSync(path, readFileSync(path).fill(0xa5, from, to));
const cut = (bytes: number) => (path: string) => writeFileSync(path, readFileSync(path).subarray(0, bytes));
/** One bit in the vector of every third row, also where SQLite left a copy when it split a page. */
function flip(path: string): void {
  const bytes = readFileSync(path);
  for (const { digest, vector } of index.rows.filter((_, row) => row % 3 === 0)) {
    const row = Buffer.concat([digest, vector]);
    for (let start = bytes.indexOf(row); start >= 0; start = bytes.indexOf(row)) {
      const at = start + digest.length + 16 + (digest[0] ?? 0);
      bytes.writeUInt8(bytes.readUInt8(at) ^ (1 << (at % 8)), at);
    }
  }
  writeFileSync(path, bytes);
}
const both = (path: string) => {
  flip(path);
  fill(0, 100)(path);
};

const embedderPage = index.pagesOf('embedder')[0]?.at ?? 0;
function nameless(path: string): void {
  fill(embedderPage, embedderPage + pageBytes)(path);
  fill(0, 100)(path);
}

describe('a damaged database', () => {
  it('has vectors on several pages, none of them beside the header', () => {
    expect(rowsOf(vectorPages)).toBe(all);
    expect(vectorPages.length).toBeGreaterThan(5);
    expect(vectorsPage.rows).toBeGreaterThan(2);
    expect(filesPage).toBeGreaterThan(0);
  });

  it.each([
    ['its header', all, fill(0, 100)],
    ["a table's page", all, fill(filesPage, filesPage + pageBytes)],
    ["a vector's page", all - vectorsPage.rows, fill(vectorsPage.at, vectorsPage.at + pageBytes)],
    ['half of its vectors, cut off', rowsOf(vectorPages.filter(({ at }) => at < middle)), cut(middle)],
    ['everything', 0, fill(0)],
    ['single bits of vectors', all - Math.ceil(all / 3), flip],
    ['single bits of vectors and its header', all - Math.ceil(all / 3), both],
  ])('gives its vectors to the new one; exactly the others are embedded again: %s', async (_, kept, damage) => {
    expect(await index.repair(damage)).toEqual({ intact: kept, kept, embedded: all - kept, wrong: 0 });
  });

  it('that is cut in half gives the vectors in it', async () => {
    const { intact, ...repair } = await index.repair(cut(readFileSync(index.database).length / 2));
    expect(repair).toEqual({ kept: intact, embedded: all - intact, wrong: 0 });
  });

  it('in which chunks have swapped vectors gives each its own', async () => {
    const exchange = (path: string) => {
      const database = new DatabaseSync(path);
      database.exec('UPDATE embedded SET vector = 3 - vector WHERE vector < 3');
      database.close();
    };
    expect(await index.repair(exchange)).toMatchObject({ kept: all, embedded: 0, wrong: 0 });
  });

  it('that is sound gives none when the user rebuilds the index', async () => {
    const rebuild = (service: IndexService) => service.rebuild();
    expect(await index.repair(() => {}, rebuild)).toMatchObject({ kept: undefined, embedded: all, wrong: 0 });
  });

  it.each([
    ['of another version', 'PRAGMA user_version = 1'],
    ['whose version is lost', 'PRAGMA user_version = 0'],
    ['whose FTS5 settings are damaged', "UPDATE terms_config SET v = 0 WHERE k = 'version'"],
    ['that lacks a table', 'DROP TABLE symbols'],
  ])('%s gives all of them', async (_, change) => {
    const damage = (path: string) => {
      const database = new DatabaseSync(path);
      if ('enableDefensive' in database) database.enableDefensive(false);
      database.exec(change);
      database.close();
    };
    expect(await index.repair(damage)).toMatchObject({ kept: all, embedded: 0, wrong: 0 });
  });

  it('that a killed process had set aside gives all of them to the next process', async () => {
    const setAside = (path: string) => renameSync(path, `${path}.damaged`);
    expect(await index.repair(setAside)).toMatchObject({ kept: all, embedded: 0, wrong: 0 });
  });

  it.each([
    ['its name is left, though another is chosen', 'another', fill(0, 100), 'scripted', all],
    ['its name is left, and none is chosen', undefined, fill(0, 100), 'scripted', all],
    ['its name is lost, and it is chosen', 'scripted', nameless, 'scripted', all],
    ['its name is lost, and another is chosen', 'another', nameless, 'another', 0],
    ['its name is lost, and none is chosen', undefined, nameless, undefined, 0],
  ])('gives the vectors of their own model: %s', async (_, chosen, damage, model, vectors) => {
    await index.repair(() => {});
    damage(index.database);
    const kept: number[] = [];
    const repository = await Repository.open({
      database: index.database,
      folders: [{ name: '', directory: index.root }],
      embeddingModel: chosen,
      onSalvage: (count) => kept.push(count),
    });
    expect([repository.embeddingModel, ...kept]).toEqual([model, vectors]);
    await repository.close();
  });

  /** A slice of `npm run fuzz:files`. */
  it('with random damage never gives a wrong vector, and none is computed that could be read', async () => {
    const { problems, salvaged } = await damageVectors(8);
    expect(problems).toEqual([]);
    expect(salvaged).toBeGreaterThan(4);
  }, 60_000);
});

it('The log of a killed process keeps its vectors, though the database is gone', async () => {
  const killed = await EmbeddedIndex.make('killed');
  try {
    const repair = await killed.repair((path) => rmSync(path));
    expect(repair).toEqual({ intact: all, kept: all, embedded: 0, wrong: 0 });
  } finally {
    killed.remove();
  }
});

describe('a sealed value', () => {
  const value = Buffer.from('a value');
  const sealed = seal('HEV1', 7, value);

  it('is found at the beginning of longer bytes', () => {
    expect(unseal('HEV1', 7, Buffer.concat([sealed, Buffer.from('more')]))).toEqual(value);
  });

  it('is not found with any bit flipped, cut anywhere, or with another seed or kind', () => {
    for (let bit = 0; bit < 8 * sealed.length; bit++) {
      const flipped = Buffer.from(sealed);
      flipped.writeUInt8(flipped.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      expect(unseal('HEV1', 7, flipped)).toBeUndefined();
    }
    for (let length = 0; length < sealed.length; length++)
      expect(unseal('HEV1', 7, sealed.subarray(0, length))).toBeUndefined();
    expect(unseal('HEV1', 8, sealed)).toBeUndefined();
    expect(unseal('HEM1', 7, sealed)).toBeUndefined();
  });
});
