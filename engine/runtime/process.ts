/**
 * Serves the protocol from a process: as the child of one window, with which it ends and whose channel it inherits, or
 * shared by several windows over sockets.
 */

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import {
  createMessageConnection,
  IPCMessageReader,
  IPCMessageWriter,
  type MessageConnection,
  SocketMessageReader,
  SocketMessageWriter,
} from 'vscode-jsonrpc/node';
import { limits } from '../limits.ts';
import { heartbeatVariable } from '../protocol/rpc.ts';
import {
  addressFile,
  goodbye,
  type SharedAddress,
  type SharedParams,
  sameToken,
  sharedAddress,
  sharedRoot,
  takenStatus,
} from '../protocol/sharedEngine.ts';
import type { CallWatch } from '../scheduler/sharing.ts';

export interface ChildTools {
  /** Writes to stderr, which is the process's log. */
  readonly log: (line: string) => void;
  /** Called if a message could not be sent: the parent may be gone, and 'disconnect' then ends the process. */
  readonly lost: (method: string, error: unknown) => void;
}

/** @param serve gets a connection that is not listening yet. */
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

/** Ends the process if a call into native code hangs; its windows then restart it. */
export function endOnHungCalls(calls: CallWatch): void {
  const look = (): void => {
    const seconds = calls.look();
    if (seconds === undefined) return;
    try {
      writeSync(2, `A call into native code has not returned for ${seconds} s, so the engine process is ended.\n`);
    } finally {
      process.kill(process.pid, 'SIGKILL');
    }
  };
  setInterval(look, 1000).unref();
}

// If the main thread itself hangs, another thread ends the process: it checks whether the event loop still turns. Time
// while the whole process was stopped does not count.

interface MainTurns {
  readonly turns: SharedArrayBuffer;
  readonly mostSilentBeats: number;
  readonly sentence: string;
}

/** The `workerData.main` that `hungMain` reads. */
export function turnsOfMain(name: string): MainTurns {
  const turns = new Int32Array(new SharedArrayBuffer(4));
  setInterval(() => Atomics.add(turns, 0, 1), beatMs).unref();
  const { callSeconds } = limits.hang;
  // A debugger may stop the main thread for any time.
  const isDebugged = process.env['HEARTH_INSPECT'] !== undefined;
  return {
    turns: turns.buffer,
    mostSilentBeats: isDebugged ? Number.POSITIVE_INFINITY : (1000 * callSeconds) / beatMs,
    sentence: `The main thread has not returned to its event loop for ${callSeconds} s, so the ${name} process is ended.\n`,
  };
}

/** Source text of a thread, which must call `endIfMainHangs` at every beat. */
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

// A separate thread ends this process when the parent is gone, and sends the parent a heartbeat twice a second. The
// channel's 'disconnect' event and requests would show the same, but only when the event loop turns, and a long native
// computation blocks it.

/** Time between two heartbeats. */
export const beatMs = 500;

// Source text, so that the bundle stays one file. Windows keeps the old parent id, so signal 0 tests there whether the
// parent is alive.
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
    // The parent is not reading, or is gone.
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
  // The parent watches from the first beat on, so send one before the thread has started.
  if (heartbeatFd > 0) writeSync(heartbeatFd, '.');
  const worker = new Worker(watch, {
    eval: true,
    workerData: { parent: process.ppid, beatMs, heartbeatFd, main: turnsOfMain(name) },
    // Without a limit the thread would reserve as much memory as the main thread.
    resourceLimits: { maxOldGenerationSizeMb: 8, maxYoungGenerationSizeMb: 2, stackSizeMb: 1 },
  });
  worker.unref();
}

// An engine process that several windows share (protocol/sharedEngine.ts). No window is its parent; it ends some
// seconds after the last window has left.

/** Serves one window on a connection that is not listening yet. @returns a function to call when the window is gone. */
export type ServeWindow = (connection: MessageConnection, tools: ChildTools) => () => void;

const timesMs = {
  /** After a window was killed, which sends no goodbye; the engine must end within three seconds. */
  alone: 500,
  /** The window that started the engine connects at once. */
  firstWindow: 20_000,
  /** For a connection to send the token. */
  token: 5_000,
};
/** A window that does not read (SIGSTOP) is disconnected when this much is unread. An answer has a few megabytes. */
const mostUnreadBytes = 64 * 2 ** 20;
const mostWindows = 64;

export async function serveWindows(name: string, params: SharedParams, serve: ServeWindow): Promise<void> {
  const log = (line: string): void => void process.stderr.write(`${line}\n`);
  endOnErrors(name, log);
  // The window that reads stdout may be gone.
  process.stdout.on('error', () => {});
  process.on('SIGHUP', () => {});
  await takeLock(params.folder);
  // After the lock: if several processes start together, only the one that stays takes the port.
  await openToDebugger();
  const address = newAddress(params);
  removeOld(params);
  await startLife(name, address, params);
  const windows = new Set<(line: string) => void>();
  const logToAll = (line: string): void => {
    log(line);
    for (const write of windows) write(line);
  };
  const server = createServer((socket) => void admit(socket, address.token, (ready) => open(ready)));
  server.maxConnections = mostWindows;
  const open = (socket: Socket): void => {
    const connection = createMessageConnection(
      new SocketMessageReader(socket),
      new SocketMessageWriter(socket),
      quietLogger(log),
    );
    const lost = (method: string, error: unknown): void => {
      if (windows.has(write)) log(`'${method}' could not be sent: ${error}`);
    };
    const leave = serve(connection, { log: logToAll, lost });
    const write = (line: string): void => void connection.sendNotification('log', { line }).catch(() => {});
    windows.add(write);
    const watch = setInterval(() => {
      if (socket.writableLength > mostUnreadBytes) socket.destroy();
    }, beatMs);
    connection.onClose(() => {
      clearInterval(watch);
      windows.delete(write);
      leave();
      connection.dispose();
    });
    connection.listen();
    socket.resume();
  };
  await listen(server, address.requests);
  publish(params.folder, address);
  process.stdout.write('ready\n');
}

/** Process ids of the engines that this user's windows share now. */
export function sharedEngines(): number[] {
  const root = sharedRoot();
  if (!existsSync(root)) return [];
  return readdirSync(root).flatMap((name) => {
    try {
      const { pid } = sharedAddress.parse(JSON.parse(readFileSync(addressFile(join(root, name)), 'utf8')));
      return process.kill(pid, 0) ? pid : [];
    } catch {
      // No engine was started there, it has ended, or the folder has other files.
      return [];
    }
  });
}

// SQLite locks its file with the operating system's locks on every platform, so the lock is free again however its
// holder dies.

async function takeLock(folder: string): Promise<void> {
  const { DatabaseSync } = await import('node:sqlite');
  const database = new DatabaseSync(join(folder, 'lock'));
  try {
    database.exec('PRAGMA busy_timeout = 0; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
  } catch {
    process.exit(takenStatus);
  }
  // Held for as long as this process lives; the reference keeps it from the garbage collector.
  process.once('exit', () => database.close());
}

/** New names for each engine, so that files of a killed one are in nobody's way. */
function newAddress({ folder, log }: SharedParams): SharedAddress {
  const id = randomBytes(6).toString('hex');
  const place = (end: string): string =>
    process.platform === 'win32' ? `\\\\.\\pipe\\hearth-${id}-${end}` : join(folder, `${id}.${end}`);
  const token = randomBytes(32).toString('base64url');
  return { pid: process.pid, token, requests: place('r'), life: place('l'), log };
}

/** Removes files of engines that were killed. */
function removeOld({ folder, log }: SharedParams): void {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (path !== log && !name.startsWith('lock')) rmSync(path, { force: true });
  }
}

function publish(folder: string, address: SharedAddress): void {
  const path = addressFile(folder);
  writeFileSync(`${path}.new`, JSON.stringify(address), { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

async function listen(server: Server, path: string): Promise<void> {
  server.listen(path);
  await once(server, 'listening');
}

/** Calls `open` once the socket has sent the token; bytes after it stay in the socket. */
async function admit(socket: Socket, token: string, open: (socket: Socket) => void): Promise<void> {
  socket.on('error', () => socket.destroy());
  const late = setTimeout(() => socket.destroy(), timesMs.token);
  let start = Buffer.alloc(0);
  const read = (piece: Buffer): void => {
    start = Buffer.concat([start, piece]);
    const end = start.indexOf(10);
    if (end < 0 && start.length <= 128) return;
    clearTimeout(late);
    socket.off('data', read);
    socket.pause();
    if (end < 0 || !sameToken(start.toString('latin1', 0, end), token)) {
      socket.destroy();
      return;
    }
    if (start.length > end + 1) socket.unshift(start.subarray(end + 1));
    open(socket);
  };
  socket.on('data', read);
  socket.once('close', () => clearTimeout(late));
}

// A separate thread holds the windows' life connections, so that a long native computation on the main thread delays
// neither the heartbeat nor the end.

// Source text, so that the bundle stays one file.
const life = `${hungMain}
const { createHash, timingSafeEqual } = require('node:crypto');
const { rmSync } = require('node:fs');
const { createServer } = require('node:net');
const { parentPort, workerData } = require('node:worker_threads');
const { path, token, goodbye, beatMs, timesMs, graceMs, files } = workerData;
const digestOf = (text) => createHash('sha256').update(text).digest();
const windows = new Set();
let end;
const endAfter = (ms) => {
  clearTimeout(end);
  end = setTimeout(() => {
    for (const file of files) rmSync(file, { force: true });
    process.kill(process.pid, 'SIGKILL');
  }, ms);
};
createServer((socket) => {
  let text = '';
  const late = setTimeout(() => socket.destroy(), timesMs.token);
  socket.setEncoding('latin1');
  socket.on('error', () => socket.destroy());
  socket.on('data', (piece) => {
    text = (text + piece).slice(0, 256);
    if (windows.has(socket)) return;
    const line = text.indexOf('\\n');
    if (line < 0 && text.length <= 128) return;
    clearTimeout(late);
    if (line < 0 || !timingSafeEqual(digestOf(text.slice(0, line)), digestOf(token))) return socket.destroy();
    clearTimeout(end);
    windows.add(socket);
    socket.write('.');
  });
  socket.on('close', () => {
    clearTimeout(late);
    if (!windows.delete(socket) || windows.size > 0) return;
    endAfter(text.endsWith(goodbye) ? graceMs : timesMs.alone);
  });
}).listen(path, () => parentPort.postMessage('listening'));
setInterval(() => {
  for (const socket of windows) if (socket.writableLength < 1024) socket.write('.');
  endIfMainHangs();
}, beatMs);
endAfter(timesMs.firstWindow);
`;

async function startLife(name: string, address: SharedAddress, { folder, graceMs }: SharedParams): Promise<void> {
  const files = [address.requests, address.life, address.log, addressFile(folder)];
  const worker = new Worker(life, {
    eval: true,
    workerData: {
      path: address.life,
      token: address.token,
      goodbye,
      beatMs,
      timesMs,
      graceMs,
      files,
      main: turnsOfMain(name),
    },
    resourceLimits: { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 2, stackSizeMb: 1 },
  });
  await once(worker, 'message');
}
