/**
 * An engine process that several windows share (protocol/sharedEngine.ts). No window is its parent: it ends some seconds after
 * the last one left.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import {
  createMessageConnection,
  type MessageConnection,
  SocketMessageReader,
  SocketMessageWriter,
} from 'vscode-jsonrpc/node';
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
import { beatMs, type ChildTools, endOnErrors, hungMain, openToDebugger, quietLogger, turnsOfMain } from './child.ts';

/** Serves one window on a connection that does not listen yet. @returns what is to be done when the window is gone. */
export type ServeWindow = (connection: MessageConnection, tools: ChildTools) => () => void;

const timesMs = {
  /** A killed window leaves no goodbye; its engine is gone within three seconds. */
  alone: 500,
  /** The window that started the engine connects at once. */
  firstWindow: 20_000,
  /** To send a token. */
  token: 5_000,
};
/** A window that does not read (SIGSTOP) is disconnected when this much waits for it: an answer has a few megabytes. */
const mostUnreadBytes = 64 * 2 ** 20;
const mostWindows = 64;

export async function serveWindows(name: string, params: SharedParams, serve: ServeWindow): Promise<void> {
  const log = (line: string): void => void process.stderr.write(`${line}\n`);
  endOnErrors(name, log);
  // The window that reads it may be gone.
  process.stdout.on('error', () => {});
  process.on('SIGHUP', () => {});
  await takeLock(params.folder);
  // Of processes that start together, the one that stays takes the port.
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
      // None was started there, it has ended, or the folder is of other files.
      return [];
    }
  });
}

// The lock of a SQLite file is the operating system's, on every platform: it is free again when its holder dies in whatever way.

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

/** Names that no engine before had: what a killed one left behind is in nobody's way. */
function newAddress({ folder, log }: SharedParams): SharedAddress {
  const id = randomBytes(6).toString('hex');
  const place = (end: string): string =>
    process.platform === 'win32' ? `\\\\.\\pipe\\hearth-${id}-${end}` : join(folder, `${id}.${end}`);
  const token = randomBytes(32).toString('base64url');
  return { pid: process.pid, token, requests: place('r'), life: place('l'), log };
}

/** Of engines that were killed. */
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

/** Calls `open` once the socket has sent the token; what follows it is left in the socket. */
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

// A thread of its own keeps the windows' life connections, so that a long native computation of the main thread neither delays
// the heartbeat nor the end.

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
