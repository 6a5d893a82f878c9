/** llama.cpp's side of the benchmark: its own llama-bench, one repetition a call. */
import { spawnSync } from 'node:child_process';
import type { Speeds, Workload } from '../bench.ts';

export interface Peer {
  readonly version: string;
  measure(path: string, workload: Workload): Speeds;
}

/** What llama-bench prints with `-o json`, as far as it is read. */
interface Entry {
  readonly n_prompt: number;
  readonly n_gen: number;
  readonly avg_ts: number;
}

export function findLlamaBench(): Peer | undefined {
  const program = process.env['HEARTH_LLAMA_BENCH'] ?? 'llama-bench';
  const { error, stdout, stderr } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  if (error) return undefined;
  const version = /version:\s*(\S.*)/.exec(stdout + stderr)?.[1] ?? 'of unknown version';
  return { version, measure: (path, workload) => runLlamaBench(program, path, workload) };
}

function runLlamaBench(program: string, path: string, workload: Workload): Speeds {
  const { promptTokens, decodeTokens, depthTokens, threads } = workload;
  const common = ['-m', path, '-t', String(threads), '-r', '1', '-o', 'json'];
  const prompt = entries(program, [...common, '-p', String(promptTokens), '-n', '0']);
  const decode = entries(program, [...common, '-p', '0', '-n', String(decodeTokens), '-d', String(depthTokens)]);
  const prefill = prompt.find(({ n_prompt }) => n_prompt > 0)?.avg_ts;
  const decoded = decode.find(({ n_gen }) => n_gen > 0)?.avg_ts;
  if (prefill === undefined || decoded === undefined) throw new Error(`${program} reported no speeds for ${path}`);
  return { prefill, decode: decoded };
}

function entries(program: string, options: readonly string[]): Entry[] {
  const { status, stdout, stderr } = spawnSync(program, options, { encoding: 'utf8', maxBuffer: 1 << 26 });
  if (status !== 0) throw new Error(`${program} ${options.join(' ')} failed: ${stderr.trim().split('\n').at(-1)}`);
  return JSON.parse(stdout);
}
