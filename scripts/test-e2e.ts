/**
 * `npm run test:e2e -- [FILE...] [--repeat N] [--busy M]` runs the end-to-end test files whose path contains one of the names,
 * each N times in a row, next to M processes that only use CPU time. Prints a table of results and durations.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { createVitest, type TestModule, type Vitest } from 'vitest/node';
import { projectRoot } from './shared/paths.ts';
import { run } from './shared/process.ts';

interface Runs {
  readonly file: string;
  readonly seconds: number[];
  readonly tests: number;
  /** Number of failures by test name. */
  readonly failures: Map<string, number>;
  failed: number;
  skipped: number;
}

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { repeat: { type: 'string', default: '1' }, busy: { type: 'string', default: '0' } },
  });
  const count = (name: 'repeat' | 'busy', least: number) => {
    const value = Number(values[name]);
    if (Number.isInteger(value) && value >= least) return value;
    throw new Error(`--${name} must be a whole number of at least ${least}, not '${values[name]}'.`);
  };
  return { repeat: count('repeat', 1), busy: count('busy', 0), files: positionals };
}

/** Processes that compute nothing, and end when this one is killed. */
const startBusy = (count: number): ChildProcess[] => {
  const work = 'for (const parent = process.ppid; process.ppid === parent; ) for (let i = 0; i < 1e8; i++);';
  return Array.from({ length: count }, () => spawn(process.execPath, ['-e', work], { stdio: 'ignore' }));
};

/** Runs the files one after another, to separate their results. Packages and installs only once. */
async function repeatEach(vitest: Vitest, names: readonly string[], repeat: number): Promise<Runs[]> {
  const all: Runs[] = [];
  for (const specification of await vitest.globTestSpecifications([...names])) {
    const runs: Runs = {
      file: relative(projectRoot, specification.moduleId),
      seconds: [],
      tests: 0,
      failures: new Map(),
      failed: 0,
      skipped: 0,
    };
    for (let index = 0; index < repeat; index++) {
      const startMs = performance.now();
      const { testModules, unhandledErrors } = await vitest.runTestSpecifications([specification], false);
      runs.seconds.push((performance.now() - startMs) / 1000);
      const failures = testModules.flatMap(failedTests);
      if (unhandledErrors.length > 0) failures.push('an error outside of the tests');
      if (failures.length > 0) runs.failed++;
      for (const name of failures) runs.failures.set(name, (runs.failures.get(name) ?? 0) + 1);
      const states = testModules.flatMap((module) =>
        [...module.children.allTests()].map((test) => test.result().state),
      );
      runs.skipped += states.filter((state) => state === 'skipped').length;
      Object.assign(runs, { tests: states.length });
    }
    all.push(runs);
  }
  return all;
}

function failedTests(module: TestModule): string[] {
  const tests = [...module.children.allTests()].filter((test) => test.result().state === 'failed');
  const suites = [...module.children.allSuites()].filter((suite) => suite.errors().length > 0);
  const names = [...tests, ...suites].map(({ fullName }) => fullName);
  return module.errors().length > 0 ? [...names, 'the file itself'] : names;
}

function table(all: readonly Runs[], repeat: number): string {
  const rows = all.map(({ file, seconds, tests, failed, skipped }) => {
    const sorted = seconds.toSorted((a, b) => a - b);
    const time = (at: number) => (sorted[Math.floor((sorted.length - 1) * at)] ?? 0).toFixed(0);
    const figures = [tests, `${repeat - failed} of ${repeat}`, skipped, time(0.5), time(1)];
    return `| \`${file}\` | ${figures.join(' | ')} |`;
  });
  return [
    '| File | Tests | Runs passed | Skipped | Median (s) | Longest (s) |',
    '| --- | --- | --- | --- | --- | --- |',
    ...rows,
  ].join('\n');
}

const { repeat, busy, files } = readArguments();
await run(process.execPath, ['esbuild.mjs'], { cwd: projectRoot });
const config = join(projectRoot, 'test', 'e2e', 'vitest.config.ts');
const vitest = await createVitest('test', { config, root: projectRoot, watch: false });
const busyProcesses = startBusy(busy);
try {
  await vitest.standalone();
  const all = await repeatEach(vitest, files, repeat);
  console.log(`\nEach file ${repeat} times, next to ${busy} busy processes:\n\n${table(all, repeat)}`);
  for (const { file, failures } of all) {
    for (const [name, times] of failures) console.log(`\n${times} of ${repeat} failed: ${file}: ${name}`);
  }
  if (all.length === 0) console.error(`No end-to-end test has a path with: ${files.join(', ')}`);
  process.exitCode = all.length > 0 && all.every(({ failed }) => failed === 0) ? 0 : 1;
} finally {
  for (const child of busyProcesses) child.kill();
  await vitest.close();
}
