/**
 * Arguments with very long lines. ONNX Runtime 1.30 on Linux matches its process's command line with a recursive expression, which overflows
 * the stack at a line of some 14,000 characters: such arguments go to a process of their own, through its environment.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { z } from 'zod';

const longestLine = 8000;
const argumentsVariable = 'HEARTH_ARGUMENTS';

/** Undefined: they are too long to be used in this process. */
export function passedArguments(): string[] | undefined {
  const passed = process.env[argumentsVariable];
  if (passed !== undefined) {
    // Meant for this process alone, not for what it may start.
    delete process.env[argumentsVariable];
    return z.array(z.string()).parse(JSON.parse(passed));
  }
  const args = process.argv.slice(2);
  const isLong = args.some((arg) => arg.split('\n').some((line) => line.length > longestLine));
  return isLong && process.platform === 'linux' ? undefined : args;
}

/** Ctrl-C reaches the other process as well, which decides what becomes of it. */
export async function runApart(args: readonly string[]): Promise<number> {
  const env = { ...process.env, [argumentsVariable]: JSON.stringify(args) };
  const child = spawn(process.execPath, [...process.execArgv, process.argv[1] ?? ''], { stdio: 'inherit', env });
  const [status] = await once(child, 'exit');
  return typeof status === 'number' ? status : 1;
}
