/** Finds or starts the engine that windows share (engine/protocol/sharedEngine.ts). */
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, lstatSync, mkdirSync, openSync, rmSync, statSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { isBuiltin } from 'node:module';
import { connect, type Socket } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SocketMessageReader, SocketMessageWriter } from 'vscode-jsonrpc/node';
import {
  addressFile,
  goodbye,
  type SharedAddress,
  type SharedParams,
  sharedAddress,
  sharedRoot,
  sharedVariable,
  socketPathBytes,
  takenStatus,
} from '../../engine/protocol/sharedEngine.ts';
import { limits } from '../limits.ts';
import type { Log } from '../parts.ts';
import { type Launch, type Wire, withTimeout } from './connection.ts';

/** Variables that change how an engine works. Windows with different values do not share an engine. */
const engineVariables =
  /^((HEARTH|HF|OLLAMA|PIP|VK)_\w+|NODE_OPTIONS|NODE_EXTRA_CA_CERTS|XDG_(CACHE|CONFIG)_HOME|HOME|LOCALAPPDATA|\w+_proxy)$/i;

/**
 * The folder of windows that would start the same engine: same program, same environment.
 * @throws Error with the reason if they cannot share one.
 */
export function sharedFolder({ entry, env, nodeOptions = [] }: Launch): string {
  if (!isBuiltin('node:sqlite')) throw new Error(`Node.js ${process.versions.node} has no SQLite.`);
  const root = sharedRoot();
  const { mtimeMs, size } = statSync(entry);
  const variables = Object.entries({ ...process.env, ...env }).filter(
    ([name]) => name in env || engineVariables.test(name),
  );
  const identity = JSON.stringify([entry, mtimeMs, size, nodeOptions, variables.sort(([a], [b]) => (a < b ? -1 : 1))]);
  const folder = join(root, createHash('sha256').update(identity).digest('hex').slice(0, 16));
  if (process.platform !== 'win32' && Buffer.byteLength(join(folder, '012345678901.r')) > socketPathBytes)
    throw new Error(`${folder} is too long for a socket.`);
  for (const path of [root, folder]) makePrivate(path);
  return folder;
}

/** @throws Error if other users own the folder or may open it. */
function makePrivate(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  // Windows has access lists instead; %LOCALAPPDATA% belongs to the user.
  if (process.platform === 'win32') return;
  const found = lstatSync(path);
  if (found.isDirectory() && found.uid === process.getuid?.() && (found.mode & 0o077) === 0) return;
  throw new Error(`${path} is not a folder that only this user can open.`);
}

/** Connects to the engine of `folder`; starts it if there is none. @throws Error if it does not start. */
export async function joinEngine(launch: Launch, folder: string, log: Log): Promise<Wire> {
  const untilMs = performance.now() + limits.engine.handshakeMs;
  for (;;) {
    const wire = await connectTo(folder, log);
    if (wire) return wire;
    if (performance.now() > untilMs) throw new Error('no engine could be reached');
    const started = await start(launch, folder, log);
    // Another window's engine is starting.
    for (let left = 20; started === 'taken' && left > 0; left--) {
      await sleep(limits.engine.pollMs);
      const theirs = await connectTo(folder, log);
      if (theirs) return theirs;
    }
  }
}

/** Several windows may do this at once: all engines but one find the folder taken. @throws Error if it ends for another reason. */
async function start(launch: Launch, folder: string, log: Log): Promise<'ready' | 'taken'> {
  const path = join(folder, `${randomBytes(6).toString('hex')}.log`);
  const output = openSync(path, 'w', 0o600);
  const params: SharedParams = { folder, log: path, graceMs: launch.shared?.graceMs ?? 0 };
  const child = spawn(process.execPath, [...(launch.nodeOptions ?? []), launch.entry], {
    cwd: homedir(),
    detached: true,
    env: { ...process.env, ...launch.env, ELECTRON_RUN_AS_NODE: '1', [sharedVariable]: JSON.stringify(params) },
    stdio: ['ignore', 'pipe', output],
    windowsHide: true,
  });
  closeSync(output);
  const ended = new Promise<number | string>((resolve) => {
    child.once('error', (error) => resolve(`could not run: ${error.message}`));
    child.once('exit', (code, signal) => resolve(code ?? `signal ${signal}`));
  });
  const ready = new Promise<undefined>((resolve) => child.stdout?.once('data', () => resolve(undefined)));
  const end = await Promise.race([ended, ready]);
  child.stdout?.destroy();
  child.unref();
  if (end === undefined) return 'ready';
  await logTail(path, log);
  rmSync(path, { force: true });
  if (end === takenStatus) return 'taken';
  throw new Error(typeof end === 'number' ? `exit status ${end}` : end);
}

/** Undefined if no engine answers. Kills a stopped (SIGSTOP) engine. */
async function connectTo(folder: string, log: Log): Promise<Wire | undefined> {
  const address = await readAddress(folder);
  const life = address && (await opened(address.life));
  if (!life) return undefined;
  life.write(`${address.token}\n`);
  const beat = new Promise<boolean>((resolve) => {
    life.once('data', () => resolve(true));
    life.once('close', () => resolve(false));
  });
  const lives = await withTimeout(beat, limits.engine.silentLooks * limits.engine.heartbeatLookMs);
  const requests = lives === true ? await opened(address.requests) : undefined;
  if (requests) {
    requests.write(`${address.token}\n`);
    return new SharedWire(folder, address, { life, requests }, log);
  }
  if (lives === undefined) {
    log.error(`Process ${address.pid} has stopped and is killed: it answered no new window.`);
    kill(address.pid);
    await closed(life);
  }
  life.destroy();
  return undefined;
}

async function readAddress(folder: string): Promise<SharedAddress | undefined> {
  try {
    return sharedAddress.parse(JSON.parse(await readFile(addressFile(folder), 'utf8')));
  } catch {
    // There is no engine yet, or it is still writing its address.
    return undefined;
  }
}

function opened(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      // An error is followed by 'close'.
      socket.on('error', () => {});
      resolve(socket);
    });
    socket.once('error', () => resolve(undefined));
  });
}

/** An error, such as a reset connection, is followed by 'close'. */
const closed = (socket: Socket): Promise<void> => new Promise((resolve) => socket.once('close', () => resolve()));

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // The process has ended already.
  }
}

interface Sockets {
  readonly life: Socket;
  readonly requests: Socket;
}

class SharedWire implements Wire {
  readonly folder: string;
  readonly pid: number;
  readonly reader: SocketMessageReader;
  readonly writer: SocketMessageWriter;
  readonly ended: Promise<string>;
  readonly #sockets: Sockets;
  #left = false;

  constructor(folder: string, address: SharedAddress, sockets: Sockets, log: Log) {
    this.folder = folder;
    this.pid = address.pid;
    this.#sockets = sockets;
    this.reader = new SocketMessageReader(sockets.requests);
    this.writer = new SocketMessageWriter(sockets.requests);
    this.ended = this.#whenEnded(address, log);
  }

  watch(beat: () => void): void {
    // The first heartbeat has arrived.
    beat();
    this.#sockets.life.on('data', beat);
  }

  /** The process stays for other windows, or for the grace period. */
  leave(): void {
    this.#left = true;
    const { life, requests } = this.#sockets;
    life.end(goodbye, () => life.destroy());
    requests.end(() => requests.destroy());
  }

  kill(): void {
    const { life, requests } = this.#sockets;
    // Another process may have its id by now, so kill only while a socket is open.
    if (!life.destroyed && !requests.destroyed) kill(this.pid);
  }

  async #whenEnded({ log: path }: SharedAddress, log: Log): Promise<string> {
    const { life, requests } = this.#sockets;
    const both = [life, requests].map(closed);
    await Promise.race(both);
    // The process's last messages are read before its socket closes.
    await withTimeout(Promise.all(both), limits.engine.drainMs);
    life.destroy();
    requests.destroy();
    if (this.#left) return 'left';
    await logTail(path, log);
    return 'its connection closed';
  }
}

/** Logs the last lines that a process wrote. */
async function logTail(path: string, log: Log): Promise<void> {
  const { logLineChars } = limits.engine;
  try {
    const file = await open(path);
    try {
      const { size } = await file.stat();
      const { buffer, bytesRead } = await file.read({
        buffer: Buffer.alloc(logLineChars),
        position: Math.max(0, size - logLineChars),
      });
      const text = buffer.toString('utf8', 0, bytesRead).trim();
      if (text !== '') log.warn(text);
    } finally {
      await file.close();
    }
  } catch {
    // Another engine has removed the file.
  }
}
