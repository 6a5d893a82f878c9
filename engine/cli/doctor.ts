/**
 * `hearth doctor` checks each part that Hearth needs and prints a report to paste into an issue. The report contains no user,
 * file or folder names. Each failed check says what is wrong and what to do.
 */

import { constants } from 'node:fs';
import { access, mkdir, statfs } from 'node:fs/promises';
import { arch, availableParallelism, cpus, platform, release, totalmem } from 'node:os';
import packageJson from '../../package.json' with { type: 'json' };
import type { TuningReport } from '../backend/backend.ts';
import { defaultStoreDirectory, derivedDirectory } from '../catalogue/paths.ts';
import { openStore } from '../catalogue/store.ts';
import { invalidInput } from '../errors.ts';
import { createReader } from '../index/syntax/treeSitter.ts';
import { discoverDevices } from '../runtime/backends.ts';
import { showBytes } from '../units.ts';
import type { Command } from './command.ts';
import { withDecoder } from './decoder.ts';
import { json } from './session.ts';

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

/** Lines for people: the variants, and what each kernel takes of a token. */
export function showTuning({ trials, kernels, copyBytesPerSecond }: TuningReport): string[] {
  const all = kernels.reduce((sum, { ms }) => sum + ms, 0);
  const rows = kernels.map(({ name, dispatches, ms, bytes }) => {
    const speed = bytes === undefined ? undefined : (1000 * bytes) / ms;
    // A copy reads and writes: half of its bytes each.
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
    await import('onnxruntime-node');
    return { state: 'ok', text: 'onnxruntime-node is loaded' };
  },
  Devices: async () =>
    (await devices()).map(({ backend, found, description, notes }) => ({
      state: found ? 'ok' : 'limited',
      text: withoutPaths(`${backend}: ${[description, ...notes].join(' ')}`),
    })),
  Tuning: async () => {
    const reports = (await devices()).flatMap(({ tuning }) => tuning);
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
  Network: async () => {
    const proxies = ['HEARTH_PROXY', 'HTTPS_PROXY', 'https_proxy', 'HTTP_PROXY', 'http_proxy'].filter(
      (name) => process.env[name],
    );
    const text = proxies.length > 0 ? `downloads use the proxy in ${proxies.join(', ')}` : 'downloads use no proxy';
    return { state: 'ok', text };
  },
};

const devices = () => discoverDevices(derivedDirectory(defaultStoreDirectory()));

/** Removes absolute paths, because they often contain the user's name. */
const withoutPaths = (text: string): string => text.replaceAll(/(?:[A-Za-z]:)?(?:[\\/][^\s\\/:'"]+){2,}/g, '(path)');
