/** `hearth inspect` for people: a page about one model, or a table of several. */
import type { InspectedModel } from './inspectModel.ts';
import { type Row, rowsOf } from './inspectRows.ts';

/** Where a model has nothing of the kind that another has. */
const nothing = '–';

/** A file with its surroundings, a long conversation, a repository: what memory is shown for. */
export const usualContexts: readonly number[] = [8192, 32_768, 131_072];

export function inspectionText(models: readonly InspectedModel[]): string {
  const [first, second] = models;
  return first && second === undefined ? explanation(first) : comparison(models);
}

function explanation(model: InspectedModel): string {
  const rows = rowsOf(model).filter(({ value }) => value !== '');
  const lines = aligned(rows.map(({ label, value, why }) => [label, value, why ?? '']));
  return `${title(model)}\n\n${lines}\n`;
}

function comparison(models: readonly InspectedModel[]): string {
  const columns = models.map((model) => rowsOf(model));
  const kinds: readonly Row[] = columns[0] ?? [];
  const facts = kinds
    .map(({ label }) => [label, ...columns.map((rows) => rows.find((row) => row.label === label)?.value ?? '')])
    .filter(([, ...values]) => values.some((value) => value !== ''));
  return `${aligned([['', ...models.map(heading)], ...facts.map((row) => row.map((cell) => (cell === '' ? nothing : cell)))])}\n`;
}

/** Short: what tells the columns apart. */
const heading = ({ name, model, download }: InspectedModel): string => (download ? model : name);

const title = ({ name, model }: InspectedModel): string => (name === model ? name : `${name} (${model})`);

function aligned(rows: readonly (readonly string[])[]): string {
  const printed = rows.map((row) => row.map(printable));
  const widths = (printed[0] ?? []).map((_, column) => Math.max(...printed.map((row) => row[column]?.length ?? 0)));
  return printed
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** A file may call its licence anything: no control character of it reaches the screen, nor a page of text. */
function printable(text: string): string {
  return text.replaceAll(/\p{C}/gu, ' ').slice(0, 120);
}
