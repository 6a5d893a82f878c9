/** Figures of completions on held-out lines: shares with 95 % intervals, and thresholds of the log-probability. */
import { seededRandom } from '../../engine/sampling/random.ts';

/** `oracle`: definitions of the names in the true line; `oracle and with`: those, then the retrieved snippets. */
export type Context = 'without' | 'with' | 'oracle' | 'oracle and with';

/** The result of one line in one context. */
export interface Result {
  readonly repository: string;
  /** Kind of name in the rest of the line. */
  readonly kind: string;
  /** Id of the line, the same in all its results. */
  readonly place: string;
  readonly context: Context;
  readonly exact: number;
  readonly similarity: number;
  readonly isShown: boolean;
  readonly logProbability: number;
  /** Absent: the start of the line was not completed. */
  readonly newPlaceMs: number | undefined;
  readonly nextKeyMs: number;
  /** Latency of the next key from the engine's receipt of the request, and the prefilled tokens. */
  readonly firstTokenMs: number;
  readonly readTokens: number;
}

/** 1 - edit distance (Levenshtein, 1966) / longer length, as in IntelliCode Compose (Svyatkovskiy, 2020). */
export function editSimilarity(a: string, b: string): number {
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

const contextsOf = (all: readonly Result[]): Context[] => [...new Set(all.map(({ context }) => context))];

const printRow = (...cells: readonly (string | number)[]): void => console.log(`| ${cells.join(' | ')} |`);

export function printTimes(all: readonly Result[]): void {
  printRow(
    ...['repository', 'context', 'n', 'exact', 'edit similarity', 'new place, p50', 'p95', 'next key, p50', 'p95'],
    ...['its first token, p50', 'p95', 'tokens read, p50', 'p95'],
  );
  console.log('|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|');
  for (const name of [...new Set(all.map(({ repository }) => repository)), 'all']) {
    for (const context of contextsOf(all)) {
      const own = all.filter((one) => one.context === context && (name === 'all' || one.repository === name));
      const shares = [mean(own.map(({ exact }) => exact)), mean(own.map(({ similarity }) => similarity))];
      const waits = [
        own.flatMap(({ newPlaceMs }) => newPlaceMs ?? []),
        own.map(({ nextKeyMs }) => nextKeyMs),
        own.map(({ firstTokenMs }) => firstTokenMs),
      ];
      const read = own.map(({ readTokens }) => readTokens);
      const tokens = [quantile(read, 0.5), quantile(read, 0.95)];
      const times = waits.flatMap((ms) => [quantile(ms, 0.5), quantile(ms, 0.95)]).map((ms) => `${ms.toFixed(0)} ms`);
      printRow(name, context, own.length, ...shares.map((share) => share.toFixed(2)), ...times, ...tokens);
    }
  }
}

/** Results of the same line in two contexts. */
interface Pair {
  readonly without: number;
  readonly with: number;
}

function pairsOf(all: readonly Result[], wanted: Context): Pair[] {
  const without = new Map(all.filter(({ context }) => context === 'without').map((own) => [own.place, own.exact]));
  return all.flatMap(({ context, place, exact }) =>
    context === wanted ? [{ without: without.get(place) ?? 0, with: exact }] : [],
  );
}

/** Exact matches by kind of line, with Wilson's interval (1927) and the ratio's interval by bootstrap over lines (Efron, 1979). */
export function printExact(all: readonly Result[]): void {
  printRow('line', 'context', 'n', 'exact without', 'exact with', 'ratio', 'only with', 'only without');
  console.log('|---|---|---:|---:|---:|---:|---:|---:|');
  for (const kind of [...new Set(all.map((own) => own.kind)), 'all']) {
    const ofKind = all.filter((own) => kind === 'all' || own.kind === kind);
    for (const context of contextsOf(all).filter((own) => own !== 'without')) {
      printPairs(kind, context, pairsOf(ofKind, context));
    }
  }
}

function printPairs(kind: string, context: Context, pairs: readonly Pair[]): void {
  const ratio = sumOf(pairs, 'with') / sumOf(pairs, 'without');
  const resampled = resampledRatios(pairs);
  const interval = `${quantile(resampled, 0.025).toFixed(2)} to ${quantile(resampled, 0.975).toFixed(2)}`;
  const only = (own: 'with' | 'without', other: 'with' | 'without'): number =>
    pairs.filter((pair) => pair[own] > pair[other]).length;
  printRow(
    ...[kind, context, pairs.length, withInterval(sumOf(pairs, 'without'), pairs.length)],
    ...[withInterval(sumOf(pairs, 'with'), pairs.length), `${ratio.toFixed(2)} (${interval})`],
    ...[only('with', 'without'), only('without', 'with')],
  );
}

const sumOf = (pairs: readonly Pair[], context: 'with' | 'without'): number =>
  pairs.reduce((sum, pair) => sum + pair[context], 0);

const samples = 2000;

/** Skips samples without any exact match. */
function resampledRatios(pairs: readonly Pair[]): number[] {
  const random = seededRandom(1);
  const ratios = Array.from({ length: samples }, () => {
    const sample = pairs.flatMap(() => pairs[Math.floor(random() * pairs.length)] ?? []);
    return sumOf(sample, 'with') / sumOf(sample, 'without');
  });
  return ratios.filter((ratio) => !Number.isNaN(ratio));
}

/** The normal distribution's quantile for 95 %. */
const z = 1.96;

function withInterval(hits: number, n: number): string {
  if (n === 0) return '–';
  const share = hits / n;
  const centre = share + z ** 2 / (2 * n);
  const reach = z * Math.sqrt((share * (1 - share)) / n + z ** 2 / (4 * n ** 2));
  const [low, high] = [centre - reach, centre + reach].map((bound) => (bound / (1 + z ** 2 / n)).toFixed(2));
  return `${share.toFixed(2)} (${low} to ${high})`;
}

/** Counts the suggestions above each log-probability threshold, and the exact ones among them. */
export function printThresholds(all: readonly Result[]): void {
  const offered = all.filter(({ isShown, context }) => isShown && !context.startsWith('oracle'));
  const exact = offered.filter((one) => one.exact === 1);
  console.log(`\nArea under the ROC curve: ${areaUnderCurve(offered).toFixed(3)} (n = ${offered.length})\n`);
  printRow('minimum mean log-probability', 'shown', 'precision', 'recall of exact ones', 'edit similarity');
  console.log('|---:|---:|---:|---:|---:|');
  for (const least of [Number.NEGATIVE_INFINITY, -1.5, -1.2, -1, -0.8, -0.7, -0.6, -0.5, -0.4, -0.3, -0.2]) {
    const shown = offered.filter(({ logProbability }) => logProbability >= least);
    const kept = shown.filter((one) => one.exact === 1).length / Math.max(1, exact.length);
    const right = mean(shown.map((one) => one.exact));
    const similarity = mean(shown.map((one) => one.similarity));
    printRow(...[least, shown.length / offered.length, right, kept, similarity].map((figure) => figure.toFixed(2)));
  }
}

/** Share of pairs of an exact and a non-exact suggestion in which the exact one has the higher log-probability. */
function areaUnderCurve(results: readonly Result[]): number {
  const exact = results.filter((one) => one.exact === 1);
  const others = results.filter((one) => one.exact === 0);
  return mean(exact.flatMap((a) => others.map((b) => (a.logProbability > b.logProbability ? 1 : 0))));
}
