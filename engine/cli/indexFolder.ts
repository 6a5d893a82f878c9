/** The commands on a folder's index. It lies beside the models, named by the folder. */
import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { cancelled, notFound } from '../errors.ts';
import { Repository } from '../repository/repository.ts';
import type { IndexState } from '../repository/state.ts';
import { defaultStoreDirectory } from '../store/paths.ts';
import type { Command } from './command.ts';
import { json } from './session.ts';
import { ProgressLine, type Terminal } from './terminal.ts';

export const index: Command = {
  name: 'index',
  usage: '[DIR]',
  summary: 'Reads a folder (this one) into its index; what is there already is only compared.',
  options: [],
  async run(values, terminal) {
    const [directory = '.', second] = values.positionals;
    if (second !== undefined) values.only('DIR');
    const startMs = performance.now();
    await withIndex(directory, terminal, async (repository) => {
      const { files, chunks, symbols, skipped } = repository.indexer.state;
      const seconds = (performance.now() - startMs) / 1000;
      if (values.switch('json')) return json(terminal, { files, chunks, symbols, skipped, seconds });
      const left = Object.entries(skipped).map(([why, count]) => `${count} ${why}`);
      const note = left.length === 0 ? '' : `; only the names of ${left.join(', ')}`;
      terminal.out(`${files} files, ${chunks} chunks, ${symbols} symbols in ${seconds.toFixed(1)} s${note}\n`);
    });
  },
};

export const search: Command = {
  name: 'search',
  usage: 'QUERY',
  summary: "Searches a folder's index, after comparing it with the folder.",
  options: [
    { name: 'workspace', value: 'DIR', help: 'the folder (this one)' },
    { name: 'limit', value: 'N', help: 'results shown (10)' },
    { name: 'symbols', help: 'names of definitions instead of text' },
  ],
  async run(values, terminal) {
    const query = values.only('The query');
    const limit = values.count('limit') ?? 10;
    await withIndex(values.text('workspace') ?? '.', terminal, async (repository) => {
      const found = values.switch('symbols') ? repository.symbols(query, limit) : repository.search(query, limit);
      if (values.switch('json')) return json(terminal, found);
      for (const place of found) {
        const what = 'name' in place ? `${place.kind} ${place.name}` : firstLineOf(place.text);
        terminal.out(`${place.path}:${place.firstLine}-${place.lastLine}  ${what}\n`);
      }
    });
  },
};

export async function withIndex(
  directory: string,
  terminal: Terminal,
  use: (repository: Repository) => Promise<void> | void,
): Promise<void> {
  const absolute = resolve(directory);
  const found = await stat(absolute).catch(() => undefined);
  if (!found?.isDirectory()) throw notFound(`There is no folder ${absolute}.`);
  const name = createHash('sha256').update(absolute).digest('hex').slice(0, 32);
  const line = new ProgressLine(terminal);
  const repository = await Repository.open({
    database: join(defaultStoreDirectory(), 'index', `${name}.db`),
    folders: [{ name: '', directory: absolute }],
    onState: ({ phase, files, pending }: IndexState) => {
      if (phase === 'indexing') line.show('Indexing', files, files + pending, 'parts');
    },
  });
  const stop = (): void => repository.indexer.pause();
  terminal.signal.addEventListener('abort', stop, { once: true });
  try {
    repository.indexer.rescan();
    await repository.indexer.settled();
    line.end();
    if (terminal.signal.aborted)
      throw cancelled('Stopped; what was read is kept, and the next call goes on from there.');
    await use(repository);
  } finally {
    terminal.signal.removeEventListener('abort', stop);
    await repository.close();
  }
}

const firstLineOf = (text: string): string =>
  text
    .split('\n')
    .find((line) => line.trim() !== '')
    ?.trim() ?? '';
