/**
 * `npm run test:kernels` compiles the plans of published models with the real compilers of four GPUs, without the hardware
 * (Mesa's drivers, downloaded automatically on Debian). Checks the limits of scripts/shared/kernelCeilings.ts: every kernel compiles without
 * spills, and no loop exceeds its instructions per weight or bank passes.
 *
 *     --cards Ada,M1     some cards         --rows 1,prompt     some plans        --models gpt-oss-20b,DeepSeek-V3     some models
 *     --write     docs/kernels.md as well; of some cards, plans or models, what they measure
 *
 * Exit status 77: Mesa is not available; the reason is printed.
 */
import { parseArgs } from 'node:util';
import { sharedWavefronts } from './kernels/banks.ts';
import { type Card, cards } from './kernels/cards.ts';
import { type CardResult, measureCard } from './kernels/measure.ts';
import { models } from './kernels/models.ts';
import { writeReport } from './kernels/report.ts';
import { ceilings, stepCeilings, wavefrontCeilings } from './shared/kernelCeilings.ts';
import { Unavailable } from './shared/mesa.ts';

const { values } = parseArgs({
  options: {
    cards: { type: 'string' },
    rows: { type: 'string' },
    models: { type: 'string' },
    write: { type: 'boolean', default: false },
  },
});
const isWhole = [values.cards, values.rows, values.models].every((some) => some === undefined);
const asked = cards.filter(({ name }) => values.cards === undefined || values.cards.split(',').includes(name));

/** Violations, one sentence each. */
function faults({ card, kernels, failures, capabilities }: CardResult): string[] {
  const failed = Object.entries(failures).map(
    ([label, message]) => `${card.name}: ${label} does not compile: ${message}`,
  );
  const spilled = kernels
    .filter(({ spills }) => spills > 0)
    .map(({ label, rows, spills }) => `${card.name}: ${label} for ${rows} rows spills ${spills} registers.`);
  const costly = kernels.flatMap(({ label, kind, rows, perWeight }) => {
    if (rows !== 1 || perWeight === undefined) return [];
    const ceiling = ceilings[kind]?.[card.name];
    if (ceiling === undefined) return [`${card.name}: kernelCeilings.ts has no entry for ${kind}.`];
    return perWeight <= ceiling
      ? []
      : [`${card.name}: ${label} takes ${perWeight.toFixed(1)} instructions a weight; its ceiling is ${ceiling}.`];
  });
  const slow = kernels.flatMap(({ label, kind, rows, perStep }) => {
    if (rows !== 'prompt' || perStep === undefined) return [];
    const ceiling = stepCeilings[kind]?.[card.name];
    if (ceiling === undefined) return [`${card.name}: kernelCeilings.ts has no steps of ${kind}.`];
    return perStep <= ceiling
      ? []
      : [`${card.name}: ${label} takes ${perStep} instructions a step; its ceiling is ${ceiling}.`];
  });
  if (capabilities.software) failed.push(`${card.name} counts as a rasteriser on the CPU.`);
  if (kernels.length === 0) failed.push(`${card.name}: no kernel was compiled.`);
  return [...failed, ...spilled, ...costly, ...slow];
}

function bankFaults(): string[] {
  return [...sharedWavefronts(models)].flatMap(([kernel, count]) => {
    const ceiling = wavefrontCeilings[kernel];
    if (ceiling === undefined) return [`kernelCeilings.ts has no entry for ${kernel}.`];
    return count <= ceiling ? [] : [`${kernel}: ${count} passes through the banks; the ceiling is ${ceiling}.`];
  });
}

/** Runs two at a time, because a compiler uses one core. */
async function measureAll(): Promise<CardResult[]> {
  const open: Card[] = [...asked];
  const results: CardResult[] = [];
  const worker = async () => {
    for (let card = open.shift(); card; card = open.shift()) {
      const result = await measureCard(card, values.rows ?? '1,4,8,16,prompt', values.models?.split(',') ?? []);
      console.log(`${card.name}: ${result.kernels.length} kernels in ${result.seconds.toFixed(0)} s`);
      results.push(result);
    }
  };
  await Promise.all([worker(), worker()]);
  return asked.flatMap((card) => results.filter((result) => result.card === card));
}

try {
  const results = await measureAll();
  const found = [...results.flatMap(faults), ...bankFaults()];
  for (const fault of found) console.error(fault);
  if (values.write) writeReport(results, isWhole);
  console.log(`${found.length} faults on ${results.map(({ card }) => card.name).join(', ')}`);
  process.exitCode = found.length === 0 ? 0 : 1;
} catch (error) {
  if (!(error instanceof Unavailable)) throw error;
  console.log(`SKIPPED kernels on other GPUs: ${error.message}`);
  process.exitCode = 77;
}
