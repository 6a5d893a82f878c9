import { stat } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { cancelled, HearthError, invalidInput } from '../errors.ts';
import { IgnoreRules } from '../index/repository/ignored.ts';
import { walk } from '../index/repository/walk.ts';
import { limits } from '../limits.ts';
import { completeParams, generateParams, summariseParams } from '../protocol/engineProtocol.ts';
import { type Command, languageOf, readSource } from './command.ts';
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
