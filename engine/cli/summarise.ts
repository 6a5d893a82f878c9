import { stat } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { HearthError } from '../errors.ts';
import { IgnoreRules } from '../index/repository/ignored.ts';
import { walk } from '../index/repository/walk.ts';
import { limits } from '../limits.ts';
import { summariseParams } from '../protocol/engineProtocol.ts';
import { type Command, languageOf, readSource } from './command.ts';
import { json, remoteOption, stream, streaming, withAnswerer } from './session.ts';

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
