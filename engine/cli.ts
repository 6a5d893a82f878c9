#!/usr/bin/env node
/** The command line, `hearth COMMAND …`. Writes answers to stdout and everything else to stderr. Exits with 1 on error. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { z } from 'zod';
import packageJson from '../package.json' with { type: 'json' };
import { chat, complete, generate, index, search, summarise } from './cli/chat.ts';
import {
  type Command,
  commandHelp,
  commonOptions,
  optionTable,
  printable,
  printableStatus,
  readArguments,
  type Terminal,
} from './cli/command.ts';
import { bench, logits } from './cli/decoder.ts';
import { devices, doctor, replay, tune } from './cli/doctor.ts';
import { cache, inspect, models } from './cli/models.ts';
import { serve } from './cli/session.ts';
import { HearthError, invalidInput } from './errors.ts';

const commands: readonly Command[] = [
  chat,
  complete,
  summarise,
  index,
  search,
  generate,
  logits,
  bench,
  inspect,
  tune,
  devices,
  doctor,
  serve,
  models,
  cache,
  replay,
];

function help(): string {
  const left = commands.map(({ name, usage }) => `  ${`${name} ${usage}`.trimEnd()}`);
  const width = Math.max(...left.map(({ length }) => length));
  const list = commands.map(({ summary }, i) => `${left[i]?.padEnd(width)}  ${summary}`);
  return [
    'hearth: a coding assistant that runs entirely on this machine.',
    '',
    ...list,
    '',
    'Options of all commands:',
    optionTable(commonOptions),
    '',
    '`hearth COMMAND --help` shows the options of a command; `hearth --version` shows the version.',
    '',
  ].join('\n');
}

async function run(args: readonly string[], terminal: Terminal): Promise<void> {
  const [name, ...rest] = args;
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    terminal.out(help());
    return;
  }
  if (name === '--version') {
    terminal.out(`${packageJson.version}\n`);
    return;
  }
  const command = commands.find((known) => known.name === name);
  if (!command) throw invalidInput(`Unknown command '${name}'. See \`hearth --help\`.`);
  if (rest.includes('--help') || rest.includes('-h')) {
    terminal.out(commandHelp(command));
    return;
  }
  await command.run(readArguments(command, rest), terminal);
}

/** Exit status after Ctrl-C: 128 + SIGINT. */
const interruptedStatus = 130;

async function main(): Promise<void> {
  const controller = new AbortController();
  process.on('SIGINT', () => {
    // The first Ctrl-C cancels the command; the second ends the process.
    if (controller.signal.aborted) process.exit(interruptedStatus);
    controller.abort();
  });
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // The reader closed the pipe (`hearth … | head`).
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
  const terminal: Terminal = {
    out: (text) => void process.stdout.write(printable(text)),
    err: (text) => void process.stderr.write(printableStatus(text)),
    interactive: process.stderr.isTTY === true,
    signal: controller.signal,
  };
  try {
    const args = passedArguments();
    if (args) await run(args, terminal);
    else process.exitCode = await runInChild(process.argv.slice(2));
  } catch (error) {
    process.exitCode = controller.signal.aborted ? interruptedStatus : 1;
    terminal.err(controller.signal.aborted ? '\nCancelled.\n' : `hearth: ${oneLine(error)}\n`);
  }
}

function oneLine(error: unknown): string {
  // A broken invariant is a bug, so a report needs the stack.
  const unexpected = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const text = error instanceof HearthError ? error.message : unexpected;
  return text.replaceAll(/\s*\n\s*/g, ' ');
}

// Handles arguments with very long lines. On Linux, ONNX Runtime 1.30 matches the process's command line with a recursive
// expression, which overflows the stack at a line of about 14,000 characters. Such arguments are passed to a child process
// in its environment.

const longestLine = 8000;
const argumentsVariable = 'HEARTH_ARGUMENTS';

/** Returns undefined if the arguments are too long for this process. */
function passedArguments(): string[] | undefined {
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
async function runInChild(args: readonly string[]): Promise<number> {
  const env = { ...process.env, [argumentsVariable]: JSON.stringify(args) };
  const child = spawn(process.execPath, [...process.execArgv, process.argv[1] ?? ''], { stdio: 'inherit', env });
  const [status] = await once(child, 'exit');
  return typeof status === 'number' ? status : 1;
}

await main();
