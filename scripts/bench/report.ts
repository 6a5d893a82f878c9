/** The result table of `npm run bench`: Hearth's figures, the baselines and the ratios. */

/** Statistic of the samples that the table shows. */
export type Summary = 'median' | 'p95';

export interface Goal {
  /** Applies to the ratio of Hearth's figure to the baseline, or to Hearth's figure. */
  readonly of: 'ratio' | 'figure';
  readonly bound: '≤' | '≥';
  readonly value: number;
}

export interface Line {
  /** Section heading: the unit and the baseline of its lines. */
  readonly section: string;
  readonly what: string;
  /** Default: median. */
  readonly summary?: Summary;
  readonly goal?: Goal;
}

/** `other` is the baseline: the peer, or the section's baseline. */
export type Side = 'hearth' | 'other';

interface Samples extends Record<Side, number[]> {
  readonly line: Line;
}

export class Report {
  readonly #samples = new Map<string, Samples>();
  /** Failed measurements. */
  readonly failures: string[] = [];
  /** Remarks on the table. */
  readonly remarks = new Set<string>();

  note(side: Side, line: Line, ...values: readonly number[]): void {
    const key = keyOf(line);
    const samples = this.#samples.get(key) ?? { line, hearth: [], other: [] };
    samples[side].push(...values);
    this.#samples.set(key, samples);
  }

  /** @returns the figure for the table, or undefined if nothing was measured. */
  figure(side: Side, line: Line): number | undefined {
    const samples = this.#samples.get(keyOf(line));
    return samples && figureOf(samples, side);
  }

  /** Records a failure in the report and continues. */
  async attempt(what: string, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const failure = `${what}: ${error instanceof Error ? error.message : error}`;
      console.error(`failed: ${failure}`);
      this.failures.push(failure);
    }
  }

  /** Formats the table in Markdown. */
  table(): string {
    const head = ['| | Hearth | against | ratio | goal | met | samples |', '|---|---:|---:|---:|---:|---|---:|'];
    const sections = Map.groupBy(this.#samples.values(), ({ line }) => line.section);
    const body = [...sections].flatMap(([section, lines]) => [`| **${section}** | | | | | | |`, ...lines.map(rowOf)]);
    return [...head, ...body].join('\n');
  }
}

const keyOf = ({ section, what, summary = 'median' }: Line): string => [section, what, summary].join('\n');

function rowOf(samples: Samples): string {
  const { line } = samples;
  const { goal } = line;
  const [own, other] = [figureOf(samples, 'hearth'), figureOf(samples, 'other')];
  const ratio = own === undefined || other === undefined ? undefined : own / other;
  const judged = goal?.of === 'ratio' ? ratio : own;
  const counts = [...new Set([samples.hearth.length, samples.other.length])].filter((count) => count > 0);
  const cells = [
    line.summary === 'p95' ? `${line.what}, p95` : line.what,
    shown(own),
    shown(other),
    ratio === undefined ? '–' : ratio.toFixed(2),
    goal === undefined ? '' : `${goal.of === 'figure' ? 'Hearth ' : ''}${goal.bound} ${goal.value}`,
    goal === undefined ? '' : judged === undefined ? '–' : isMet(goal, judged) ? 'yes' : 'no',
    counts.join(' / '),
  ];
  return `| ${cells.join(' | ')} |`;
}

const isMet = ({ bound, value }: Goal, judged: number): boolean => (bound === '≤' ? judged <= value : judged >= value);

function figureOf(samples: Samples, side: Side): number | undefined {
  return quantile(samples[side], samples.line.summary === 'p95' ? 0.95 : 0.5);
}

/** Undefined for no values. The median of an even count is the mean of the middle two. */
export function quantile(numbers: readonly number[], share: number): number | undefined {
  const sorted = numbers.toSorted((a, b) => a - b);
  const place = share * (sorted.length - 1);
  const [below, above] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
  return below === undefined || above === undefined ? undefined : below + (above - below) * (place % 1);
}

function shown(figure: number | undefined): string {
  if (figure === undefined || Number.isNaN(figure)) return '–';
  const size = Math.abs(figure);
  const digits = size < 0.1 ? 3 : size < 10 ? 2 : size < 100 ? 1 : 0;
  return figure.toLocaleString('en-GB', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
