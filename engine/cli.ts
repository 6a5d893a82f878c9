#!/usr/bin/env node
/** The command line: `hearth COMMAND …`. Answers on stdout, everything else on stderr; exit status 1 after an error. */
import packageJson from '../package.json' with { type: 'json' };
import { bench } from './cli/bench.ts';
import { cache } from './cli/cache.ts';
import { chat } from './cli/chat.ts';
import { type Command, commandHelp, commonOptions, optionTable, readArguments } from './cli/command.ts';
import { complete } from './cli/complete.ts';
import { devices } from './cli/devices.ts';
import { doctor } from './cli/doctor.ts';
import { generate } from './cli/generate.ts';
import { index, search } from './cli/indexFolder.ts';
import { inspect } from './cli/inspect.ts';
import { logits } from './cli/logits.ts';
import { passedArguments, runApart } from './cli/longArguments.ts';
import { models } from './cli/models.ts';
import { replay } from './cli/replay.ts';
import { serve } from './cli/serve.ts';
import { summarise } from './cli/summarise.ts';
import type { Terminal } from './cli/terminal.ts';
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
    'hearth: a coding assistant that runs on this machine alone.',
    '',
    ...list,
    '',
    'All commands take:',
    optionTable(commonOptions),
    '',
    '`hearth COMMAND --help` shows the options of a command, `hearth --version` the version.',
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
  if (!command) throw invalidInput(`There is no command '${name}'. See \`hearth --help\`.`);
  if (rest.includes('--help') || rest.includes('-h')) {
    terminal.out(commandHelp(command));
    return;
  }
  await command.run(readArguments(command, rest), terminal);
}

/** What a shell reports for a command that Ctrl-C ended: 128 + SIGINT. */
const interruptedStatus = 130;

async function main(): Promise<void> {
  const controller = new AbortController();
  process.on('SIGINT', () => {
    // The first asks; the second does not wait for an answer.
    if (controller.signal.aborted) process.exit(interruptedStatus);
    controller.abort();
  });
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // The reader went away (`hearth … | head`): nobody is left to write to.
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
  const terminal: Terminal = {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    interactive: process.stderr.isTTY === true,
    signal: controller.signal,
  };
  try {
    const args = passedArguments();
    if (args) await run(args, terminal);
    else process.exitCode = await runApart(process.argv.slice(2));
  } catch (error) {
    process.exitCode = controller.signal.aborted ? interruptedStatus : 1;
    terminal.err(controller.signal.aborted ? '\nCancelled.\n' : `hearth: ${oneLine(error)}\n`);
  }
}

function oneLine(error: unknown): string {
  // A broken invariant is a bug: whoever reports it needs to know where.
  const text =
    error instanceof HearthError || !(error instanceof Error) ? String(error) : (error.stack ?? error.message);
  return text.replace(/^HearthError: /, '').replaceAll(/\s*\n\s*/g, ' ');
}

await main();
