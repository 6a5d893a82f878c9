/** Writes the tables of docs/kernels.md from current and previous measurements. */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { largeCardBytes, tokensPerRun } from '../../engine/backend/webgpu/decoder/scratch.ts';
import { defaultTuning } from '../../engine/backend/webgpu/device/adapter.ts';
import {
  attentionShape,
  attentionSplits,
  attentionTile,
  threadsOf,
} from '../../engine/backend/webgpu/kernels/attention.ts';
import {
  matrixAttentionKind,
  matrixAttentionMacs,
  matrixAttentionThreads,
  matrixAttentionTile,
} from '../../engine/backend/webgpu/kernels/attentionTiles.ts';
import {
  mostTileTokens,
  tileColumns,
  tileRows,
  tileThreads,
  tileTokens,
} from '../../engine/backend/webgpu/kernels/matrixTiles.ts';
import { chunkColumns } from '../../engine/backend/webgpu/kernels/wideWeightCode.ts';
import { cachedAttentions } from '../../engine/model/spec/spec.ts';
import { projectRoot } from '../shared/paths.ts';
import { sharedWavefronts } from './banks.ts';
import { cards } from './cards.ts';
import type { CardResult } from './measure.ts';
import { type BenchModel, models } from './models.ts';
import { promptTokens } from './plans.ts';
import { type PromptFigures, promptTokensPerSecond } from './promptModel.ts';
import { type Gpu, gpus, type KernelFigures, tokensPerSecond } from './timeModel.ts';

const byCard = z.record(z.string(), z.record(z.string(), z.number()));
const promptFigures: z.ZodType<PromptFigures> = z.object({
  perStep: byCard,
  chunkTokens: z.number(),
  largeCardTokens: z.record(z.string(), z.number()),
  tile: z.object({
    tokens: z.number(),
    rows: z.number(),
    columns: z.number(),
    threads: z.number(),
    tallRows: z.number(),
  }),
  mostTokens: byCard,
  matrixRows: z.number(),
  attention: z.record(
    z.string(),
    z.object({
      queries: z.number(),
      heads: z.number(),
      keys: z.number(),
      threads: z.number(),
      macs: z.number().optional(),
    }),
  ),
  dispatches: byCard,
});
const figures: z.ZodType<KernelFigures> = z.object({
  perWeight: byCard,
  stepColumns: z.number(),
  attention: z.object({
    keys: z.number(),
    mostSplits: z.number(),
    wavefronts: z.number(),
    latencies: z.number(),
    serialCycles: z.number(),
  }),
  dispatches: z.record(z.string(), z.number()),
  prompt: promptFigures.optional(),
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
    prompt: promptFiguresOf(results),
  };
}

const largeCard = { vendor: '', name: '', totalBytes: largeCardBytes, freeBytes: largeCardBytes, unified: false };

function promptFiguresOf(results: readonly CardResult[]): PromptFigures {
  const perStep: Record<string, Record<string, number>> = {};
  for (const { card, kernels } of results) {
    const own: Record<string, number> = {};
    for (const { kind, rows, perStep: value } of kernels) {
      if (rows === 'prompt' && value !== undefined) own[kind] = Math.max(own[kind] ?? 0, Math.round(value));
    }
    perStep[card.name] = own;
  }
  const shapes = models.flatMap(({ spec }) => cachedAttentions(spec)).map(attentionShape);
  const attention = shapes.flatMap((shape) => {
    const suffix = `${shape.heads}/${shape.kvHeads}x${shape.keyDim}`;
    const { headsPerTile: heads, queries, keys } = attentionTile(shape, promptTokens);
    const threads = threadsOf(shape, { headsPerTile: heads, queries, keys });
    const plain = [`attention ${suffix}`, { queries, heads, keys, threads }] as const;
    const [tile] = results.flatMap(({ capabilities }) => matrixAttentionTile(shape, 'f16', capabilities) ?? []);
    if (!tile) return [plain];
    const { queries: tokens, headsPerTile } = tile;
    const figures = { queries: tokens, heads: headsPerTile, keys: tile.keys, threads: matrixAttentionThreads };
    return [
      plain,
      [`attentionTiles ${matrixAttentionKind(shape)}`, { ...figures, macs: matrixAttentionMacs(shape) }] as const,
    ];
  });
  const { tallRows } = defaultTuning;
  const mostTokens = results.map(({ card, capabilities }) => {
    const types = models.flatMap(({ types: { attention, value, gate, down } }) => [attention, value, gate, down]);
    return [card.name, Object.fromEntries(types.map((type) => [type, mostTileTokens(type, capabilities)]))];
  });
  return {
    perStep,
    chunkTokens: promptTokens,
    largeCardTokens: Object.fromEntries(
      models.map(({ name, spec }) => [name, tokensPerRun(spec, { memory: largeCard })]),
    ),
    tile: { tokens: tileTokens, rows: tileRows, columns: tileColumns, threads: tileThreads, tallRows },
    mostTokens: Object.fromEntries(mostTokens),
    matrixRows: 16,
    attention: Object.fromEntries(attention),
    dispatches: Object.fromEntries(results.map(({ card, promptDispatches }) => [card.name, promptDispatches])),
  };
}

export const readRecord = () => record.parse(JSON.parse(readFileSync(recordPath, 'utf8')));

/**
 * Keeps the previous figures if nothing changed. Of some cards or plans alone, only what they measure is replaced: the figures before and the table of
 * registers stay.
 */
export function writeReport(results: readonly CardResult[], isWhole: boolean): void {
  const old = readRecord();
  const measured = figuresOf(results);
  const now = isWhole ? measured : merged(old.now, measured);
  const same = JSON.stringify(old.now) === JSON.stringify(now);
  const kept = { before: same || !isWhole ? old.before : old.now, now };
  writeFileSync(recordPath, `${JSON.stringify(kept, undefined, 2)}\n`);
  const [head = '', written = ''] = readFileSync(docsPath, 'utf8').split(marker);
  const registers = isWhole ? registersTable(results) : section(written, 'Registers');
  writeFileSync(docsPath, `${head}${marker}\n\n${tables(kept, registers)}`);
}

type ByKind = Readonly<Record<string, Readonly<Record<string, number>>>>;

const mergedKinds = (old: ByKind, measured: ByKind): ByKind =>
  Object.fromEntries(
    cards.flatMap(({ name }) => {
      const kinds = { ...old[name], ...measured[name] };
      return Object.keys(kinds).length > 0 ? [[name, kinds]] : [];
    }),
  );

/** Kinds of kernels that were measured replace the old ones. */
function merged(old: KernelFigures, measured: KernelFigures): KernelFigures {
  const { prompt } = measured;
  return {
    ...measured,
    perWeight: mergedKinds(old.perWeight, measured.perWeight),
    dispatches: { ...old.dispatches, ...measured.dispatches },
    prompt: prompt && {
      ...prompt,
      attention: { ...old.prompt?.attention, ...prompt.attention },
      perStep: mergedKinds(old.prompt?.perStep ?? {}, prompt.perStep),
      mostTokens: mergedKinds(old.prompt?.mostTokens ?? {}, prompt.mostTokens),
      dispatches: mergedKinds(old.prompt?.dispatches ?? {}, prompt.dispatches),
    },
  };
}

/** Text below a heading of the written tables. */
function section(written: string, heading: string): string {
  const [, after = ''] = written.split(`## ${heading}\n`);
  return (after.split('\n## ')[0] ?? '').trim();
}

function registersTable(results: readonly CardResult[]): string {
  const rows = results.map(({ card, kernels }) => [
    `${card.name} (${card.products})`,
    String(kernels.length),
    String(kernels.filter(({ spills }) => spills > 0).length),
    String(Math.max(...kernels.map((kernel) => kernel.registers))),
  ]);
  return table(['Card', 'Kernels', 'That spill', 'Most registers of a thread'], rows);
}

const marker = '<!-- What follows is written by `npm run test:kernels -- --write`. -->';

function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');
}

const beside = (value: number | undefined, previous: number | undefined): string =>
  value === undefined ? '–' : `${value}${previous === undefined ? '' : ` (${previous})`}`;

function tables({ before, now }: z.infer<typeof record>, registers: string): string {
  const names = cards.map(({ name }) => name);
  const kinds = [...new Set(names.flatMap((name) => Object.keys(now.perWeight[name] ?? {})))].sort();
  const instructions = kinds.map((kind) => [
    kind,
    ...names.map((name) => beside(now.perWeight[name]?.[kind], before.perWeight[name]?.[kind])),
  ]);
  const wavefronts = [...sharedWavefronts(models)].map(([kernel, count]) => [kernel, String(count)]);
  return `## Instructions a weight

Of the loop over columns of one decoded token, the value before in brackets.

${table(['Kernel', ...names], instructions)}

## Registers

${registers}

## Passes through the banks of workgroup memory

A 16-byte access of 32 threads; 4 is the least where all read different words.

${table(['Kernel', 'Wavefronts'], wavefronts)}

## Predicted tokens a second

Batch 1, f16 cache; the prediction for the kernels before in brackets. Nothing of this was measured on a card.

${predictions(before, now)}

## Instructions a step of a prompt

Of a thread, for 32 columns of a tile of 64 rows, or a block of keys for 16 rows (\`attention\`) or 64 (\`attentionTiles\`, with a window \`w\`); tiles of experts and tall matrices have up to 128 tokens, others 64.

${promptInstructions(before, now)}

## Predicted tokens of a prompt a second

Of a chunk (512 tokens; 1,024 of a mixture of experts on a card with 20 GiB or more) after so many cached ones; the prediction for the kernels before in brackets. Nothing of this was measured on a card.

${promptPredictions(before, now)}
`;
}

const contexts = [0, 8192, 32_768, 131_072];
const promptDepths = [0, 8192, 32_768];

function predictions(before: KernelFigures, now: KernelFigures): string {
  return predicted(contexts, (gpu, model, context) => {
    if (context > model.spec.contextTokens) return '–';
    const speed = (measured: KernelFigures) => Math.round(tokensPerSecond(gpu, model, measured, context) ?? Number.NaN);
    return `${speed(now)} (${speed(before)})`;
  });
}

function promptPredictions(before: KernelFigures, now: KernelFigures): string {
  return predicted(promptDepths, (gpu, model, depth) => {
    const speed = ({ prompt }: KernelFigures) => {
      const tokens = prompt && promptTokensPerSecond(gpu, model, prompt, depth);
      return tokens === undefined || Number.isNaN(tokens) ? undefined : 10 * Math.round(tokens / 10);
    };
    const previous = speed(before);
    return `${speed(now) ?? '–'}${previous === undefined ? '' : ` (${previous})`}`;
  });
}

function promptInstructions(before: KernelFigures, now: KernelFigures): string {
  const names = cards.map(({ name }) => name);
  const perStep = now.prompt?.perStep ?? {};
  const kinds = [...new Set(names.flatMap((name) => Object.keys(perStep[name] ?? {})))].sort();
  const rows = kinds.map((kind) => [
    kind,
    ...names.map((name) => beside(perStep[name]?.[kind], before.prompt?.perStep[name]?.[kind])),
  ]);
  return table(['Kernel', ...names], rows);
}

/** A row for each model and GPU, a column for each number of cached tokens. */
function predicted(depths: readonly number[], cell: (gpu: Gpu, model: BenchModel, depth: number) => string): string {
  const modelled = models.filter(({ spec }) => spec.layers.every(({ attention }) => attention.kind !== 'latent'));
  const rows = modelled.flatMap((model) =>
    gpus.map((gpu) => [model.name, gpu.name, ...depths.map((depth) => cell(gpu, model, depth))]),
  );
  return table(['Model', 'GPU', ...depths.map((depth) => `${depth / 1024}k`)], rows);
}
