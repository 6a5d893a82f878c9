/**
 * `hearth doctor` checks each part that Hearth needs and prints a report to paste into an issue. The report contains no user,
 * file or folder names. Each failed check says what is wrong and what to do.
 */
import '../runtime/noTelemetry.ts';
import { constants } from 'node:fs';
import { access, mkdir, readFile, statfs } from 'node:fs/promises';
import { arch, availableParallelism, cpus, platform, release, totalmem } from 'node:os';
import * as z from 'zod';
import packageJson from '../../package.json' with { type: 'json' };
import type { TuningReport } from '../backend/backend.ts';
import { defaultStoreDirectory, derivedDirectory } from '../catalogue/files.ts';
import { openStore } from '../catalogue/store.ts';
import { HearthError, invalidInput, showBytes } from '../errors.ts';
import { createReader } from '../index/syntax/grammars.ts';
import {
  chatParams,
  completeParams,
  countTokensParams,
  generateParams,
  summariseParams,
  warmParams,
} from '../protocol/engineProtocol.ts';
import { loadParams } from '../protocol/models.ts';
import { describeGgml, discoverDevices } from '../runtime/backends.ts';
import { sharedEngines } from '../runtime/process.ts';
import { type RecordedRequest, recordedRequest } from '../runtime/serveEngine.ts';
import { Engine } from '../runtime/service.ts';
import { type Command, ProgressLine, type Terminal, type Values } from './command.ts';
import { withDecoder } from './decoder.ts';
import { json, report } from './session.ts';

export const tune: Command = {
  name: 'tune',
  usage: '--model M',
  summary: "Times variants of a model's GPU kernels, and keeps the fastest for this device and driver.",
  options: [],
  async run(values, terminal) {
    values.none();
    await withDecoder(values, terminal, undefined, async ({ model, decoder }) => {
      const { tuner } = decoder;
      if (!tuner) throw invalidInput(`'${decoder.backend}' has nothing to tune.`);
      while (await tuner.ready()) {
        terminal.signal.throwIfAborted();
        await tuner.step();
      }
      const { report } = tuner;
      if (!report) throw new Error('The tuner ended without a report.');
      if (values.switch('json')) json(terminal, { model, ...report });
      else terminal.out(`${showTuning(report).join('\n')}\n`);
    });
  },
};

/** Report for the user: the variants, and each kernel's share of a token's time. */
export function showTuning({ trials, kernels, copyBytesPerSecond }: TuningReport): string[] {
  const all = kernels.reduce((sum, { ms }) => sum + ms, 0);
  const rows = kernels.map(({ name, dispatches, ms, bytes }) => {
    const speed = bytes === undefined ? undefined : (1000 * bytes) / ms;
    // A copy reads half of its bytes and writes the other half.
    const share =
      speed === undefined || copyBytesPerSecond === undefined ? '' : ` ${percent(speed / copyBytesPerSecond)}`;
    const read = speed === undefined ? '' : `${showBytes(speed)}/s${share}`;
    return `${ms.toFixed(3).padStart(9)} ms ${percent(ms / all).padStart(5)}  ${`${dispatches}x`.padStart(5)}  ${name}  ${read}`.trimEnd();
  });
  return [
    ...trials.map(
      ({ name, tokenMs, chosen }) =>
        `${tokenMs.toFixed(3).padStart(9)} ms a token  ${name}${chosen ? '  (chosen)' : ''}`,
    ),
    '',
    'Time of a token, share, dispatches, kernel, weights read a second and share of the bandwidth of copies:',
    ...rows,
    ...(copyBytesPerSecond === undefined ? [] : [`Copies: ${showBytes(copyBytesPerSecond)}/s read and written.`]),
  ];
}

const percent = (share: number): string => `${Math.round(100 * share)} %`;

interface Finding {
  readonly part: string;
  readonly state: 'ok' | 'limited' | 'broken';
  readonly text: string;
}

export const doctor: Command = {
  name: 'doctor',
  usage: '',
  summary: 'Checks every part that Hearth needs on this machine. The report contains no file names.',
  options: [],
  async run(values, terminal) {
    values.none();
    const findings: Finding[] = [];
    for (const [part, check] of Object.entries(checks)) findings.push(...(await checked(part, check)));
    if (values.switch('json')) json(terminal, findings);
    else for (const { part, state, text } of findings) terminal.out(`${state.padEnd(7)} ${part}: ${text}\n`);
    if (findings.some(({ state }) => state === 'broken')) process.exitCode = 1;
  },
};

type Check = () => Promise<Omit<Finding, 'part'> | Omit<Finding, 'part'>[]>;

async function checked(part: string, check: Check): Promise<Finding[]> {
  try {
    return [await check()].flat().map((finding) => ({ part, ...finding }));
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return [{ part, state: 'broken', text: withoutPaths(message) }];
  }
}

const checks: Readonly<Record<string, Check>> = {
  Hearth: async () => ({ state: 'ok', text: `${packageJson.version} on Node ${process.versions.node}` }),
  Machine: async () => ({
    state: 'ok',
    text: `${platform()} ${release()} ${arch()}, ${cpus()[0]?.model.trim() ?? 'unknown processor'}, ${availableParallelism()} threads, ${showBytes(totalmem())} of memory`,
  }),
  'CPU backend': async () => {
    const ggml = await describeGgml();
    await import('onnxruntime-node');
    return { state: ggml.usable ? 'ok' : 'limited', text: `onnxruntime-node is loaded; ${withoutPaths(ggml.text)}` };
  },
  Devices: async () =>
    (await findDevices()).map(({ backend, found, description, notes }) => ({
      state: found ? 'ok' : 'limited',
      text: withoutPaths(`${backend}: ${[description, ...notes].join(' ')}`),
    })),
  Tuning: async () => {
    const reports = (await findDevices()).flatMap(({ tuning }) => tuning);
    const text = reports.map((report) => ['', ...showTuning(report)].join('\n    '));
    return text.map((table) => ({ state: 'ok', text: table }));
  },
  Grammars: async () => {
    await createReader('typescript', '(identifier) @name');
    return { state: 'ok', text: 'tree-sitter parses' };
  },
  Index: async () => {
    try {
      const { DatabaseSync } = await import('node:sqlite');
      new DatabaseSync(':memory:').exec('CREATE VIRTUAL TABLE t USING fts5(x)');
      return { state: 'ok', text: 'SQLite with FTS5' };
    } catch {
      return { state: 'limited', text: 'this Node has no SQLite; the repository index needs Node 22.13 or later' };
    }
  },
  Store: async () => {
    const directory = defaultStoreDirectory();
    await mkdir(directory, { recursive: true });
    await access(directory, constants.R_OK | constants.W_OK);
    const { bavail, bsize } = await statfs(directory);
    const present = (await openStore({}).list()).filter(({ state }) => state === 'present');
    const free = bavail * bsize;
    return {
      state: present.length > 0 && free > 1e9 ? 'ok' : 'limited',
      text: `${present.length} models, ${showBytes(free)} free${present.length === 0 ? '; download one with `hearth models pull`' : ''}`,
    };
  },
  'Shared engine': async () => {
    const pids = sharedEngines();
    const text = pids.length === 0 ? 'none runs now' : `of all windows: process ${pids.join(', ')}`;
    return { state: 'ok', text };
  },
  Network: async () => {
    const proxies = ['HEARTH_PROXY', 'HTTPS_PROXY', 'https_proxy', 'HTTP_PROXY', 'http_proxy'].filter(
      (name) => process.env[name],
    );
    const text = proxies.length > 0 ? `downloads use the proxy in ${proxies.join(', ')}` : 'downloads use no proxy';
    return { state: 'ok', text };
  },
};

const findDevices = () => discoverDevices(derivedDirectory(defaultStoreDirectory()));

/** Removes absolute paths, because they often contain the user's name. */
const withoutPaths = (text: string): string => text.replaceAll(/(?:[A-Za-z]:)?(?:[\\/][^\s\\/:'"]+){2,}/g, '(path)');

export const devices: Command = {
  name: 'devices',
  usage: '',
  summary: 'Lists the GPUs and the CPU, which of them Hearth uses, and why others are not used.',
  options: [],
  async run(values, terminal) {
    values.none();
    const found = await discoverDevices(derivedDirectory(defaultStoreDirectory()));
    if (values.switch('json')) {
      json(terminal, found);
      return;
    }
    for (const { backend, description, notes } of found) {
      const kind = backend === 'webgpu' ? 'GPU' : 'CPU';
      terminal.out(`${kind}  ${[description, ...notes].join('\n     ')}\n`);
    }
    const first = found.find(({ usedByAuto }) => usedByAuto);
    const choice =
      first?.backend === 'webgpu'
        ? 'the GPU if the model fits, GPU and CPU if some of its layers fit, otherwise the CPU'
        : 'the CPU';
    terminal.out(`\n--backend auto uses ${choice}.\n`);
  },
};

// `hearth replay` repeats recorded requests, for debugging and timing.

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
