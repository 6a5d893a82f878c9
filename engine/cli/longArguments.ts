/**
 * Handles arguments with very long lines. On Linux, ONNX Runtime 1.30 matches the process's command line with a recursive
 * expression, which overflows the stack at a line of about 14,000 characters. Such arguments are passed to a child process
 * in its environment.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { z } from 'zod';

const longestLine = 8000;
const argumentsVariable = 'HEARTH_ARGUMENTS';

/** Returns undefined if the arguments are too long for this process. */
export function passedArguments(): string[] | undefined {
  const passed = process.env[argumentsVariable];
  if (passed !== undefined) {
    // Removed, so that child processes don't inherit it.
    delete process.env[argumentsVariable];
    return z.array(z.string()).parse(JSON.parse(passed));
  }
  const args = process.argv.slice(2);
  const isLong = args.some((arg) => arg.split('\n').some((line) => line.length > longestLine));
  return isLong && process.platform === 'linux' ? undefined : args;
}

/** The child process also receives Ctrl-C and handles it. */
export async function runInChild(args: readonly string[]): Promise<number> {
  const env = { ...process.env, [argumentsVariable]: JSON.stringify(args) };
  const child = spawn(process.execPath, [...process.execArgv, process.argv[1] ?? ''], { stdio: 'inherit', env });
  const [status] = await once(child, 'exit');
  return typeof status === 'number' ? status : 1;
}
