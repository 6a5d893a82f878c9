/**
 * Measures quality and latency of the default model's completions on held-out lines of real repositories, with and without
 * context from other files, with a warm engine.
 *
 *     npm run build && npm run bench:completion [-- --lines N] [--seed N] [--model ID] [--context-chars N]
 *                                               [--repositories A,B] [--quality] [--oracle] [--names]
 *                                               [--threads N]
 *
 * Each line is completed twice: at its start, which prefills the prompt, and after some of its tokens, as while typing. Each
 * request asks for a second candidate, because the engine then reports its confidence; the times include this. Exact match
 * and edit similarity compare the second completion with the rest of the line, as the editor would show it.
 *
 * Every second line is one whose rest names something that another file defines. `--repositories` takes folders and git
 * repositories instead of three packages. `--quality` completes at the cursor only, which gives no latency. `--oracle`
 * adds contexts made with the true line, which show whether retrieval or the model is the limit. `--names`
 * loads no model: it counts the names that the rest of a line needs and the text above the cursor lacks, and how many of them the context has.
 * `--threads 1` is many times as fast on a busy machine, since threads wait for each other.
 */
import { rmSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { defaultModelId } from '../engine/catalogue/catalogue.ts';
import { HearthError } from '../engine/errors.ts';
import { Repository } from '../engine/index/repository/repository.ts';
import { seededRandom } from '../engine/sampling/random.ts';
import { fitting, type Snippet } from '../extension/completion/moment.ts';
import { limits } from '../extension/limits.ts';
import { aroundOf, foundSnippets, oracleSnippets, snippetsFor } from './completion/context.ts';
import { foreignNames, type HeldOut, heldOutLines, momentIn, namesIn } from './completion/heldOut.ts';
import {
  type Context,
  editSimilarity,
  printExact,
  printThresholds,
  printTimes,
  type Result,
} from './completion/report.ts';
import { copied } from './context/repositories.ts';
import { sourceFolder, sources } from './context/sources.ts';
import { startEngine } from './shared/engineProcess.ts';

const { values } = parseArgs({
  options: {
    lines: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    model: { type: 'string', default: defaultModelId },
    'context-chars': { type: 'string', default: String(limits.completion.cpuContextChars) },
    repositories: { type: 'string', default: '' },
    quality: { type: 'boolean', default: false },
    oracle: { type: 'boolean', default: false },
    names: { type: 'boolean', default: false },
    threads: { type: 'string' },
  },
});

/** Excludes build output in packages, which would give the answers away. */
const handWritten: Readonly<Record<string, string>> = { 'zod 4.1.12': 'package/src' };

type Engine = ReturnType<typeof startEngine>;

/** The suggestion that the editor would show, and its latency. */
async function complete(
  engine: Engine,
  held: HeldOut,
  snippets: readonly Snippet[],
  cursor: number,
): Promise<{ text: string; logProbability: number; ms: number; firstTokenMs: number; readTokens: number }> {
  const moment = momentIn(held, cursor);
  const { prefix, suffix, languageId } = moment;
  const place = { prefix, suffix, languageId, path: held.path, snippets: [...snippets] };
  const start = performance.now();
  // With a second candidate, the engine reports its confidence and still shows every completion.
  const asked = { ...place, maxTokens: 64, multiline: 'never', candidates: 2, sampling: { temperature: 0 } } as const;
  const answer = await patiently(() => engine.requests.complete(asked));
  const { text, logProbability = Number.NaN, statistics } = answer;
  const { timeToFirstTokenMs: firstTokenMs, promptTokens, cachedTokens } = statistics;
  return { text, logProbability, ms: performance.now() - start, firstTokenMs, readTokens: promptTokens - cachedTokens };
}

/** The engine stops after its time limit and keeps the prefilled chunks, so the request is retried. */
async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof HearthError && error.code === 'timeout')) throw error;
      givenUp += 1;
    }
  }
}
let givenUp = 0;

async function opened(folder: string): Promise<Repository> {
  const repository = await Repository.open({ database: ':memory:', folders: [{ name: '', directory: folder }] });
  repository.indexer.rescan();
  await repository.indexer.settled();
  return repository;
}

/** Half of the lines name something that another file defines. */
function linesOf(repository: Repository, folder: string): { readonly kind: string; readonly held: HeldOut }[] {
  const random = seededRandom(Number(values.seed));
  const half = Math.ceil(Number(values.lines) / 2);
  const naming = heldOutLines(folder, half, random, (held) => foreignNames(repository, held).length > 0);
  const any = heldOutLines(folder, half, random);
  return [
    ...naming.map((held) => ({ kind: 'names something of another file', held })),
    ...any.map((held) => ({ kind: 'any', held })),
  ];
}

function contextsOf(repository: Repository, folder: string, held: HeldOut): [Context, readonly Snippet[]][] {
  const cut = (snippets: readonly Snippet[]) => fitting(snippets, aroundOf(held), Number(values['context-chars']));
  const found = foundSnippets(repository, folder, held);
  const shown: [Context, readonly Snippet[]][] = [
    ['without', []],
    ['with', cut(found)],
  ];
  if (!values.oracle) return shown;
  const oracle = oracleSnippets(repository, folder, held);
  return [...shown, ['oracle', cut(oracle)], ['oracle and with', cut([...oracle, ...found])]];
}

async function measure(engine: Engine, { name, folder }: Corpus): Promise<Result[]> {
  const repository = await opened(folder);
  const results: Result[] = [];
  for (const { kind, held } of linesOf(repository, folder)) {
    for (const [context, snippets] of contextsOf(repository, folder, held)) {
      const newPlaceMs = values.quality ? undefined : (await complete(engine, held, snippets, held.start)).ms;
      const { text, logProbability, ms: nextKeyMs, ...read } = await complete(engine, held, snippets, held.cursor);
      const exact = text.trim() === held.expected.trim() ? 1 : 0;
      const similarity = editSimilarity(text.trim(), held.expected.trim());
      const place = `${kind} ${name}/${held.path}:${held.line + 1}`;
      const about = { repository: name, kind, place, context, exact, similarity, isShown: text !== '' };
      results.push({ ...about, logProbability, newPlaceMs, nextKeyMs, ...read });
      const chars = snippets.reduce((sum, own) => sum + own.text.length, 0);
      console.error(JSON.stringify({ ...results.at(-1), chars, expected: held.expected, text }));
    }
  }
  await repository.close();
  return results;
}

interface Corpus {
  readonly name: string;
  readonly folder: string;
}

async function corpora(): Promise<{ readonly all: Corpus[]; readonly remove: () => void }> {
  const paths = values.repositories.split(',').filter((path) => path !== '');
  if (paths.length > 0) {
    const all = await Promise.all(paths.map(copied));
    const remove = () => {
      for (const { folder } of all) rmSync(folder, { recursive: true });
    };
    return { all, remove };
  }
  const all = await Promise.all(
    sources.map(async (source) => ({
      name: source.name,
      folder: join(await sourceFolder(source), handWritten[source.name] ?? ''),
    })),
  );
  return { all, remove: () => {} };
}

async function printQuality(all: readonly Corpus[]): Promise<void> {
  const engine = startEngine('dist/engine.mjs');
  const threads = values.threads === undefined ? {} : { threads: Number(values.threads) };
  const card = await engine.requests.load({ model: values.model, ...threads });
  const results: Result[] = [];
  for (const corpus of all) results.push(...(await measure(engine, corpus)));
  await engine.stop();
  const load = (loadavg()[0] ?? 0).toFixed(1);
  console.log(`${card.name}, ${card.backend}, ${cpus()[0]?.model.trim()}, load ${load}, given up ${givenUp} times\n`);
  printTimes(results);
  console.log();
  printExact(results);
  printThresholds(results);
}

/** Counts names that the rest of the line needs and the text above the cursor doesn't have. */
async function printNames(all: readonly Corpus[]): Promise<void> {
  console.log('| repository | lines | names | in the context | characters, mean |\n|---|---:|---:|---:|---:|');
  const sum = { lines: 0, names: 0, found: 0, chars: 0 };
  for (const { name, folder } of all) {
    const repository = await opened(folder);
    const own = { lines: 0, names: 0, found: 0, chars: 0 };
    for (const { held } of linesOf(repository, folder)) {
      const snippets = snippetsFor(repository, folder, held, Number(values['context-chars']));
      const known = new Set(namesIn(momentIn(held, held.cursor).prefix));
      const needed = namesIn(held.expected).filter((one) => !known.has(one));
      const given = new Set(snippets.flatMap(({ text }) => namesIn(text)));
      own.lines += 1;
      own.names += needed.length;
      own.found += needed.filter((one) => given.has(one)).length;
      own.chars += snippets.reduce((chars, { text }) => chars + text.length, 0);
    }
    await repository.close();
    for (const key of ['lines', 'names', 'found', 'chars'] as const) sum[key] += own[key];
    printShare(name, own);
  }
  printShare('all', sum);
}

function printShare(name: string, own: { lines: number; names: number; found: number; chars: number }): void {
  const share = (own.found / Math.max(1, own.names)).toFixed(3);
  console.log(
    `| ${name} | ${own.lines} | ${own.names} | ${share} | ${(own.chars / Math.max(1, own.lines)).toFixed(0)} |`,
  );
}

const { all, remove } = await corpora();
await (values.names ? printNames(all) : printQuality(all));
remove();
