/** Commands that answer: from a model (chat, complete, summarise, generate) or from the index of a folder (index, search). */
import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { extname, join, resolve } from 'node:path';
import { findEntry } from '../catalogue/catalogue.ts';
import { defaultStoreDirectory } from '../catalogue/files.ts';
import { cancelled, HearthError, invalidInput, notFound } from '../errors.ts';
import { citing, contextBudget, plan, quote, type Reader, repositorySources } from '../index/question/planner.ts';
import { IgnoreRules, walk } from '../index/repository/ignored.ts';
import { type Passage, Repository } from '../index/repository/repository.ts';
import { spareMemory } from '../index/syntax/grammars.ts';
import { limits } from '../limits.ts';
import { chatParams, completeParams, generateParams, summariseParams } from '../protocol/engineProtocol.ts';
import type { IndexState } from '../protocol/indexProtocol.ts';
import { thinkingMode } from '../protocol/models.ts';
import { openEmbedder } from '../runtime/loadedModel.ts';
import { type Command, languageOf, ProgressLine, readSource, type Terminal, type Values } from './command.ts';
import {
  json,
  remoteOption,
  samplingOf,
  samplingOptions,
  stream,
  streaming,
  withAnswerer,
  withEngine,
} from './session.ts';

export const chat: Command = {
  name: 'chat',
  usage: 'QUESTION',
  summary: 'Answers a question, optionally about a folder.',
  options: [
    {
      name: 'workspace',
      value: 'DIR',
      help: 'search this folder for the question; add the results and a repository map to the prompt',
    },
    {
      name: 'think',
      value: 'MODE',
      help: `thinking mode, if the model supports it: ${thinkingMode.options.join(', ')} (off)`,
    },
    { name: 'thinking-tokens', value: 'N', help: 'end thinking after N tokens (no limit)' },
    remoteOption,
    ...samplingOptions,
  ],
  async run(values, terminal) {
    const question = values.only('The question');
    const thinking = values.oneOf('think', thinkingMode.options) ?? 'off';
    const thinkingTokens = values.number('thinking-tokens', { least: 0, integer: true });
    const maxTokens = values.count('max-tokens');
    const machine = values.switch('json');
    const directory = values.text('workspace');
    await withAnswerer(values, terminal, machine ? undefined : streaming(terminal), async ({ engine, card }) => {
      const countTokens = (texts: string[]) => engine.countTokens({ texts });
      const context =
        directory === undefined
          ? undefined
          : await withIndex({ directory, values, terminal }, (repository) =>
              workspaceContext(repository, question, { ...card, countTokens }),
            );
      if (context) terminal.err(`${context.note}\n`);
      if (thinking !== 'off' && !card.thinkingModes.includes(thinking)) {
        const known = card.thinkingModes.join(', ');
        terminal.err(`${card.name} does not support --think ${thinking}; using the nearest of ${known}.\n`);
      }
      const content = [context?.text ?? '', question].filter((part) => part !== '').join('\n\n');
      const params = chatParams.parse({
        stream,
        messages: [{ role: 'user', content }],
        thinking,
        sampling: samplingOf(values),
        ...(thinkingTokens !== undefined && { thinkingTokens }),
        ...(maxTokens !== undefined && { maxTokens }),
      });
      const answer = await engine.chat(params, terminal.signal);
      if (answer.finish === 'cancelled') throw cancelled();
      if (machine) json(terminal, { model: card.id, backend: card.backend, files: context?.files ?? [], ...answer });
      else terminal.out('\n');
    });
  },
};

// Chooses the context of a question about a folder from its index, like the extension.

interface WorkspaceContext {
  /** Placed before the question in the prompt. */
  readonly text: string;
  /** Files that `text` quotes. */
  readonly files: readonly string[];
  /** Tells the user what was included. */
  readonly note: string;
}

const mapLabel = 'Repository map';

export async function workspaceContext(
  repository: Repository,
  question: string,
  reader: Reader & { countTokens(texts: string[]): number[] | Promise<number[]> },
): Promise<WorkspaceContext> {
  await repository.embeddingsOpened();
  const sources = await repositorySources(repository, { text: question, earlier: [], explicit: false, mapLabel });
  const counts = await reader.countTokens(sources.map(({ lines }) => lines.join('\n')));
  const candidates = sources.map((source, i) => ({ ...source, tokens: counts[i] ?? 0 }));
  const { chosen } = plan(candidates, contextBudget(reader, 0));
  const quoted = chosen.map(({ candidate, start, text }) => {
    const { path, languageId, firstLine, within } = candidate;
    return { path, languageId, text, firstLine: firstLine === 0 ? 0 : firstLine + start, whole: false, within };
  });
  const found = quoted.filter(({ firstLine }) => firstLine > 0);
  const places = found.map(
    ({ path, firstLine, text }) => `${path}:${firstLine}-${firstLine + text.split('\n').length - 1}`,
  );
  return {
    text: [...quoted.map(quote), ...(found.length > 0 ? [citing] : [])].join('\n\n'),
    files: [...new Set(found.map(({ path }) => path))],
    note:
      found.length === 0
        ? 'The search found nothing in this folder; the question is sent without context.'
        : `Included from ${repository.state.files} files: ${places.join(', ')}.`,
  };
}

export const complete: Command = {
  name: 'complete',
  usage: 'FILE:LINE:COLUMN',
  summary: 'Completes code at a position in a file. Lines and columns start at 1.',
  options: [{ name: 'multiline', help: 'complete the whole block' }, remoteOption, ...samplingOptions],
  async run(values, terminal) {
    const { path, line, column } = placeOf(values.only('FILE:LINE:COLUMN'));
    const text = await readSource(path);
    const cursor = offsetOf(text, path, line, column);
    const maxTokens = values.count('max-tokens');
    const params = completeParams.parse({
      prefix: text.slice(0, cursor),
      suffix: text.slice(cursor),
      path,
      languageId: languageOf(extname(path)),
      multiline: values.switch('multiline') ? 'always' : 'auto',
      sampling: samplingOf(values),
      ...(maxTokens !== undefined && { maxTokens }),
    });
    await withAnswerer(values, terminal, undefined, async ({ engine, card }) => {
      const completion = await engine.complete(params, terminal.signal);
      if (values.switch('json')) json(terminal, { model: card.id, backend: card.backend, ...completion });
      else terminal.out(`${completion.text}\n`);
    });
  },
};

function placeOf(argument: string): { path: string; line: number; column: number } {
  // Parses from the end, because a Windows path contains a colon.
  const [, path, line, column] = /^(.+):(\d+):(\d+)$/.exec(argument) ?? [];
  if (path === undefined || Number(line) < 1 || Number(column) < 1) {
    throw invalidInput(`'${argument}' is not FILE:LINE:COLUMN. Lines and columns start at 1.`);
  }
  return { path, line: Number(line), column: Number(column) };
}

function offsetOf(text: string, path: string, line: number, column: number): number {
  const lines = text.split('\n');
  const content = lines[line - 1]?.replace(/\r$/, '');
  if (content === undefined) throw invalidInput(`${path} has no line ${line}; it has ${lines.length} lines.`);
  if (column > content.length + 1) {
    throw invalidInput(`Line ${line} of ${path} has ${content.length} characters; column ${column} is past its end.`);
  }
  return lines.slice(0, line - 1).reduce((sum, { length }) => sum + length + 1, 0) + column - 1;
}

export const generate: Command = {
  name: 'generate',
  usage: '--prompt TEXT',
  summary: 'Answers a prompt, or continues it with --raw.',
  options: [
    { name: 'prompt', value: 'TEXT', help: 'the prompt' },
    { name: 'raw', help: 'continue the text without the chat template; special tokens in it are parsed' },
    ...samplingOptions,
  ],
  async run(values, terminal) {
    values.none();
    const maxTokens = values.count('max-tokens');
    const params = generateParams.parse({
      stream,
      prompt: values.required('prompt'),
      raw: values.switch('raw'),
      sampling: samplingOf(values),
      ...(maxTokens !== undefined && { maxTokens }),
    });
    const machine = values.switch('json');
    await withEngine(values, terminal, machine ? undefined : streaming(terminal), async ({ engine, card }) => {
      const answer = await engine.generate(params, terminal.signal);
      if (answer.finish === 'cancelled') throw cancelled();
      if (machine) json(terminal, { model: card.id, backend: card.backend, ...answer });
      else terminal.out('\n');
    });
  },
};

export const summarise: Command = {
  name: 'summarise',
  usage: 'FILE|DIR',
  summary: 'Summarises a file, in parts if it exceeds the context, or a folder file by file.',
  options: [
    { name: 'max-tokens', value: 'N', help: 'maximum summary length in tokens (512)' },
    { name: 'fresh', help: 'ignore a cached summary' },
    remoteOption,
  ],
  async run(values, terminal) {
    const path = values.only('FILE or DIR');
    const maxTokens = values.count('max-tokens');
    const folder = (await stat(path).catch(() => undefined))?.isDirectory() === true;
    const params = summariseParams.parse({
      ...{ stream, path, fresh: values.switch('fresh') },
      ...(folder ? { text: '', files: await filesOf(path) } : await source(path)),
      ...(maxTokens !== undefined && { maxTokens }),
    });
    const asJson = values.switch('json');
    await withAnswerer(values, terminal, asJson ? undefined : streaming(terminal), async ({ engine, card }) => {
      const summary = await engine.summarise(params, terminal.signal);
      if (asJson) json(terminal, { model: card.id, backend: card.backend, ...summary });
      else terminal.out('\n');
    });
  },
};

const source = async (path: string) => ({ text: await readSource(path), languageId: languageOf(extname(path)) });

/** Reads the folder's text files. @throws HearthError `not-found` if there are none. */
async function filesOf(directory: string): Promise<{ path: string; text: string; languageId: string }[]> {
  const files = [];
  const paths = [...walk(directory, new IgnoreRules(directory, []))].flat().map(({ path }) => path);
  for (const path of paths.sort()) {
    // Skips binary and huge files.
    const read = await source(join(directory, path)).catch(() => undefined);
    if (read !== undefined && read.text.trim() !== '') files.push({ path, ...read });
  }
  if (files.length === 0) throw new HearthError('not-found', `${directory} has no source files.`);
  if (files.length > limits.generation.summaryFiles) {
    throw new HearthError(
      'context-overflow',
      `${directory} has ${files.length} files; the limit is ${limits.generation.summaryFiles}. Summarise one of its subfolders.`,
    );
  }
  return files;
}

// `hearth index` and `hearth search`. The index is stored next to the models, under a name derived from the folder.

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
async function withIndex<Result>(
  { directory, values, terminal }: IndexCall,
  use: (repository: Repository) => Promise<Result>,
): Promise<Result> {
  const absolute = resolve(directory);
  const found = await stat(absolute).catch(() => undefined);
  if (!found?.isDirectory()) throw notFound(`${absolute}: folder not found`);
  const name = createHash('sha256').update(absolute).digest('hex').slice(0, 32);
  spareMemory();
  const line = new ProgressLine(terminal);
  const repository = await Repository.open({
    database: join(defaultStoreDirectory(), 'index', `${name}.db`),
    folders: [{ name: '', directory: absolute }],
    onState: (state) => showState(line, state),
    onSalvage: (kept) => terminal.err(`Rebuilding the index; kept ${kept} embedding vectors of the previous one.\n`),
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
