/** `hearth replay` repeats recorded requests, for debugging and timing. */
import { readFile } from 'node:fs/promises';
import * as z from 'zod';
import { HearthError, invalidInput } from '../errors.ts';
import {
  chatParams,
  completeParams,
  countTokensParams,
  generateParams,
  loadParams,
  summariseParams,
  warmParams,
} from '../protocol/engineProtocol.ts';
import { type RecordedRequest, recordedRequest } from '../runtime/serveEngine.ts';
import { Engine } from '../runtime/service.ts';
import type { Command, Values } from './command.ts';
import { json, report } from './session.ts';
import { ProgressLine, type Terminal } from './terminal.ts';

export const replay: Command = {
  name: 'replay',
  usage: 'FILE',
  summary: 'Repeats requests that an engine recorded (HEARTH_RECORD=FILE) and prints results and times.',
  options: [{ name: 'only', value: 'N', help: 'only request N (from 1), after the load before it' }],
  async run(values, terminal) {
    const requests = chosen(await recordedIn(values.only('The file of recorded requests')), values.count('only'));
    const progress = new ProgressLine(terminal);
    const engine = new Engine({ onDelta: () => {}, onProgress: (step) => report(progress, step) });
    try {
      for (const { number, request } of requests) await replayOne(engine, number, request, values, terminal);
    } finally {
      progress.end();
      await engine.unload();
    }
  },
};

interface Numbered {
  readonly number: number;
  readonly request: RecordedRequest;
}

async function recordedIn(path: string): Promise<Numbered[]> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new HearthError('not-found', `Could not read ${path}: ${error instanceof Error ? error.message : error}`);
  });
  const lines = text.split('\n').filter((line) => line !== '');
  if (lines.length === 0) throw invalidInput(`${path} has no requests. Set HEARTH_RECORD before the engine starts.`);
  return lines.map((line, i) => ({ number: i + 1, request: parsed(line, i + 1) }));
}

function parsed(line: string, number: number): RecordedRequest {
  try {
    return recordedRequest.parse(JSON.parse(line));
  } catch {
    throw invalidInput(`Line ${number} is not a recorded request.`);
  }
}

function chosen(requests: readonly Numbered[], only: number | undefined): readonly Numbered[] {
  if (only === undefined) return requests;
  const one = requests[only - 1];
  if (!one) throw invalidInput(`--only ${only} is out of range: the file has ${requests.length} requests.`);
  const load = requests.slice(0, only - 1).findLast(({ request }) => request.method === 'load');
  return load && one.request.method !== 'load' ? [load, one] : [one];
}

async function replayOne(
  engine: Engine,
  number: number,
  { method, params }: RecordedRequest,
  values: Values,
  terminal: Terminal,
): Promise<void> {
  const start = performance.now();
  const result = await answer(engine, method, params, values, terminal.signal).catch((error: unknown) => {
    if (error instanceof z.ZodError) throw invalidInput(`Request ${number}: ${z.prettifyError(error)}`);
    if (error instanceof HearthError) return { failed: error.code, message: error.message };
    throw error;
  });
  const tookMs = Math.round(performance.now() - start);
  if (values.switch('json')) json(terminal, { number, method, tookMs, result });
  else terminal.out(`${number} ${method} ${tookMs} ms ${JSON.stringify(result)}\n`);
}

/** `--model` and `--backend` override the recorded values. */
async function answer(
  engine: Engine,
  method: RecordedRequest['method'],
  params: unknown,
  values: Values,
  signal: AbortSignal,
): Promise<unknown> {
  switch (method) {
    case 'load': {
      const recorded = loadParams.parse(params);
      const backend = values.text('backend') === undefined ? recorded.backend : values.backend();
      return engine.load({ ...recorded, backend, model: values.text('model') ?? recorded.model }, signal);
    }
    case 'complete':
      return engine.complete(completeParams.parse(params), signal);
    case 'warm':
      return engine.warm(warmParams.parse(params), signal);
    case 'chat':
      return engine.chat(chatParams.parse(params), signal);
    case 'generate':
      return engine.generate(generateParams.parse(params), signal);
    case 'summarise':
      return engine.summarise(summariseParams.parse(params), signal);
    case 'countTokens':
      return engine.countTokens(countTokensParams.parse(params));
  }
}
