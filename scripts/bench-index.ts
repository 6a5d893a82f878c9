/**
 * Measures the cost of indexing a large tree, and checks that killing the indexer loses nothing.
 *
 *     npm run build && npm run bench:index [-- --tree DIR] [--seconds N] [--fresh]
 *
 * The default tree is Debian's source of Linux (87,000 files), downloaded once. Indexing runs for `--seconds` (240) and is
 * then killed by SIGKILL. The next run continues; the run that finishes prints the table. Linux only.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { IgnoreRules, walk } from '../engine/index/repository/ignored.ts';
import { grammarOf } from '../engine/index/syntax/grammars.ts';
import { seededRandom } from '../engine/sampling/random.ts';
import { linuxSource, sourceFolder } from './context/sources.ts';
import { IndexProcess } from './index/indexProcess.ts';
import { wholenessOf } from './index/wholeness.ts';
import { devCache } from './shared/paths.ts';

const searches = 300;
const saves = 80;
const comparedFiles = 1000;

/** Measurements of earlier runs on the same index. */
interface Progress {
  seconds: number;
  processorSeconds: number;
  peakBytes: number;
  kills: number;
}

async function index(directory: string, database: string, progress: Progress, limitMs: number): Promise<boolean> {
  const start = performance.now();
  const indexer = await IndexProcess.open(directory, database);
  const done = await indexer.settled(limitMs, ({ phase, files, pending }) =>
    console.error(`${phase}: ${files} files, ${pending} pending`),
  );
  progress.seconds += (performance.now() - start) / 1000;
  progress.processorSeconds += indexer.processorSeconds();
  progress.peakBytes = Math.max(progress.peakBytes, indexer.peakBytes());
  progress.kills += 1;
  await indexer.kill();
  return done;
}

async function questionsOf(indexer: IndexProcess): Promise<string[]> {
  const letters = [...'abcdefghiklmnoprstuvw'];
  const found = await Promise.all(letters.map((name) => indexer.requests.symbols({ name, limit: 40 })));
  const names = found.flat().map(({ name }) => name);
  return Array.from({ length: searches }, (_, i) => {
    const words = Array.from({ length: 2 + (i % 3) }, (_, j) => names[(i * 7 + j * 131) % names.length] ?? 'main');
    return `how does ${words.join(' and ')} work`;
  });
}

/** Wall time and CPU time. */
interface Times {
  readonly wallMs: number[];
  readonly processorMs: number[];
}

async function searchTimes(indexer: IndexProcess): Promise<Times> {
  const times: Times = { wallMs: [], processorMs: [] };
  for (const question of await questionsOf(indexer)) {
    await timed(indexer, times, async () => void (await indexer.requests.search({ question, limit: 20 })));
  }
  return times;
}

async function timed(indexer: IndexProcess, times: Times, work: () => Promise<void>): Promise<void> {
  const [start, processorStart] = [performance.now(), indexer.processorMs()];
  await work();
  times.wallMs.push(performance.now() - start);
  times.processorMs.push(indexer.processorMs() - processorStart);
}

/** Adds a line to random sources and removes it again. Measures until the index is up to date. */
async function saveTimes(indexer: IndexProcess, directory: string): Promise<Times> {
  const random = seededRandom(1);
  const files = [...walk(directory, new IgnoreRules(directory, []))].flat().map(({ path }) => path);
  const sources = files.filter((path) => grammarOf(path) !== undefined);
  const saved = Array.from({ length: saves / 2 }, () => sources[Math.floor(random() * sources.length)] ?? '');
  const times: Times = { wallMs: [], processorMs: [] };
  for (const path of new Set(saved)) {
    const file = join(directory, path);
    const { atime, mtime } = statSync(file);
    const text = readFileSync(file);
    for (const content of [Buffer.concat([text, Buffer.from('\n')]), text]) {
      writeFileSync(file, content);
      await timed(indexer, times, async () => {
        const settled = indexer.settled(60_000);
        await indexer.requests.update({ paths: [path] });
        await settled;
      });
    }
    utimesSync(file, atime, mtime);
  }
  return times;
}

async function report(directory: string, database: string, progress: Progress): Promise<void> {
  const start = performance.now();
  const indexer = await IndexProcess.open(directory, database);
  await indexer.settled(600_000);
  const again = (performance.now() - start) / 1000;
  const { files, chunks, symbols, skipped } = await indexer.requests.state();
  const search = await searchTimes(indexer);
  const save = await saveTimes(indexer, directory);
  const peakBytes = Math.max(progress.peakBytes, indexer.peakBytes());
  await indexer.kill();
  const whole = await wholenessOf(directory, database, comparedFiles);
  const { seconds, processorSeconds, kills } = progress;
  const rows = [
    ['files', `${files} (contents skipped: ${JSON.stringify(skipped)})`],
    ['chunks, symbols', `${chunks}, ${symbols}`],
    ['first index', `${seconds.toFixed(0)} s, ${(files / seconds).toFixed(0)} files a second`],
    ['CPU time', `${processorSeconds.toFixed(0)} s, ${(files / processorSeconds).toFixed(0)} files a second`],
    ['peak memory of the process', `${(peakBytes / 1e6).toFixed(0)} MB`],
    ['index on disk', `${(statSync(database).size / 1e6).toFixed(0)} MB`],
    ['start and scan without a change', `${again.toFixed(1)} s`],
    ['search, p50 and p95', spread(search.wallMs)],
    ['search, CPU time', spread(search.processorMs)],
    ['one save, p50 and p95', spread(save.wallMs)],
    ['one save, CPU time', spread(save.processorMs)],
    ['killed by SIGKILL', `${kills} times`],
    ['files by git, missing, too many', `${whole.filesByGit}, ${whole.missing}, ${whole.tooMany}`],
    ['files parsed again, different', `${whole.compared}, ${whole.different}`],
  ];
  console.log(`| ${basename(directory)} | |\n|---|---:|`);
  for (const row of rows) console.log(`| ${row.join(' | ')} |`);
}

const spread = (ms: readonly number[]): string =>
  `${quantile(ms, 0.5).toFixed(1)} ms, ${quantile(ms, 0.95).toFixed(1)} ms`;

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

const { values } = parseArgs({
  options: { tree: { type: 'string' }, seconds: { type: 'string', default: '240' }, fresh: { type: 'boolean' } },
});
const directory = values.tree === undefined ? await sourceFolder(linuxSource) : resolve(values.tree);
const storage = join(devCache, 'index', directory.replaceAll(/\W+/g, '-'));
if (values.fresh) rmSync(storage, { recursive: true, force: true });
mkdirSync(storage, { recursive: true });
const database = join(storage, 'index.db');
const notes = join(storage, 'progress.json');
const progress: Progress = existsSync(notes)
  ? JSON.parse(readFileSync(notes, 'utf8'))
  : { seconds: 0, processorSeconds: 0, peakBytes: 0, kills: 0 };
const whole = join(storage, 'whole');
if (!existsSync(whole)) {
  const done = await index(directory, database, progress, 1000 * Number(values.seconds));
  writeFileSync(notes, JSON.stringify(progress));
  if (done) writeFileSync(whole, '');
}
if (existsSync(whole)) await report(directory, database, progress);
else console.log('Not finished: the indexer was killed after --seconds. Run this again to continue.');
