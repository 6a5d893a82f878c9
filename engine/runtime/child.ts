/** Common to every process that the extension starts: the log; and of its children, the channel and the end with their parent. */

import { writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import {
  createMessageConnection,
  IPCMessageReader,
  IPCMessageWriter,
  type MessageConnection,
} from 'vscode-jsonrpc/node';
import { limits } from '../limits.ts';
import { heartbeatVariable } from '../protocol/rpc.ts';
import type { CallWatch } from '../scheduler/callWatch.ts';

export interface ChildTools {
  /** Writes to stderr, which is the process's log. */
  readonly log: (line: string) => void;
  /** Called if a message could not be sent: the parent may be gone, and 'disconnect' then ends the process. */
  readonly lost: (method: string, error: unknown) => void;
}

/** `serve` gets a connection that does not listen yet. */
export function serveChild(name: string, serve: (connection: MessageConnection, tools: ChildTools) => void): void {
  const log = (line: string): void => void process.stderr.write(`${line}\n`);
  if (!process.send) {
    log(`This is the ${name} process of Hearth, which the extension starts. On the command line, use \`hearth\`.`);
    process.exit(2);
  }
  endOnErrors(name, log);
  // `process.exit` would interrupt native calls of other threads, which then abort.
  process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
  endWithParent(name);
  const connection = createMessageConnection(
    new IPCMessageReader(process),
    new IPCMessageWriter(process),
    quietLogger(log),
  );
  serve(connection, { log, lost: (method, error) => log(`'${method}' could not be sent: ${error}`) });
  connection.listen();
}

/** For developers: `HEARTH_INSPECT=PORT` opens this process to a debugger on loopback (the launch configuration *Engine*). */
export async function openToDebugger(): Promise<void> {
  const port = Number(process.env['HEARTH_INSPECT']);
  if (Number.isInteger(port) && port > 0) (await import('node:inspector')).open(port, '127.0.0.1');
}

export function endOnErrors(name: string, log: (line: string) => void): void {
  const endAfter = (error: unknown): never => {
    log(`The ${name} ends after an unexpected error: ${error instanceof Error ? error.stack : error}`);
    process.exit(1);
  };
  process.on('uncaughtException', endAfter);
  process.on('unhandledRejection', endAfter);
}

export const quietLogger = (log: (line: string) => void) => ({
  error: log,
  warn: log,
  info: () => {},
  log: () => {},
});

/** Ends the process, which its windows then start again, once a call into native code has hung on a thread or a device. */
export function endOnHungCalls(calls: CallWatch): void {
  const look = (): void => {
    const seconds = calls.look();
    if (seconds === undefined) return;
    try {
      writeSync(2, `A call into native code has not returned for ${seconds} s: the engine's process is ended.\n`);
    } finally {
      process.kill(process.pid, 'SIGKILL');
    }
  };
  setInterval(look, 1000).unref();
}

// The same where the main thread itself hangs: another thread looks whether it comes to its event loop. Time in which all of the
// process was stopped does not count.

interface MainTurns {
  readonly turns: SharedArrayBuffer;
  readonly mostSilentBeats: number;
  readonly sentence: string;
}

/** What `hungMain` reads in its `workerData.main`. */
export function turnsOfMain(name: string): MainTurns {
  const turns = new Int32Array(new SharedArrayBuffer(4));
  setInterval(() => Atomics.add(turns, 0, 1), beatMs).unref();
  const { callSeconds } = limits.hang;
  // A debugger stops the main thread for as long as a person thinks.
  const isDebugged = process.env['HEARTH_INSPECT'] !== undefined;
  return {
    turns: turns.buffer,
    mostSilentBeats: isDebugged ? Number.POSITIVE_INFINITY : (1000 * callSeconds) / beatMs,
    sentence: `The main thread has not come to its event loop for ${callSeconds} s: the ${name}'s process is ended.\n`,
  };
}

/** Source text of a thread: `endIfMainHangs` is to be called at every beat. */
export const hungMain = `
const endIfMainHangs = (() => {
  const { turns, mostSilentBeats, sentence } = require('node:worker_threads').workerData.main;
  let [last, silentBeats] = [-1, 0];
  return () => {
    const now = Atomics.load(new Int32Array(turns), 0);
    silentBeats = now === last ? silentBeats + 1 : 0;
    last = now;
    if (silentBeats < mostSilentBeats) return;
    try {
      require('node:fs').writeSync(2, sentence);
    } finally {
      process.kill(process.pid, 'SIGKILL');
    }
  };
})();
`;

// A thread of its own ends this process when its parent is gone, and tells the parent twice a second that this process runs.
// The channel's 'disconnect' says the first too, and a request the second, but only when the main thread comes to its event
// loop, which a long native computation keeps it from.

/** Between two heartbeats. */
export const beatMs = 500;

// Source text, so that the bundle stays one file. Windows keeps the old parent id: there, signal 0 tells whether it lives.
const watch = `${hungMain}
const { writeSync } = require('node:fs');
const { workerData } = require('node:worker_threads');
const { parent, beatMs, heartbeatFd } = workerData;
const parentLives = () => {
  if (process.platform !== 'win32') return process.ppid === parent;
  try {
    return process.kill(parent, 0);
  } catch (error) {
    return error.code === 'EPERM';
  }
};
const beat = () => {
  try {
    writeSync(heartbeatFd, '.');
  } catch {
    // The parent does not read now, or is gone.
  }
};
setInterval(() => {
  if (!parentLives()) process.kill(process.pid, 'SIGKILL');
  if (heartbeatFd > 0) beat();
  endIfMainHangs();
}, beatMs);
`;

/** Does not keep the process alive. */
export function endWithParent(name: string): void {
  const heartbeatFd = Number(process.env[heartbeatVariable] ?? 0);
  delete process.env[heartbeatVariable];
  // The parent watches from the first beat on, so it comes before the thread has started.
  if (heartbeatFd > 0) writeSync(heartbeatFd, '.');
  const worker = new Worker(watch, {
    eval: true,
    workerData: { parent: process.ppid, beatMs, heartbeatFd, main: turnsOfMain(name) },
    // Without a limit the thread would reserve as much memory as the main thread.
    resourceLimits: { maxOldGenerationSizeMb: 8, maxYoungGenerationSizeMb: 2, stackSizeMb: 1 },
  });
  worker.unref();
}
