/** Slices of `npm run proof:processes` and `npm run proof:shared`, with the built engine, indexer and command line. */
import { expect, it } from 'vitest';
import { attackProcesses, type Moment } from '../../proof/processes.ts';
import { shareFiles } from '../../proof/sharedFiles.ts';

const wanted = new Set([
  'engine: kill',
  'engine: stop',
  'indexer: kill',
  'graph thread: fail',
  'graph thread: hang',
  'grammar thread: fail',
  'other window: kill',
  'two windows: start',
]);

it('processes that are killed, stopped, fail or hang in the middle of their work are replaced, and nothing is lost', async () => {
  const seen: Moment[] = [];
  const { left } = await attackProcesses({
    moments: 8,
    seed: 5,
    only: (name) => wanted.has(name),
    onMoment: (moment) => seen.push(moment),
  });
  expect(seen.map(({ name }) => name).sort()).toEqual([...wanted].sort());
  expect(seen.flatMap(({ name, problems }) => problems.map((problem) => `${name}: ${problem}`))).toEqual([]);
  // What was killed, stopped or hung has been replaced.
  expect(seen.filter(({ backMs }) => backMs !== undefined)).toHaveLength(4);
  expect(left).toEqual([]);
});

it('two processes damage no files that they share: both answer, or one says why it cannot', async () => {
  expect(await shareFiles(1)).toEqual([]);
});
