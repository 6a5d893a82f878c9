/** Describes the machine and versions of a benchmark run. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import type { Settings } from './settings.ts';

export const load = (): string => (loadavg()[0] ?? 0).toFixed(1);

export function machineOf({ threads, speedPeer, server }: Settings): string {
  const { model = 'unknown processor' } = cpus()[0] ?? {};
  const runtime = JSON.parse(readFileSync('node_modules/onnxruntime-node/package.json', 'utf8')).version;
  const commit = spawnSync('git', ['describe', '--always', '--dirty'], { encoding: 'utf8' }).stdout?.trim();
  return [
    `${new Date().toISOString().slice(0, 16).replace('T', ' ')} UTC`,
    `${model.trim()}, ${cpus().length} processors, ${threads} threads`,
    `Hearth ${commit || 'of an unknown commit'}, Node ${process.version}, onnxruntime-node ${runtime}`,
    speedPeer ? `llama-bench ${speedPeer.version}` : 'llama-bench not found, no comparison of speed',
    server === undefined ? 'llama-server not found, no comparison of requests' : `llama-server ${server}`,
  ].join('; ');
}
