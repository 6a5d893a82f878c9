/** Writes the tables of docs/kernels.md from current and previous measurements. */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { attentionShape, attentionSplits, attentionTile } from '../../engine/backend/webgpu/kernels/attention.ts';
import { chunkColumns } from '../../engine/backend/webgpu/kernels/wideWeightCode.ts';
import { cachedAttentions } from '../../engine/model/spec/spec.ts';
import { projectRoot } from '../shared/paths.ts';
import { sharedWavefronts } from './banks.ts';
import { cards } from './cards.ts';
import type { CardResult } from './measure.ts';
import { models } from './models.ts';
import { gpus, type KernelFigures, tokensPerSecond } from './timeModel.ts';

const figures: z.ZodType<KernelFigures> = z.object({
  perWeight: z.record(z.string(), z.record(z.string(), z.number())),
  stepColumns: z.number(),
  attention: z.object({
    keys: z.number(),
    mostSplits: z.number(),
    wavefronts: z.number(),
    latencies: z.number(),
    serialCycles: z.number(),
  }),
  dispatches: z.record(z.string(), z.number()),
});
const record = z.object({ before: figures, now: figures });

const recordPath = join(projectRoot, 'scripts', 'kernels', 'measured.json');
const docsPath = join(projectRoot, 'docs', 'kernels.md');

/** For a decoded token: the most expensive kernel of each kind. */
export function figuresOf(results: readonly CardResult[]): KernelFigures {
  const perWeight: Record<string, Record<string, number>> = {};
  for (const { card, kernels } of results) {
    const own: Record<string, number> = {};
    for (const { kind, rows, perWeight: value } of kernels) {
      if (rows === 1 && value !== undefined) own[kind] = Math.max(own[kind] ?? 0, Math.round(value * 10) / 10);
    }
    perWeight[card.name] = own;
  }
  const [attention] = models.flatMap(({ spec }) => cachedAttentions(spec).map(attentionShape));
  if (!attention) throw new Error('a model has layers');
  const shape = { ...attention, slidingWindow: undefined };
  const { slidingWindow: _, ...full } = shape;
  return {
    perWeight,
    stepColumns: 64 * chunkColumns,
    attention: {
      keys: attentionTile(full, 1).keys,
      mostSplits: attentionSplits(full, 1),
      wavefronts: sharedWavefronts(models).get(`attention of ${full.keyDim}`) ?? 0,
      // The next block's keys and this block's values are loaded while scores are computed.
      latencies: 1,
      serialCycles: 0,
    },
    dispatches: results[0]?.dispatches ?? {},
  };
}

export const readRecord = () => record.parse(JSON.parse(readFileSync(recordPath, 'utf8')));

/** Keeps the previous figures if nothing changed. */
export function writeReport(results: readonly CardResult[]): void {
  const old = readRecord();
  const now = figuresOf(results);
  const same = JSON.stringify(old.now) === JSON.stringify(now);
  const kept = { before: same ? old.before : old.now, now };
  writeFileSync(recordPath, `${JSON.stringify(kept, undefined, 2)}\n`);
  const [head = ''] = readFileSync(docsPath, 'utf8').split(marker);
  writeFileSync(docsPath, `${head}${marker}\n\n${tables(kept, results)}`);
}

const marker = '<!-- What follows is written by `npm run test:kernels -- --write`. -->';

function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');
}

function tables({ before, now }: z.infer<typeof record>, results: readonly CardResult[]): string {
  const names = cards.map(({ name }) => name);
  const kinds = [...new Set(names.flatMap((name) => Object.keys(now.perWeight[name] ?? {})))].sort();
  const beside = (value: number | undefined, previous: number | undefined) =>
    value === undefined ? '–' : `${value}${previous === undefined ? '' : ` (${previous})`}`;
  const instructions = kinds.map((kind) => [
    kind,
    ...names.map((name) => beside(now.perWeight[name]?.[kind], before.perWeight[name]?.[kind])),
  ]);
  const wavefronts = [...sharedWavefronts(models)].map(([kernel, count]) => [kernel, String(count)]);
  const registers = results.map(({ card, kernels }) => [
    `${card.name} (${card.products})`,
    String(kernels.length),
    String(kernels.filter(({ spills }) => spills > 0).length),
    String(Math.max(...kernels.map((kernel) => kernel.registers))),
  ]);
  return `## Instructions a weight

Of the loop over columns of one decoded token, the value before in brackets.

${table(['Kernel', ...names], instructions)}

## Registers

${table(['Card', 'Kernels', 'That spill', 'Most registers of a thread'], registers)}

## Passes through the banks of workgroup memory

A 16-byte access of 32 threads; 4 is the least where all read different words.

${table(['Kernel', 'Wavefronts'], wavefronts)}

## Predicted tokens a second

Batch 1, f16 cache; the prediction for the kernels before in brackets. Nothing of this was measured on a card.

${predictions(before, now)}
`;
}

const contexts = [0, 8192, 32_768, 131_072];

function predictions(before: KernelFigures, now: KernelFigures): string {
  const modelled = models.filter(({ spec }) => spec.layers.every(({ attention }) => attention.kind !== 'latent'));
  const rows = modelled.flatMap((model) =>
    gpus.map((gpu) => [
      model.name,
      gpu.name,
      ...contexts.map((context) => {
        if (context > model.spec.contextTokens) return '–';
        const speed = (figures: KernelFigures) =>
          Math.round(tokensPerSecond(gpu, model, figures, context) ?? Number.NaN);
        return `${speed(now)} (${speed(before)})`;
      }),
    ]),
  );
  return table(['Model', 'GPU', ...contexts.map((context) => `${context / 1024}k`)], rows);
}
