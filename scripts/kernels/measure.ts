/** Compiles the models' plans for a card and parses the compiler output. */
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { GpuCapabilities } from '../../engine/backend/webgpu/device/adapter.ts';
import { projectRoot } from '../shared/paths.ts';
import { type Card, cardLaunch } from './cards.ts';
import { type Listing, listings, productLoopInstructions, stepInstructions } from './listings.ts';

const compiled = z.object({
  plans: z.array(
    z.object({
      model: z.string(),
      rows: z.union([z.number(), z.literal('prompt')]),
      kernels: z.array(
        z.object({
          id: z.number(),
          label: z.string(),
          groups: z.array(z.number()),
          weightsPerStep: z.number().optional(),
          multipliesPerStep: z.number().optional(),
        }),
      ),
    }),
  ),
  failures: z.record(z.string(), z.string()),
  capabilities: z.custom<GpuCapabilities>((value) => typeof value === 'object'),
});

export interface MeasuredKernel {
  readonly label: string;
  /** Kernel kind and weight type, such as `matrixVector Q4_K`. */
  readonly kind: string;
  readonly rows: number | 'prompt';
  readonly registers: number;
  readonly spills: number;
  readonly warps: number;
  readonly instructions: number;
  /** Instructions per weight in the loop over columns. Absent without weights or without a loop. */
  readonly perWeight?: number;
  /** Instructions of a thread in one step of a prompt kernel's main loop. */
  readonly perStep?: number;
}

export interface CardResult {
  readonly card: Card;
  readonly kernels: readonly MeasuredKernel[];
  /** Compiler error by kernel label. */
  readonly failures: Readonly<Record<string, string>>;
  /** Dispatches per decoded token, and per chunk of a prompt, by model. */
  readonly dispatches: Readonly<Record<string, number>>;
  readonly promptDispatches: Readonly<Record<string, number>>;
  /** As the engine finds them; it would refuse a CPU rasteriser (`software`). */
  readonly capabilities: GpuCapabilities;
  readonly seconds: number;
}

/** @throws Unavailable if Mesa is not available, Error if the driver fails. */
export async function measureCard(card: Card, rows: string, models: readonly string[]): Promise<CardResult> {
  const started = performance.now();
  const work = join(projectRoot, '.cache', 'kernels');
  mkdirSync(work, { recursive: true });
  const at = (ending: string) => join(work, `${card.name}.${ending}`);
  await runOn(card, work, [join(import.meta.dirname, 'compile.ts'), at('json'), rows, ...models], at);
  const { plans, failures, capabilities } = compiled.parse(JSON.parse(readFileSync(at('json'), 'utf8')));
  const byId = listings(card.compiler, at('err'), at('out'));
  // These files have tens of megabytes each.
  for (const ending of ['err', 'out', 'json']) rmSync(at(ending));
  const seen = new Set<number>();
  const kernels = plans.flatMap((plan) =>
    plan.kernels.flatMap(({ id, label, ...steps }) => {
      const listing = byId.get(id);
      if (!listing || seen.has(id)) return [];
      seen.add(id);
      return [measured(label, plan.rows, listing, steps)];
    }),
  );
  const dispatchesOf = (rows: number | 'prompt') =>
    Object.fromEntries(plans.filter((plan) => plan.rows === rows).map((plan) => [plan.model, plan.kernels.length]));
  const [dispatches, promptDispatches] = [dispatchesOf(1), dispatchesOf('prompt')];
  return {
    card,
    kernels,
    failures,
    capabilities,
    dispatches,
    promptDispatches,
    seconds: (performance.now() - started) / 1000,
  };
}

function measured(
  label: string,
  rows: number | 'prompt',
  listing: Listing,
  {
    weightsPerStep,
    multipliesPerStep,
  }: { readonly weightsPerStep?: number | undefined; readonly multipliesPerStep?: number | undefined },
): MeasuredKernel {
  const { registers, spills, instructions, warps = 0 } = listing;
  const loop = weightsPerStep === undefined ? undefined : productLoopInstructions(listing);
  const kind = label.split(' ').slice(0, 2).join(' ');
  const perWeight = loop !== undefined && weightsPerStep !== undefined ? loop / weightsPerStep : undefined;
  const perStep = multipliesPerStep === undefined ? undefined : stepInstructions(listing, multipliesPerStep);
  return {
    ...{ label, kind, rows, registers, spills, warps, instructions },
    ...(perWeight !== undefined && { perWeight }),
    ...(perStep !== undefined && { perStep }),
  };
}

function runOn(card: Card, work: string, args: readonly string[], at: (ending: string) => string): Promise<void> {
  const { command, env } = cardLaunch(card, work);
  const [program = '', ...before] = command;
  const [output, errors] = [openSync(at('out'), 'w'), openSync(at('err'), 'w')];
  const child = spawn(program, [...before, ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', output, errors],
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code, signal) => {
      closeSync(output);
      closeSync(errors);
      if (code === 0) resolve();
      else reject(new Error(`${card.name}: the driver ended with ${signal ?? code}; see ${at('err')}`));
    });
  });
}
