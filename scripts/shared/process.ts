/** Child processes: run to the end, or kept until stopped with everything they started. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const windows = process.platform === 'win32';
const quotedOutputLines = 15;

export interface RunOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** `inherit` shows the output as it comes; `quiet` keeps it, to be shown should the command fail. */
  output?: 'inherit' | 'quiet';
}

/** What the command printed (empty when inherited); rejects when it exits otherwise than with 0. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const quiet = options.output === 'quiet';
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: options.env ?? process.env,
    stdio: quiet ? ['ignore', 'pipe', 'pipe'] : 'inherit',
    // Node refuses to start .cmd files without a shell since CVE-2024-27980.
    shell: windows && command.endsWith('.cmd'),
  });
  let text = '';
  child.stdout?.on('data', (chunk) => (text += chunk));
  child.stderr?.on('data', (chunk) => (text += chunk));
  const [code, signal] = await once(child, 'close');
  if (code === 0) return text;
  const tail = text.trimEnd().split('\n').slice(-quotedOutputLines).join('\n');
  throw new Error(`${command} ${args.join(' ')} ended with ${signal ?? `status ${code}`}.${tail && `\n${tail}`}`);
}

/** npm by the Node that runs this script; npm itself says where it lies when it started us. */
export function npm(args: readonly string[], options: RunOptions = {}): Promise<string> {
  const npmScript = process.env['npm_execpath'];
  if (npmScript?.endsWith('npm-cli.js')) return run(process.execPath, [npmScript, ...args], options);
  return run(windows ? 'npm.cmd' : 'npm', args, options);
}

/** The first of `names` found in PATH. */
export function findInPath(names: readonly string[]): string | undefined {
  const folders = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  return names.flatMap((name) => folders.map((folder) => join(folder, name))).find(isExecutable);
}

export function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it lives, but is someone else's.
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/** Ends a child that was started `detached`, with its whole process group: politely first. */
export async function stopGroup(child: ChildProcess, graceMs = 5_000): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  signalGroup(child.pid, 'SIGTERM');
  const ended = await Promise.race([exited.then(() => true), sleep(graceMs, false, { ref: false })]);
  // The leader's children may outlive it.
  signalGroup(child.pid, 'SIGKILL');
  if (!ended) await exited;
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  if (windows) {
    spawnSync('taskkill', ['/pid', String(pid), '/t', '/f'], { stdio: 'ignore' });
    return;
  }
  try {
    process.kill(-pid, signal);
  } catch {
    // The group is gone, which is what was wanted.
  }
}

/** Of another process, files that it maps included; not a number where the system does not tell. */
export function residentBytes(pid: number | undefined): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return 1024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]);
  } catch {
    return Number.NaN;
  }
}
