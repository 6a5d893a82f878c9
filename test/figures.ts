/** Figures that tests measure, one JSON line each in the file $HEARTH_FIGURES, for the campaigns that collect them. */
import { appendFileSync } from 'node:fs';
import { expect } from 'vitest';

export function figure(fields: Readonly<Record<string, string | number>>): void {
  const path = process.env['HEARTH_FIGURES'];
  if (path === undefined) return;
  const test = expect.getState().currentTestName ?? '';
  appendFileSync(path, `${JSON.stringify({ test, ...fields })}\n`);
}
