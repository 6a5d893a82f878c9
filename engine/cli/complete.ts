import { extname } from 'node:path';
import { cancelled, invalidInput } from '../errors.ts';
import { completeParams, generateParams } from '../protocol/engineProtocol.ts';
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
