/** What the index costs on a folder: files a second, memory, disk, search latency, one save. */
import { mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Repository } from '../../engine/repository/repository.ts';

const searches = 200;
const saves = 20;

export async function measureIndex(directory: string): Promise<void> {
  const storage = mkdtempSync(join(tmpdir(), 'hearth-index-'));
  const database = join(storage, 'index.db');
  let peakBytes = 0;
  const watch = setInterval(() => {
    peakBytes = Math.max(peakBytes, process.memoryUsage.rss());
  }, 200);
  const folders = [{ name: '', directory }];
  const repository = await Repository.open({ database, folders });
  const seconds = await timed(async () => {
    repository.indexer.rescan();
    await repository.indexer.settled();
  });
  const { files, chunks, symbols, skipped } = repository.indexer.state;
  const again = await timed(async () => {
    repository.indexer.rescan();
    await repository.indexer.settled();
  });
  const latencies = await searchLatencies(repository);
  const save = await saveMs(repository, directory);
  clearInterval(watch);
  await repository.close();
  const rows: [string, string][] = [
    ['files', `${files} (of ${JSON.stringify(skipped)} the names only)`],
    ['chunks, symbols', `${chunks}, ${symbols}`],
    ['first index', `${seconds.toFixed(0)} s, ${(files / seconds).toFixed(0)} files a second`],
    ['scan without a change', `${again.toFixed(1)} s`],
    ['peak memory of the process', `${(peakBytes / 1e6).toFixed(0)} MB`],
    ['index on disk', `${(statSync(database).size / 1e6).toFixed(0)} MB`],
    ['search, p50 and p95', `${quantile(latencies, 0.5).toFixed(1)} ms, ${quantile(latencies, 0.95).toFixed(1)} ms`],
    ['one save, mean', `${save.toFixed(1)} ms`],
  ];
  for (const [what, figure] of rows) console.log(`| ${what} | ${figure} |`);
  rmSync(storage, { recursive: true });
}

async function timed(work: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

/** Questions of two to four words that stand in names of the index. */
async function searchLatencies(repository: Repository): Promise<number[]> {
  const names = 'a b c d e f g h i k l m n o p r s t u v w'
    .split(' ')
    .flatMap((letter) => repository.symbols(letter, 40));
  return Array.from({ length: searches }, (_, i) => {
    const words = Array.from(
      { length: 2 + (i % 3) },
      (_, j) => names[(i * 7 + j * 131) % names.length]?.name ?? 'main',
    );
    const start = performance.now();
    repository.search(`how does ${words.join(' and ')} work`, 20);
    return performance.now() - start;
  });
}

/** A line is added to a file and taken away again: what the indexer computes each time. */
async function saveMs(repository: Repository, directory: string): Promise<number> {
  const [hit] = repository.search('return value of the function', 1);
  if (!hit) return Number.NaN;
  const path = join(directory, hit.path);
  const { atime, mtime } = statSync(path);
  const text = readFileSync(path, 'utf8');
  let total = 0;
  for (let i = 0; i < saves; i++) {
    writeFileSync(path, i % 2 === 0 ? `${text}\n` : text);
    total += await timed(async () => {
      repository.indexer.update([hit.path]);
      await repository.indexer.settled();
    });
  }
  writeFileSync(path, text);
  utimesSync(path, atime, mtime);
  return (1000 * total) / saves;
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}
