/**
 * Compares load time with a plain read of the file and with llama-server's start, and measures resident memory after the load.
 * The file is in the page cache.
 */
import { closeSync, openSync, readSync, rmSync, statSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { hashFile, modelFolder } from '../../engine/catalogue/files.ts';
import { startHearth, timeLoadAlone } from './hearthEngine.ts';
import { startLlamaServer } from './llamaServer.ts';
import { defaultModel } from './models.ts';
import type { Goal, Line, Report, Side } from './report.ts';
import { type EngineOptions, type Start, timed } from './requester.ts';
import type { Settings } from './settings.ts';

const contextTokens = 4096;
const asARead: Goal = { of: 'ratio', bound: '≤', value: 1.2 };

function linesOf(model: string, fileBytes: number) {
  const file = `${model} (${(fileBytes / 1e6).toFixed(0)} MB)`;
  const read = `${file}: load in ms, against a plain read of the file`;
  const start = `${file}: load in ms, against llama-server`;
  const resident = `${file}: resident memory ÷ file, against llama-server`;
  return {
    loadToRead: { section: read, what: 'from the request to ready, in a running process', goal: asARead },
    startToRead: { section: read, what: 'from the start of the process to ready', goal: asARead },
    first: { section: read, what: 'the first start with the model, which packs its weights' },
    start: { section: start, what: 'from the start of the process to ready' },
    resident: { section: resident, what: 'after the load' },
  } satisfies Record<string, Line>;
}

export async function measureLoad(report: Report, settings: Settings): Promise<void> {
  for (const model of settings.models.length > 0 ? settings.models : [await defaultModel()]) {
    const directory = await mkdtemp(join(tmpdir(), 'hearth-bench-'));
    try {
      const options = { model: await stored(model, directory), contextTokens, threads: settings.threads, directory };
      await report.attempt(`load of ${basename(model)}`, () => measureModel(report, settings, options));
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }
}

/** In a store, because packed weights are kept only for models of a store. */
async function stored(model: string, directory: string): Promise<string> {
  const folder = modelFolder(directory, await hashFile(model));
  await mkdir(folder, { recursive: true });
  const path = join(folder, basename(model));
  await copyFile(model, path);
  return path;
}

async function measureModel(report: Report, { turns, server }: Settings, options: EngineOptions): Promise<void> {
  const lines = linesOf(basename(options.model), statSync(options.model).size);
  readPlainly(options.model);
  for (let turn = 1; turn <= turns; turn++) {
    console.error(`load of ${basename(options.model)}, turn ${turn}`);
    const readMs = await timed(async () => readPlainly(options.model));
    for (const line of [lines.loadToRead, lines.startToRead, lines.first]) report.note('other', line, readMs);
    rmSync(join(options.directory, 'derived'), { recursive: true, force: true });
    report.note('hearth', lines.first, await timeStart(startHearth, options));
    report.note('hearth', lines.loadToRead, await timeLoadAlone(options));
    await measureStart(startHearth, 'hearth');
    if (server !== undefined) await measureStart(startLlamaServer, 'other');
  }

  async function measureStart(start: Start, side: Side): Promise<void> {
    const ms = await timeStart(start, options, (residentBytes) =>
      report.note(side, lines.resident, residentBytes / statSync(options.model).size),
    );
    report.note(side, lines.start, ms);
    if (side === 'hearth') report.note(side, lines.startToRead, ms);
  }
}

async function timeStart(start: Start, options: EngineOptions, see?: (residentBytes: number) => void): Promise<number> {
  const begun = performance.now();
  const engine = await start(options);
  const ms = performance.now() - begun;
  see?.(engine.residentBytes());
  await engine.stop();
  return ms;
}

/** Reads into one small buffer, so that it uses no memory itself. */
function readPlainly(path: string): void {
  const buffer = new Uint8Array(1 << 20);
  const file = openSync(path, 'r');
  try {
    while (readSync(file, buffer) > 0);
  } finally {
    closeSync(file);
  }
}
