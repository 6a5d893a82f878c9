/**
 * Measures retrieval for questions: how often the right file is found first, and the right lines are in the prompt.
 *
 *     npm run bench:context [-- --questions N] [--seed N] [--repositories A,B] [--held-back] [--beside DIR] [--plain] [--embeddings]
 *
 * Questions are made with a seed from the sources of clones (context/repositories.ts) and the messages of their commits.
 * `--repositories` takes names of that list, folders and git repositories. `--held-back` measures the repositories that no rule was
 * tuned on. `--beside` measures another checkout of Hearth on the same questions. `--misses` prints the questions without a right
 * line on the CPU. `--plain` adds the files that plain FTS5 and ripgrep (`rg`) find, `--embeddings` the index with vectors by a small
 * published model (context/miniLm.ts), which takes minutes a repository.
 */
import { rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import type { Reader } from '../engine/index/question/planner.ts';
import { seededRandom } from '../engine/sampling/random.ts';
import { embeddingFinder, type Finder, ftsFinder, ripgrepFinder } from './context/finders.ts';
import { commitQuestions } from './context/history.ts';
import { miniLm } from './context/miniLm.ts';
import { type Prompted, promptedOf, type Shown } from './context/prompted.ts';
import { makeQuestions, type Question, questionKinds } from './context/questions.ts';
import { type CheckedOut, cloned, contextSources, copied } from './context/repositories.ts';

/** The extension's budgets: for a context of 2k, the CPU's 1,200 tokens, and a GPU's share of 8k. */
const readers = {
  '2k': { contextTokens: 2048, backend: 'onnx' },
  CPU: { contextTokens: 32_768, backend: 'onnx' },
  GPU: { contextTokens: 20_480, backend: 'webgpu' },
} satisfies Record<string, Reader>;
const cuts = [1, 5, 20] as const;
const figures = [
  ...cuts.map((cut) => `@${cut}`),
  ...Object.keys(readers),
  'open, CPU',
  'lines',
  'in right files',
  'ms',
] as const;

interface Subject {
  readonly name: string;
  readonly find: Finder['find'];
  readonly shown?: Prompted['shown'];
  readonly close: () => Promise<void>;
}

interface Result {
  readonly repository: string;
  readonly kind: string;
  readonly subject: string;
  /** Values in the order of `figures`. */
  readonly values: readonly (number | undefined)[];
}

const { values: options } = parseArgs({
  options: {
    questions: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    repositories: { type: 'string', default: '' },
    'held-back': { type: 'boolean', default: false },
    beside: { type: 'string', default: '' },
    misses: { type: 'boolean', default: false },
    plain: { type: 'boolean', default: false },
    embeddings: { type: 'boolean', default: false },
  },
});

async function subjectsOf(folder: string): Promise<Subject[]> {
  const subjects: Subject[] = [{ name: 'Hearth', ...(await promptedOf(folder)) }];
  if (options.beside !== '') {
    const module: { promptedOf: typeof promptedOf } = await import(
      pathToFileURL(resolve(options.beside, 'scripts/context/prompted.ts')).href
    );
    subjects.push({ name: 'beside', ...(await module.promptedOf(folder)) });
  }
  if (options.embeddings) subjects.push(await embeddingFinder(folder, 'MiniLM', await miniLm()));
  if (options.plain) subjects.push(await ftsFinder(folder), await ripgrepFinder(folder));
  return subjects;
}

async function measure(source: CheckedOut): Promise<Result[]> {
  const { folder, name } = source;
  try {
    const random = seededRandom(Number(options.seed));
    const perKind = Number(options.questions);
    // Last, because it changes files.
    const asked = await commitQuestions(source, perKind);
    const questions = [...asked, ...(await makeQuestions(folder, perKind, random))];
    const opened = [...new Set(questions.flatMap(({ files }) => [...files]))];
    const results: Result[] = [];
    for (const subject of await subjectsOf(folder)) {
      for (const [at, question] of questions.entries()) {
        // A file of another question, so that the open file does not contain the answer.
        const open = opened.filter((path) => !question.files.has(path))[at % Math.max(1, opened.length - 1)];
        const values = await valuesOf(subject, question, open);
        results.push({ repository: name, kind: question.kind, subject: subject.name, values });
      }
      await subject.close();
    }
    return results;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function valuesOf(subject: Subject, question: Question, open: string | undefined): Promise<Result['values']> {
  const start = performance.now();
  const found = await subject.find(question.text, Math.max(...cuts));
  const ms = performance.now() - start;
  const recall = cuts.map((cut) => Number(found.slice(0, cut).some((path) => question.files.has(path))));
  const { shown } = subject;
  if (shown === undefined)
    return [...recall, ...Array.from({ length: figures.length - cuts.length - 1 }, () => undefined), ms];
  const prompts = await Promise.all(Object.values(readers).map((reader) => shown(question.text, reader, undefined)));
  const beside = await shown(question.text, readers.CPU, open);
  const own = (lines: readonly Shown[]): number => Number(holdsAny(lines, question));
  const all = prompts[1] ?? [];
  const lines = linesOf(all);
  const right = linesOf(all.filter(({ path }) => question.files.has(path)));
  if (options.misses && own(all) === 0) printMiss(subject.name, question, found, all);
  return [...recall, ...prompts.map(own), own(beside), lines, lines === 0 ? 0 : right / lines, ms];
}

const linesOf = (shown: readonly Shown[]): number =>
  shown.reduce((sum, { firstLine, lastLine }) => sum + lastLine - firstLine + 1, 0);

function printMiss(subject: string, question: Question, found: readonly string[], shown: readonly Shown[]): void {
  const places = question.places.slice(0, 3).map(({ path, line }) => `${path}:${line}`);
  const own = shown.map(({ path, firstLine, lastLine }) => `${path}:${firstLine}-${lastLine}`);
  console.error(`\n[${subject}, ${question.kind}] ${question.text.slice(0, 500)}`);
  console.error(`  right: ${[...question.files].join(' ')} (${places.join(' ')})`);
  console.error(`  found: ${found.slice(0, 5).join(' ')}\n  shown: ${own.join(' ')}`);
}

const holdsAny = (shown: readonly Shown[], { places }: Question): boolean =>
  shown.some((own) =>
    places.some(({ path, line }) => path === own.path && own.firstLine <= line && line <= own.lastLine),
  );

function row(repository: string, kind: string, subject: string, results: readonly Result[]): string {
  const means = figures.map((figure, at) => {
    const values = results.flatMap(({ values: own }) => own[at] ?? []);
    if (values.length === 0) return '–';
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return mean.toFixed(figure === 'lines' || figure === 'ms' ? 0 : 2);
  });
  return `| ${[repository, kind, results.length, subject, ...means].join(' | ')} |`;
}

function print(results: readonly Result[]): void {
  console.log(`| repository | question | n | by | ${figures.join(' | ')} |`);
  console.log(`|---|---|---:|---|${figures.map(() => '---:').join('|')}|`);
  const print = (repository: string, kind: string, own: readonly Result[]): void => {
    for (const subject of new Set(own.map((result) => result.subject))) {
      const ofSubject = own.filter((result) => result.subject === subject);
      console.log(row(repository, kind, subject, ofSubject));
    }
  };
  for (const name of new Set(results.map(({ repository }) => repository))) {
    const own = results.filter(({ repository }) => repository === name);
    print(name, 'all', own);
  }
  for (const kind of questionKinds) {
    const own = results.filter((result) => result.kind === kind);
    print('all', kind, own);
  }
  print('all', 'all', results);
}

const asked = options.repositories.split(',').filter((name) => name !== '');
const known = contextSources.filter(({ name, heldBack }) =>
  asked.length === 0 ? heldBack === options['held-back'] : asked.includes(name),
);
const names = new Set(known.map(({ name }) => name));
const results: Result[] = [];
for (const source of known) results.push(...(await measure(await cloned(source))));
for (const path of asked.filter((name) => !names.has(name))) results.push(...(await measure(await copied(path))));
print(results);
