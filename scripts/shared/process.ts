/** Runs child processes to completion, or stops them with their whole process group. */
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
  /** `inherit` shows the output; `quiet` shows it only if the command fails; a file descriptor gets it. */
  output?: 'inherit' | 'quiet' | number;
}

/** Returns the command's output (empty unless `quiet`). Rejects unless it exits with 0. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { output = 'inherit' } = options;
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: options.env ?? process.env,
    stdio: output === 'quiet' ? ['ignore', 'pipe', 'pipe'] : output === 'inherit' ? output : ['ignore', output, output],
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

/** Runs npm with the current Node. npm sets its own path in the environment of scripts that it starts. */
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
    // EPERM: the process exists but belongs to another user.
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/** Ends a `detached` child with its process group: first SIGTERM, then SIGKILL. */
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
    // The group has already ended.
  }
}

/** Resident memory of a process, including mapped files. NaN if the system doesn't report it. */
export function residentBytes(pid: number | undefined): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return 1024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]);
  } catch {
    return Number.NaN;
  }
}
