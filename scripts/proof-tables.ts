/** Writes the results of `npm run proof:gpu` between the markers in docs/proof.md. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { adapters } from './on-adapter.ts';
import type { PartResult } from './proof-gpu.ts';
import { projectRoot } from './shared/paths.ts';

const page = join(projectRoot, 'docs', 'proof.md');
const [begin, end] = ['<!-- proof:gpu begins -->', '<!-- proof:gpu ends -->'];

type Figure = PartResult['figures'][number];
type Measured = Figure & { readonly adapter: string };

export function proofTables(kept: string): void {
  const results = readdirSync(kept)
    .filter((name) => adapters.some((adapter) => name.startsWith(`${adapter}-`)))
    .map((name): PartResult => JSON.parse(readFileSync(join(kept, name), 'utf8')));
  const text = readFileSync(page, 'utf8');
  const [before, rest] = [text.indexOf(begin), text.indexOf(end)];
  if (before < 0 || rest < before) throw new Error(`${page} lacks ${begin} … ${end}`);
  const tables = [
    runsTable(results),
    goldenTable(results),
    textTable(results),
    layerTable(results),
    kernelTable(results),
  ];
  const body = tables.filter((table) => table !== '').join('\n\n');
  writeFileSync(page, `${text.slice(0, before + begin.length)}\n\n${body}\n\n${text.slice(rest)}`);
}

function table(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const rule = heading.map((_, i) => (i === 0 ? '---' : '---:'));
  return [heading, rule, ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

const measured = (results: readonly PartResult[], key: string): Measured[] =>
  results.flatMap(({ adapter, figures }) =>
    figures.flatMap((figure) => (key in figure ? [{ ...figure, adapter }] : [])),
  );

const worst = (figures: readonly Measured[], key: string): string =>
  figures.length === 0 ? '–' : Math.max(...figures.map((figure) => Number(figure[key]))).toExponential(1);

const ofAdapter = (figures: readonly Measured[], adapter: string): Measured[] =>
  figures.filter((figure) => figure.adapter === adapter);

function runsTable(results: readonly PartResult[]): string {
  const rows = adapters.map((adapter) => {
    const own = results.filter((result) => result.adapter === adapter);
    const sum = (of: (result: PartResult) => number): string =>
      String(own.reduce((total, result) => total + of(result), 0));
    const dates = own.map(({ date }) => date).sort();
    const days = [...new Set([dates[0] ?? '–', dates.at(-1) ?? '–'])].join(' to ');
    return [
      adapter,
      days,
      String(own.length),
      sum(({ passed }) => passed),
      sum(({ failed }) => failed),
      sum(({ seconds }) => seconds),
    ];
  });
  return table(['adapter', 'date', 'parts', 'tests passed', 'failed', 'seconds'], rows);
}

function goldenTable(results: readonly PartResult[]): string {
  const figures = measured(results, 'golden');
  const names = [...new Set(figures.map(({ golden }) => String(golden)))];
  const rows = names.map((name) => [
    name,
    ...adapters.flatMap((adapter) => {
      const own = ofAdapter(figures, adapter).filter(({ golden }) => golden === name);
      const texts = own.filter((figure) => 'sameGreedy' in figure);
      const same =
        texts.length === 0 ? '–' : texts.every(({ sameGreedy }) => sameGreedy === 'true') ? 'same' : 'differs';
      return [
        worst(
          own.filter((figure) => 'deviation' in figure),
          'deviation',
        ),
        same,
      ];
    }),
  ]);
  if (rows.length === 0) return '';
  return table(['golden checkpoint', ...adapters.flatMap((name) => [`${name}: worst`, 'greedy text'])], rows);
}

function textTable(results: readonly PartResult[]): string {
  const figures = measured(results, 'text');
  const rows = figures.map(({ text, adapter, tokens, equal }) => [String(text), adapter, `${equal} of ${tokens}`]);
  return rows.length === 0 ? '' : table(['trained model', 'adapter', "tokens equal to the CPU's greedy text"], rows);
}

function layerTable(results: readonly PartResult[]): string {
  const figures = measured(results, 'layer');
  const rows = figures.map(({ layer, adapter, error, weightBytes, seconds }) => [
    String(layer),
    adapter,
    `${(Number(weightBytes) / 1e9).toFixed(2)} GB`,
    Number(error).toExponential(1),
    String(seconds),
  ]);
  const heading = ['one layer of real dimensions', 'adapter', 'weights', 'normalised squared error', 'seconds'];
  return rows.length === 0 ? '' : table(heading, rows);
}

/** One row per kernel, with the types and sizes from the labels of its runs. */
function kernelTable(results: readonly PartResult[]): string {
  const figures = measured(results, 'kernel');
  const kernels = Map.groupBy(figures, ({ kernel }) => String(kernel).split(' ')[0] ?? '');
  const rows = [...kernels]
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([name, own]) => {
      const forms = [...new Set(own.map(({ kernel }) => String(kernel).slice(name.length + 1)))];
      const types = [
        ...new Set(forms.flatMap((form) => form.match(/\b(?:B?F16|F32|F8_E4M3|Q\d_[01K]|IQ4_\w+|MXFP4)\b/g) ?? [])),
      ];
      const sizes = forms.flatMap((form) => form.match(/\d+(?:x\d+)*/g) ?? []);
      const bySize = [...new Set(sizes)].sort((a, b) => volume(a) - volume(b));
      return [
        name,
        types.join(' ') || 'f32',
        bySize.length > 1 ? `${bySize[0]} … ${bySize.at(-1)}` : (bySize[0] ?? '–'),
        String(forms.length),
        ...adapters.map((adapter) => worst(ofAdapter(own, adapter), 'error')),
      ];
    });
  if (rows.length === 0) return '';
  return table(
    ['kernel', 'types', 'least and largest size', 'forms', ...adapters.map((name) => `${name}: worst error`)],
    rows,
  );
}

const volume = (size: string): number => size.split('x').reduce((product, side) => product * Number(side), 1);
