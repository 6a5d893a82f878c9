/**
 * Measures the recall of the index's retrieval against plain ripgrep and plain FTS5.
 *
 *     npm run bench:context [-- --questions N] [--seed N] [--only NAME] [--embeddings]
 *
 * Generates questions from the sources of real packages, which are downloaded once. Needs ripgrep (`rg`). `--embeddings` adds
 * the index with embeddings of a small published model (context/miniLm.ts), which takes minutes per repository.
 */
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Embedder } from '../engine/index/repository/embeddings.ts';
import { seededRandom } from '../engine/sampling/random.ts';
import { embeddingFinder, type Finder, ftsFinder, hearthFinder, ripgrepFinder } from './context/finders.ts';
import { miniLm } from './context/miniLm.ts';
import { makeQuestions, type Question, questionKinds } from './context/questions.ts';
import { type Source, sourceFolder, sources } from './context/sources.ts';

const cuts = [5, 20] as const;

interface Row {
  readonly repository: string;
  readonly kind: string;
  readonly questions: number;
  /** A finder's recall at each cutoff. */
  readonly recall: readonly { readonly finder: string; readonly shares: readonly number[] }[];
}

interface Settings {
  readonly perKind: number;
  readonly seed: number;
  readonly embedder: Embedder | undefined;
}

async function measure(source: Source, { perKind, seed, embedder }: Settings): Promise<Row[]> {
  const folder = mkdtempSync(join(tmpdir(), 'hearth-context-'));
  try {
    cpSync(await sourceFolder(source), folder, { recursive: true });
    const questions = await makeQuestions(folder, perKind, seededRandom(seed));
    const finders = [
      await hearthFinder(folder),
      ...(embedder ? [await embeddingFinder(folder, 'MiniLM', embedder)] : []),
      await ftsFinder(folder),
      await ripgrepFinder(folder),
    ];
    const rows: Row[] = [];
    for (const kind of questionKinds) {
      const own = questions.filter((question) => question.kind === kind);
      rows.push(await rowOf(source.name, kind, own, finders));
    }
    for (const finder of finders) await finder.close();
    return rows;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function rowOf(
  repository: string,
  kind: string,
  questions: readonly Question[],
  finders: readonly Finder[],
): Promise<Row> {
  const recall: Row['recall'][number][] = [];
  for (const { name, find } of finders) {
    const found: string[][] = [];
    for (const { text } of questions) found.push(await find(text, Math.max(...cuts)));
    const shares = cuts.map((cut) =>
      mean(questions.map(({ files }, i) => (found[i]?.slice(0, cut).some((path) => files.has(path)) ? 1 : 0))),
    );
    recall.push({ finder: name, shares });
  }
  return { repository, kind, questions: questions.length, recall };
}

/** Recall over all repositories and kinds, weighted by questions. */
function total(rows: readonly Row[]): Row {
  const questions = rows.reduce((sum, row) => sum + row.questions, 0);
  const finders = rows[0]?.recall.map(({ finder }) => finder) ?? [];
  const recall = finders.map((finder, f) => ({
    finder,
    shares: cuts.map(
      (_, c) => rows.reduce((sum, row) => sum + row.questions * (row.recall[f]?.shares[c] ?? 0), 0) / questions,
    ),
  }));
  return { repository: 'all', kind: 'all', questions, recall };
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);

function print(rows: readonly Row[]): void {
  const finders = rows[0]?.recall.map(({ finder }) => finder) ?? [];
  console.log(`| repository | question | n | ${finders.map((name) => `${name} @5 | @20`).join(' | ')} |`);
  console.log(`|---|---|---:|${finders.map(() => '---:|---:').join('|')}|`);
  for (const { repository, kind, questions, recall } of rows) {
    if (questions === 0) continue;
    const shares = recall.flatMap((own) => own.shares.map((share) => share.toFixed(2)));
    console.log(`| ${repository} | ${kind} | ${questions} | ${shares.join(' | ')} |`);
  }
}

const { values } = parseArgs({
  options: {
    questions: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string', default: '' },
    embeddings: { type: 'boolean', default: false },
  },
});
const embedder = values.embeddings ? await miniLm() : undefined;
const settings = { perKind: Number(values.questions), seed: Number(values.seed), embedder };
const rows: Row[] = [];
for (const source of sources) {
  if (source.name.startsWith(values.only)) rows.push(...(await measure(source, settings)));
}
await embedder?.close();
print([...rows, total(rows)]);
