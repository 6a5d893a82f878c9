/**
 * `npm run proof:gpu` verifies every claim about the GPU engine on both software adapters, in parts of some minutes each. It
 * stores the results in .cache/proof and writes the tables of all parts to docs/proof.md.
 *
 *   npm run proof:gpu -- [--adapter swiftshader|lavapipe] [--part NAME]… [--list] [--tables]
 *
 * `--tables` only writes the tables from stored results.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { goldenFamilies } from '../test/goldenFamilies.ts';
import { type Adapter, adapterLaunch, adapters, Unavailable } from './on-adapter.ts';
import { proofTables } from './proof-tables.ts';
import { summaryVariable, testSummary } from './reporter.ts';
import { kernelTests } from './shared/kernelTests.ts';
import { projectRoot } from './shared/paths.ts';

export interface Part {
  readonly name: string;
  readonly files: readonly string[];
  /** Pattern of golden checkpoints' names, or `all`. */
  readonly goldens: string;
}

/** Stored results of a part. */
export interface PartResult {
  readonly part: string;
  readonly adapter: Adapter;
  readonly date: string;
  readonly seconds: number;
  readonly passed: number;
  readonly failed: number;
  readonly figures: readonly Readonly<Record<string, string | number>>[];
}

const kept = join(projectRoot, '.cache', 'proof');

const parts: readonly Part[] = [
  ...kernelTests.map((name) => ({ name, files: [`test/gpu/${name}.test.ts`], goldens: 'all' })),
  { name: 'device', files: ['test/gpu/device.test.ts'], goldens: 'all' },
  { name: 'cachePrecision', files: ['test/gpu/cachePrecision.test.ts'], goldens: 'all' },
  { name: 'pieces', files: ['test/gpu/pieces.test.ts'], goldens: 'all' },
  { name: 'served', files: ['test/gpu/served.test.ts'], goldens: 'all' },
  { name: 'storedSequences', files: ['test/gpu/storedSequences.test.ts'], goldens: 'all' },
  { name: 'rewinds', files: ['test/gpu/rewinds.test.ts'], goldens: 'all' },
  { name: 'chunkings', files: ['test/gpu/chunkings.test.ts'], goldens: 'all' },
  { name: 'selfCheck', files: ['test/gpu/selfCheck.test.ts'], goldens: 'all' },
  ...goldenFamilies.flatMap((family) =>
    ['safetensors', 'GGUF'].map((format) => ({
      name: `${family}-${format}`,
      files: ['test/gpu/goldens.test.ts'],
      goldens: `^${family} ${format}$`,
    })),
  ),
  { name: 'texts', files: ['test/gpu/texts.test.ts'], goldens: 'all' },
  { name: 'realLayers', files: ['test/gpu/realLayers.test.ts'], goldens: 'all' },
];

function runPart(part: Part, adapter: Adapter): PartResult {
  const { command, env } = adapterLaunch(adapter);
  const [program = process.execPath, ...before] = command;
  const figures = join(kept, 'figures.jsonl');
  const summary = join(kept, 'summary.json');
  for (const file of [figures, summary]) rmSync(file, { force: true });
  const vitest = join(projectRoot, 'node_modules', 'vitest', 'vitest.mjs');
  const reporters = ['--reporter=default', '--reporter=./scripts/reporter.ts'];
  const start = performance.now();
  spawnSync(program, [...before, vitest, 'run', '--config', 'test/gpu/vitest.config.ts', ...reporters, ...part.files], {
    stdio: 'inherit',
    cwd: projectRoot,
    env: {
      ...process.env,
      ...env,
      HEARTH_TEST_ADAPTER: adapter,
      HEARTH_TEST_GOLDENS: part.goldens,
      HEARTH_FIGURES: figures,
      [summaryVariable]: summary,
    },
  });
  const seconds = Math.round((performance.now() - start) / 1000);
  const { passed, failed } = existsSync(summary)
    ? testSummary.parse(JSON.parse(readFileSync(summary, 'utf8')))
    : { passed: 0, failed: [{ name: part.name, reason: 'vitest ended without a summary' }] };
  const lines = existsSync(figures) ? readFileSync(figures, 'utf8').trim().split('\n') : [];
  return {
    part: part.name,
    adapter,
    date: new Date().toISOString().slice(0, 10),
    seconds,
    passed,
    failed: failed.length,
    figures: lines.filter((line) => line !== '').map((line) => JSON.parse(line)),
  };
}

const { values } = parseArgs({
  options: {
    adapter: { type: 'string' },
    part: { type: 'string', multiple: true },
    list: { type: 'boolean', default: false },
    tables: { type: 'boolean', default: false },
  },
});
const chosenParts = parts.filter(({ name }) => values.part?.includes(name) ?? true);
const chosenAdapters = adapters.filter((name) => values.adapter === undefined || values.adapter === name);
mkdirSync(kept, { recursive: true });
if (values.list) console.log(parts.map(({ name }) => name).join('\n'));
else if (!values.tables) run();
if (!values.list) proofTables(kept);

function run(): void {
  for (const adapter of chosenAdapters) {
    for (const part of chosenParts) {
      try {
        const result = runPart(part, adapter);
        writeFileSync(join(kept, `${adapter}-${part.name}.json`), `${JSON.stringify(result)}\n`);
        if (result.failed > 0) process.exitCode = 1;
      } catch (error) {
        if (!(error instanceof Unavailable)) throw error;
        console.log(`SKIPPED ${adapter}: ${error.message}`);
        break;
      }
    }
  }
}
