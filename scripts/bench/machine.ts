/** What a table of figures must say of where they were measured. */
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
    speedPeer ? `llama-bench ${speedPeer.version}` : 'no llama-bench was found: speeds stand alone',
    server === undefined ? 'no llama-server was found: requests stand alone' : `llama-server ${server}`,
  ].join('; ');
}
