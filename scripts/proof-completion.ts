/**
 * Measures where completions end, on real files of many languages from package registries.
 *
 *     npm run proof:completion [-- --places N] [--seed N] [--language ID] [--show wrong]
 *
 * Each position is at a token boundary. The simulated model output is the true rest of the statement, alone and with twenty
 * kinds of continuation. The shown text must be the true text, or a prefix of it with which the file parses.
 */
import { parseArgs } from 'node:util';
import { seededRandom } from '../engine/sampling/random.ts';
import { corpus } from './completion/corpus.ts';
import { type Case, measure, type Tally } from './completion/measure.ts';

const { values } = parseArgs({
  options: {
    places: { type: 'string', default: '150' },
    seed: { type: 'string', default: '1' },
    language: { type: 'string' },
    show: { type: 'string' },
  },
});

const share = (part: number, whole: number): string => `${((100 * part) / Math.max(1, whole)).toFixed(1)} %`;

function quantile(numbers: readonly number[], at: number): string {
  const sorted = numbers.toSorted((a, b) => a - b);
  return `${(sorted[Math.min(sorted.length - 1, Math.floor(at * sorted.length))] ?? 0).toFixed(1)} ms`;
}

function row(name: string, tally: Tally): string {
  const { places, cases, exact, beginning, nothing, wrong, blockedMs } = tally;
  const shares = [exact, beginning, nothing, wrong].map((part) => share(part, cases));
  return `| ${[name, places, cases, ...shares, quantile(blockedMs, 0.95)].join(' | ')} |`;
}

function show({ place, continuation, shown, verdict }: Case): void {
  if (verdict !== values.show) return;
  const { file, prefix, suffix, truth } = place;
  const around = [prefix.slice(-80), suffix.slice(0, 60), truth, shown].map((text) => JSON.stringify(text));
  console.log(
    `${file.path}: ${continuation}\n  before ${around[0]}\n  after ${around[1]}\n  true ${around[2]}\n  shown ${around[3]}`,
  );
}

const files = await corpus();
const languages = [...new Set(files.map(({ languageId }) => languageId))].toSorted();
const sum: Tally = { places: 0, cases: 0, exact: 0, beginning: 0, nothing: 0, wrong: 0, blockedMs: [] };
console.log('| language | places | texts | true | beginning that parses | nothing | wrong | longest step, p95 |');
console.log('|---|---:|---:|---:|---:|---:|---:|---:|');
for (const language of languages.filter((own) => values.language === undefined || own === values.language)) {
  const own = files.filter(({ languageId }) => languageId === language);
  const tally = await measure(own, Number(values.places), seededRandom(Number(values.seed)), show);
  console.log(row(language, tally));
  for (const key of ['places', 'cases', 'exact', 'beginning', 'nothing', 'wrong'] as const) sum[key] += tally[key];
  sum.blockedMs.push(...tally.blockedMs);
}
console.log(row('all', sum));
