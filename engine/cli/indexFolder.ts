/** `hearth index` and `hearth search`. The index is stored next to the models, under a name derived from the folder. */
import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { findEntry } from '../catalogue/catalogue.ts';
import { defaultStoreDirectory } from '../catalogue/paths.ts';
import { cancelled, HearthError, notFound } from '../errors.ts';
import { type Passage, Repository } from '../index/repository/repository.ts';
import type { IndexState } from '../index/repository/state.ts';
import { keepWasmUnoptimised } from '../index/repository/wasmFlags.ts';
import { openEmbedder } from '../runtime/embedder.ts';
import type { Command, Values } from './command.ts';
import { json } from './session.ts';
import { ProgressLine, type Terminal } from './terminal.ts';

export const index: Command = {
  name: 'index',
  usage: '[DIR]',
  summary: 'Indexes a folder (the current one). Reads only files that changed.',
  options: [
    { name: 'embeddings', value: 'M', help: 'embedding model for semantic search; remembered until set to `off`' },
  ],
  async run(values, terminal) {
    const [directory = '.', second] = values.positionals;
    if (second !== undefined) values.only('DIR');
    const startMs = performance.now();
    await withIndex({ directory, values, terminal }, async (repository) => {
      await repository.settled();
      const { files, chunks, symbols, skipped, embeddings } = repository.state;
      if (embeddings?.problem !== undefined) throw new HearthError('unavailable', embeddings.problem);
      const seconds = (performance.now() - startMs) / 1000;
      const vectors = embeddings && { model: embeddings.model, chunks: embeddings.done };
      if (values.switch('json')) return json(terminal, { files, chunks, symbols, skipped, vectors, seconds });
      const skippedCounts = Object.entries(skipped).map(([why, count]) => `${count} ${why}`);
      const note = skippedCounts.length === 0 ? '' : `; contents skipped: ${skippedCounts.join(', ')}`;
      const vectorNote = vectors ? `, ${vectors.chunks} vectors by ${vectors.model}` : '';
      terminal.out(
        `${files} files, ${chunks} chunks, ${symbols} symbols${vectorNote} in ${seconds.toFixed(1)} s${note}\n`,
      );
    });
  },
};

export const search: Command = {
  name: 'search',
  usage: 'QUERY',
  summary: "Updates and searches a folder's index, also by embeddings if it has them.",
  options: [
    { name: 'workspace', value: 'DIR', help: 'the folder (the current one)' },
    { name: 'limit', value: 'N', help: 'number of results (10)' },
    { name: 'symbols', help: 'search names of definitions instead of text' },
  ],
  async run(values, terminal) {
    const query = values.only('The query');
    const limit = values.count('limit') ?? 10;
    const directory = values.text('workspace') ?? '.';
    await withIndex({ directory, values, terminal }, async (repository) => {
      const found = values.switch('symbols') ? repository.symbols(query, limit) : await find(repository, query, limit);
      const problem = repository.state.embeddings?.problem;
      if (problem !== undefined) terminal.err(`${problem}\n`);
      if (values.switch('json')) return json(terminal, found);
      for (const place of found) {
        const what = 'name' in place ? `${place.kind} ${place.name}` : firstLineOf(place.text);
        terminal.out(`${place.path}:${place.firstLine}-${place.lastLine}  ${what}\n`);
      }
    });
  },
};

/** Uses the existing vectors only; `hearth index` computes missing ones. */
async function find(repository: Repository, query: string, limit: number): Promise<Passage[]> {
  await repository.embeddingsOpened();
  return repository.searchByMeaning(query, limit);
}

interface IndexCall {
  readonly directory: string;
  readonly values: Values;
  readonly terminal: Terminal;
}

/** Opens the folder's index and updates it. */
export async function withIndex<Result>(
  { directory, values, terminal }: IndexCall,
  use: (repository: Repository) => Promise<Result>,
): Promise<Result> {
  const absolute = resolve(directory);
  const found = await stat(absolute).catch(() => undefined);
  if (!found?.isDirectory()) throw notFound(`${absolute}: folder not found`);
  const name = createHash('sha256').update(absolute).digest('hex').slice(0, 32);
  keepWasmUnoptimised();
  const line = new ProgressLine(terminal);
  const repository = await Repository.open({
    database: join(defaultStoreDirectory(), 'index', `${name}.db`),
    folders: [{ name: '', directory: absolute }],
    onState: (state) => showState(line, state),
  });
  const stop = (): void => repository.pause();
  terminal.signal.addEventListener('abort', stop, { once: true });
  try {
    repository.indexer.rescan();
    chooseEmbeddings(repository, values);
    await repository.indexer.settled();
    line.end();
    const stopped = 'Stopped. Indexed files are kept; the next run continues from there.';
    if (terminal.signal.aborted) throw cancelled(stopped);
    const result = await use(repository);
    line.end();
    if (terminal.signal.aborted) throw cancelled(stopped);
    return result;
  } finally {
    terminal.signal.removeEventListener('abort', stop);
    await repository.close();
  }
}

function showState(line: ProgressLine, { phase, files, pending, embeddings }: IndexState): void {
  if (phase === 'indexing') line.show('Indexing', files, files + pending, 'parts');
  else if (embeddings?.phase === 'embedding') line.show('Embedding', embeddings.done, embeddings.total, 'parts');
}

/** The requested embedding model, or the one stored in the index. */
function chooseEmbeddings(repository: Repository, values: Values): void {
  const asked = values.text('embeddings');
  if (asked === 'off') repository.forgetEmbeddings();
  // Stored as an absolute path, so that it works from any folder.
  const named = asked === undefined || findEntry(asked) ? asked : resolve(asked);
  const chosen = asked === 'off' ? undefined : (named ?? repository.embeddingModel);
  if (chosen === undefined) return;
  const options = { backend: values.backend(), threads: values.count('threads') };
  repository.useEmbeddings({ model: chosen, open: (signal) => openEmbedder(chosen, signal, options) });
}

const firstLineOf = (text: string): string =>
  text
    .split('\n')
    .find((line) => line.trim() !== '')
    ?.trim() ?? '';
