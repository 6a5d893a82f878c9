/** llama.cpp's side of the speed comparison: llama-bench. */
import { execFile, spawnSync } from 'node:child_process';
import { promisify } from 'node:util';
import type { SpeedPeer, Speeds, Workload } from './workload.ts';

/** The used fields of the output of `llama-bench -o json`. */
interface Entry {
  readonly n_prompt: number;
  readonly n_gen: number;
  /** Tokens a second, per repetition. */
  readonly samples_ts: readonly number[];
}

export function findLlamaBench(): SpeedPeer | undefined {
  const program = process.env['HEARTH_LLAMA_BENCH'] ?? 'llama-bench';
  const { error, stdout, stderr } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  if (error) return undefined;
  const version = /version:\s*(\S.*)/.exec(stdout + stderr)?.[1] ?? 'of unknown version';
  return { version, measure: (path, workload) => runLlamaBench(program, path, workload) };
}

async function runLlamaBench(program: string, path: string, workload: Workload): Promise<Speeds> {
  const { depthTokens, promptTokens, decodeTokens, threads, samples } = workload;
  const numbers = { t: threads, r: samples, d: depthTokens, p: promptTokens, n: decodeTokens };
  const options = Object.entries(numbers).flatMap(([name, value]) => [`-${name}`, String(value)]);
  const running = promisify(execFile)(program, ['-m', path, ...options, '-o', 'json'], { maxBuffer: 1 << 26 });
  const kill = () => running.child.kill();
  process.once('exit', kill);
  const { stdout } = await running.finally(() => process.off('exit', kill));
  const entries: Entry[] = JSON.parse(stdout);
  const prefill = entries.find(({ n_prompt }) => n_prompt > 0)?.samples_ts;
  const decode = entries.find(({ n_gen }) => n_gen > 0)?.samples_ts;
  if (!prefill || !decode) throw new Error(`${program} reported no speeds for ${path}`);
  return { prefill, decode };
}
