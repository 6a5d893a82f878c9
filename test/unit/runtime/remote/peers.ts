/** Servers of others and our own, started as processes on a free port. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { delimiter, join } from 'node:path';

export const token = 'a-token-of-the-tests-with-43-characters-000';

export interface Peer {
  readonly url: string;
  readonly child: ChildProcess;
  stop(): Promise<void>;
}

/** What $HEARTH_LLAMA_SERVER names, else `llama-server` of the PATH. */
export function findLlamaServer(): string | undefined {
  const named = process.env['HEARTH_LLAMA_SERVER'];
  if (named !== undefined) return named;
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  return folders.map((folder) => join(folder, 'llama-server')).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export async function startLlamaServer(program: string, model: string, contextTokens: number): Promise<Peer> {
  const port = await freePort();
  const options = { '-m': model, '--port': port, '-c': contextTokens, '-np': 1, '-t': 1, '--api-key': token };
  const args = Object.entries(options).flatMap(([name, value]) => [name, String(value)]);
  return started(spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] }), port);
}

export async function startHearth(cli: string, model: string, tokenFile: string, store: string): Promise<Peer> {
  const port = await freePort();
  const args = ['serve', '--model', model, '--backend', 'reference', '--port', String(port), '--token-file', tokenFile];
  const env = { ...process.env, HEARTH_HOME: store };
  return started(spawn(process.execPath, [cli, ...args], { env, stdio: ['ignore', 'ignore', 'pipe'] }), port);
}

async function started(child: ChildProcess, port: number): Promise<Peer> {
  const url = `http://127.0.0.1:${port}/v1`;
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-4000);
  });
  const ended = once(child, 'close');
  const stop = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended;
  };
  for (;;) {
    if (child.exitCode !== null) throw new Error(`The server ended:\n${said}`);
    const headers = { authorization: `Bearer ${token}` };
    const answer = await fetch(`${url}/models`, { headers }).catch(() => undefined);
    if (answer?.ok) return { url, child, stop };
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
