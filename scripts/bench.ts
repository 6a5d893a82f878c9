/**
 * Compares Hearth on the CPU with llama.cpp and other baselines in one table: same files, threads, prompts and machine, in one
 * run, with alternating repetitions so that other load affects both equally. Run `npm run build` first.
 *
 *   npm run bench -- [--only load,speed,requests,speculation] [--context N]… [--model FILE]… [--turns N] [--threads N]
 *     load, speed, requests: about a quarter of an hour on two cores; a context of 16,384 as long again
 *     speed          [--prompt N] [--tokens N] [--fetch-peer]
 *     requests       [--keystrokes N]
 *     speculation    [--edit PACKAGE@FROM..TO]… [--commits N] [--files N] [--written N] [--exact]
 *
 * The peers are `llama-bench` and `llama-server` from $HEARTH_LLAMA_BENCH, $HEARTH_LLAMA_SERVER or the PATH. With --fetch-peer,
 * npm's node-llama-cpp (100 MB into .cache) replaces llama-bench. Without a peer, the table has only Hearth's figures. Ctrl-C
 * prints the table measured so far.
 */
import { parseArgs } from 'node:util';
import { defaultThreads } from '../engine/backend/processor/threads.ts';
import { findLlamaBench } from './bench/llamaBench.ts';
import { findLlamaServer } from './bench/llamaServer.ts';
import { measureLoad } from './bench/load.ts';
import { load, machineOf } from './bench/machine.ts';
import { fetchNodeLlamaCpp } from './bench/nodeLlama.ts';
import { Report } from './bench/report.ts';
import { measureRequests } from './bench/requests.ts';
import type { Settings } from './bench/settings.ts';
import { measureSpeculation } from './bench/speculation.ts';
import { measureSpeed } from './bench/speed.ts';

type Group = (report: Report, settings: Settings) => Promise<void>;

const groups: ReadonlyMap<string, Group> = new Map([
  ['load', measureLoad],
  ['speed', measureSpeed],
  ['requests', measureRequests],
  ['speculation', measureSpeculation],
]);

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: [...groups.keys()].join() },
    context: { type: 'string', multiple: true, default: ['4096'] },
    model: { type: 'string', multiple: true, default: [] },
    turns: { type: 'string', default: '3' },
    threads: { type: 'string', default: String(defaultThreads()) },
    prompt: { type: 'string', default: '256' },
    tokens: { type: 'string', default: '32' },
    'fetch-peer': { type: 'boolean', default: false },
    keystrokes: { type: 'string', default: '12' },
    edit: {
      type: 'string',
      multiple: true,
      default: ['undici@7.29.0..7.30.2', 'zod@4.6.4..4.6.7', 'yauzl@3.3.0..3.4.0', 'vscode-jsonrpc@9.0.1..10.0.0'],
    },
    commits: { type: 'string', default: '200' },
    files: { type: 'string', default: '3' },
    written: { type: 'string', default: '256' },
    exact: { type: 'boolean', default: false },
  },
});

function settingsOf(): Settings {
  const speedPeer = findLlamaBench() ?? (values['fetch-peer'] ? fetchNodeLlamaCpp() : undefined);
  const server = findLlamaServer();
  return {
    threads: Number(values.threads),
    contexts: values.context.map(Number).toSorted((a, b) => a - b),
    models: values.model,
    turns: Number(values.turns),
    keystrokes: Number(values.keystrokes),
    promptTokens: Number(values.prompt),
    decodeTokens: Number(values.tokens),
    speculation: {
      edits: values.edit,
      commits: Number(values.commits),
      files: Number(values.files),
      tokens: Number(values.written),
      exact: values.exact,
    },
    ...(speedPeer && { speedPeer }),
    ...(server !== undefined && { server }),
  };
}

function chosenGroups(): [string, Group][] {
  return values.only.split(',').map((name) => {
    const group = groups.get(name);
    if (!group) throw new Error(`--only takes ${[...groups.keys()].join(', ')}; ${name} is none of them.`);
    return [name, group];
  });
}

const chosen = chosenGroups();
const settings = settingsOf();
const report = new Report();
const [startMs, loadBefore, machine] = [performance.now(), load(), machineOf(settings)];

function print(): void {
  const minutes = ((performance.now() - startMs) / 60_000).toFixed(1);
  console.log(`${machine}; load ${loadBefore} before, ${load()} after ${minutes} minutes\n\n${report.table()}`);
  for (const remark of report.remarks) console.log(`\n${remark}`);
  for (const failure of report.failures) console.log(`\nNot measured: ${failure}`);
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    print();
    process.exit(1);
  });
}
for (const [name, group] of chosen) await report.attempt(name, () => group(report, settings));
print();
process.exit(report.failures.length > 0 ? 1 : 0);
