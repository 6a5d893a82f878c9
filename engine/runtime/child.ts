/** Common to every child process of the extension: the channel, the log, and the end with its parent. */

import { Worker } from 'node:worker_threads';
import {
  createMessageConnection,
  IPCMessageReader,
  IPCMessageWriter,
  type MessageConnection,
} from 'vscode-jsonrpc/node';

export interface ChildTools {
  /** Writes to stderr, which is the process's log. */
  readonly log: (line: string) => void;
  /** Called if a message could not be sent: the parent may be gone, and 'disconnect' then ends the process. */
  readonly lost: (method: string, error: unknown) => void;
}

/** `serve` gets a connection that does not listen yet. */
export function serveChild(name: string, serve: (connection: MessageConnection, tools: ChildTools) => void): void {
  const log = (line: string): void => void process.stderr.write(`${line}\n`);
  const endAfter = (error: unknown): never => {
    log(`The ${name} ends after an unexpected error: ${error instanceof Error ? error.stack : error}`);
    process.exit(1);
  };
  if (!process.send) {
    log(`This is the ${name} process of Hearth, which the extension starts. On the command line, use \`hearth\`.`);
    process.exit(2);
  }
  process.on('uncaughtException', endAfter);
  process.on('unhandledRejection', endAfter);
  // `process.exit` would interrupt native calls of other threads, which then abort.
  process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
  endWithParent();
  const connection = createMessageConnection(new IPCMessageReader(process), new IPCMessageWriter(process), {
    error: log,
    warn: log,
    info: () => {},
    log: () => {},
  });
  serve(connection, { log, lost: (method, error) => log(`'${method}' could not be sent: ${error}`) });
  connection.listen();
}

// Ends this process when its parent is gone. The channel's 'disconnect' says so too, but only when the main thread comes
// to its event loop, which a long native computation keeps it from: so a thread of its own looks.

const intervalMs = 500;

// Source text, so that the bundle stays one file. Windows keeps the old parent id: there, signal 0 tells whether it lives.
const watch = `
const { workerData } = require('node:worker_threads');
const { parent, intervalMs } = workerData;
const parentLives = () => {
  if (process.platform !== 'win32') return process.ppid === parent;
  try {
    return process.kill(parent, 0);
  } catch (error) {
    return error.code === 'EPERM';
  }
};
setInterval(() => {
  if (!parentLives()) process.kill(process.pid, 'SIGKILL');
}, intervalMs);
`;

/** Does not keep the process alive. */
export function endWithParent(): void {
  const worker = new Worker(watch, {
    eval: true,
    workerData: { parent: process.ppid, intervalMs },
    // Without a limit the thread would reserve as much memory as the main thread.
    resourceLimits: { maxOldGenerationSizeMb: 8, maxYoungGenerationSizeMb: 2, stackSizeMb: 1 },
  });
  worker.unref();
}
