/**
 * Measures quality and latency of the default model's completions on held-out lines of real repositories, with and without
 * context from other files, with a warm engine.
 *
 *     npm run build && npm run bench:completion [-- --lines N] [--seed N] [--model ID] [--context-chars N]
 *
 * Each line is completed twice: at its start, which prefills the prompt, and after some of its tokens, as while typing. Each
 * request asks for a second candidate, because the engine then reports its confidence; the times include this. Exact match
 * and edit similarity compare the second completion with the rest of the line, as the editor would show it.
 */
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { defaultModelId } from '../engine/catalogue/catalogue.ts';
import { HearthError } from '../engine/errors.ts';
import { Repository } from '../engine/index/repository/repository.ts';
import { seededRandom } from '../engine/sampling/random.ts';
import type { Snippet } from '../extension/completion/moment.ts';
import { limits } from '../extension/limits.ts';
import { snippetsFor } from './completion/context.ts';
import { type HeldOut, heldOutLines, momentIn } from './completion/heldOut.ts';
import { sourceFolder, sources } from './context/sources.ts';
import { startEngine } from './shared/engineProcess.ts';

interface Result {
  readonly repository: string;
  readonly context: string;
  readonly exact: number;
  readonly similarity: number;
  readonly isShown: boolean;
  readonly logProbability: number;
  readonly newPlaceMs: number;
  readonly nextKeyMs: number;
  /** Of the next key, from the engine's receipt of the request; and what it had to read. */
  readonly firstTokenMs: number;
  readonly readTokens: number;
}

const { values } = parseArgs({
  options: {
    lines: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    model: { type: 'string', default: defaultModelId },
    'context-chars': { type: 'string', default: String(limits.completion.cpuContextChars) },
  },
});

/** Excludes build output in packages, which would give the answers away. */
const handWritten: Readonly<Record<string, string>> = { 'zod 4.1.12': 'package/src' };

const engine = startEngine('dist/engine.mjs');
const card = await engine.requests.load({ model: values.model });

/** The suggestion that the editor would show, and its latency. */
async function complete(
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

async function measure(name: string, folder: string): Promise<Result[]> {
  const repository = await Repository.open({ database: ':memory:', folders: [{ name: '', directory: folder }] });
  repository.indexer.rescan();
  await repository.indexer.settled();
  const results: Result[] = [];
  for (const held of heldOutLines(folder, Number(values.lines), seededRandom(Number(values.seed)))) {
    const found = snippetsFor(repository, folder, held, Number(values['context-chars']));
    for (const [context, snippets] of [
      ['without', []],
      ['with', found],
    ] as const) {
      const { ms: newPlaceMs } = await complete(held, snippets, held.start);
      const { text, logProbability, ms: nextKeyMs, ...read } = await complete(held, snippets, held.cursor);
      const exact = text.trim() === held.expected.trim() ? 1 : 0;
      const similarity = editSimilarity(text.trim(), held.expected.trim());
      results.push({
        repository: name,
        context,
        exact,
        similarity,
        isShown: text !== '',
        logProbability,
        newPlaceMs,
        nextKeyMs,
        ...read,
      });
    }
    console.error(`${held.path}:${held.line + 1}  ${JSON.stringify(results.slice(-2))}`);
  }
  await repository.close();
  return results;
}

/** 1 - edit distance (Levenshtein, 1966) / longer length, as in IntelliCode Compose (Svyatkovskiy, 2020). */
function editSimilarity(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, substitution));
    }
    row = next;
  }
  return 1 - (row[b.length] ?? 0) / Math.max(1, a.length, b.length);
}

const mean = (numbers: readonly number[]): number =>
  numbers.reduce((sum, n) => sum + n, 0) / Math.max(1, numbers.length);

function quantile(numbers: readonly number[], share: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

function print(all: readonly Result[]): void {
  console.log(
    `${card.name}, ${card.backend}, ${cpus()[0]?.model.trim()}, load ${(loadavg()[0] ?? 0).toFixed(1)}, given up ${givenUp} times\n`,
  );
  console.log(
    '| repository | context | n | exact | edit similarity | new place, p50 | p95 | next key, p50 | p95 | its first token, p50 | p95 | tokens read, p50 | p95 |',
  );
  console.log('|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|');
  for (const name of [...new Set(all.map(({ repository }) => repository)), 'all']) {
    for (const context of ['without', 'with']) {
      const own = all.filter((one) => one.context === context && (name === 'all' || one.repository === name));
      const shares = [mean(own.map(({ exact }) => exact)), mean(own.map(({ similarity }) => similarity))];
      const waits = [
        own.map(({ newPlaceMs }) => newPlaceMs),
        own.map(({ nextKeyMs }) => nextKeyMs),
        own.map(({ firstTokenMs }) => firstTokenMs),
      ];
      const read = own.map(({ readTokens }) => readTokens);
      const tokens = [quantile(read, 0.5), quantile(read, 0.95)];
      const times = waits.flatMap((ms) => [quantile(ms, 0.5), quantile(ms, 0.95)]).map((ms) => `${ms.toFixed(0)} ms`);
      const figures = [name, context, own.length, ...shares.map((share) => share.toFixed(2)), ...times, ...tokens];
      console.log(`| ${figures.join(' | ')} |`);
    }
  }
}

/** Counts the suggestions above each log-probability threshold, and the exact ones among them. */
function printThresholds(all: readonly Result[]): void {
  const offered = all.filter(({ isShown }) => isShown);
  const exact = offered.filter((one) => one.exact === 1);
  console.log(`\nArea under the ROC curve: ${areaUnderCurve(offered).toFixed(3)} (n = ${offered.length})\n`);
  console.log('| minimum mean log-probability | shown | precision | recall of exact ones | edit similarity |');
  console.log('|---:|---:|---:|---:|---:|');
  for (const least of [Number.NEGATIVE_INFINITY, -1.5, -1.2, -1, -0.8, -0.7, -0.6, -0.5, -0.4, -0.3, -0.2]) {
    const shown = offered.filter(({ logProbability }) => logProbability >= least);
    const kept = shown.filter((one) => one.exact === 1).length / Math.max(1, exact.length);
    const right = mean(shown.map((one) => one.exact));
    const figures = [
      least,
      shown.length / offered.length,
      right,
      kept,
      mean(shown.map(({ similarity }) => similarity)),
    ];
    console.log(`| ${figures.map((figure) => figure.toFixed(2)).join(' | ')} |`);
  }
}

/** Share of pairs of an exact and a non-exact suggestion in which the exact one has the higher log-probability. */
function areaUnderCurve(results: readonly Result[]): number {
  const exact = results.filter((one) => one.exact === 1);
  const others = results.filter((one) => one.exact === 0);
  const better = exact.flatMap((a) => others.map((b) => (a.logProbability > b.logProbability ? 1 : 0)));
  return mean(better);
}

const results: Result[] = [];
for (const source of sources) {
  results.push(...(await measure(source.name, join(await sourceFolder(source), handWritten[source.name] ?? ''))));
}
await engine.stop();
print(results);
printThresholds(results);
