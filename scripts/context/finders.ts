/** Retrieval methods to compare: Hearth's index, the same with embeddings, plain FTS5 and plain ripgrep. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { Embedder } from '../../engine/index/repository/embeddings.ts';
import { IgnoreRules, walk } from '../../engine/index/repository/ignored.ts';
import { type Passage, Repository } from '../../engine/index/repository/repository.ts';
import { questionTerms } from '../../engine/index/repository/wordIndex.ts';

export interface Finder {
  readonly name: string;
  /** Paths, best first. */
  readonly find: (question: string, limit: number) => string[] | Promise<string[]>;
  readonly close: () => Promise<void>;
}

/** The same index with embedding search: both rankings fused. */
export async function embeddingFinder(folder: string, name: string, embedder: Embedder): Promise<Finder> {
  const repository = await indexed(folder);
  // Not closed, because the next repository uses the same embedder.
  repository.useEmbeddings({ model: name, open: async () => ({ ...embedder, close: async () => {} }) });
  const start = performance.now();
  await repository.settled();
  const { problem, done } = repository.state.embeddings ?? {};
  if (problem !== undefined) throw new Error(problem);
  console.error(`Embedded ${done} chunks with ${name} in ${((performance.now() - start) / 1000).toFixed(0)} s`);
  return {
    name: `Hearth with ${name}`,
    find: async (question, limit) => pathsOf(await repository.searchByMeaning(question, 2 * limit), limit),
    close: () => repository.close(),
  };
}

async function indexed(folder: string): Promise<Repository> {
  const repository = await Repository.open({ database: ':memory:', folders: [{ name: '', directory: folder }] });
  repository.indexer.rescan();
  await repository.indexer.settled();
  return repository;
}

const pathsOf = (passages: readonly Passage[], limit: number): string[] =>
  distinct(
    passages.map(({ path }) => path),
    limit,
  );

/** One row per file, with SQLite's tokenizer and ranking. */
export async function ftsFinder(folder: string): Promise<Finder> {
  const database = new DatabaseSync(':memory:');
  database.exec('CREATE VIRTUAL TABLE files USING fts5(path UNINDEXED, body)');
  const insert = database.prepare('INSERT INTO files VALUES (?, ?)');
  for (const { path, bytes } of [...walk(folder, new IgnoreRules(folder, []))].flat()) {
    if (bytes <= 1024 * 1024) insert.run(path, readFileSync(join(folder, path), 'utf8'));
  }
  const select = database.prepare('SELECT path FROM files WHERE files MATCH ? ORDER BY rank LIMIT ?');
  return {
    name: 'plain FTS5',
    find: (question, limit) => {
      const match = plainWords(question).map((word) => `"${word}"`);
      return match.length === 0 ? [] : select.all(match.join(' OR '), limit).map((row) => String(row['path']));
    },
    close: async () => database.close(),
  };
}

/** Ranks files by the number of distinct question words, then by matches. */
export async function ripgrepFinder(folder: string): Promise<Finder> {
  return {
    name: 'plain ripgrep',
    find: (question, limit) => {
      const words = plainWords(question).flatMap((word) => ['-e', word]);
      if (words.length === 0) return [];
      const byPath = new Map<string, string[]>();
      for (const line of ripgrep(['--only-matching', '--no-line-number', '-F', '-i', '-w', ...words, '.'], folder)) {
        const [, path, word] = /^\.\/(.*):(.*)$/.exec(line) ?? [];
        if (path === undefined || word === undefined) continue;
        const found = byPath.get(path);
        if (found) found.push(word.toLowerCase());
        else byPath.set(path, [word.toLowerCase()]);
      }
      const ranked = [...byPath].map(([path, found]) => ({ path, words: new Set(found).size, matches: found.length }));
      ranked.sort((a, b) => b.words - a.words || b.matches - a.matches || (a.path < b.path ? -1 : 1));
      return ranked.slice(0, limit).map(({ path }) => path);
    },
    close: async () => {},
  };
}

function ripgrep(args: readonly string[], cwd: string): string[] {
  try {
    return execFileSync('rg', args, { cwd, encoding: 'utf8', maxBuffer: 1e9 }).split('\n');
  } catch (error) {
    if (error instanceof Error && 'status' in error && error.status === 1) return [];
    throw error;
  }
}

/** Drops English stop words, as the index does. Identifiers are not split. */
function plainWords(question: string): string[] {
  const telling = new Set(questionTerms(question));
  return [...new Set(question.match(/[\p{L}\p{N}_]+/gu) ?? [])].filter((word) => telling.has(word.toLowerCase()));
}

const distinct = (paths: readonly string[], limit: number): string[] => [...new Set(paths)].slice(0, limit);
