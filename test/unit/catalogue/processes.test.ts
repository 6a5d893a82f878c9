import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdir, readFile, utimes, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import { build } from 'esbuild';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import type { StoreProgress } from '../../../engine/catalogue/files.ts';
import { withLock } from '../../../engine/catalogue/files.ts';
import { stagedBytes } from '../../../engine/catalogue/sources.ts';
import { openStore } from '../../../engine/catalogue/store.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { type FileServer, sendHubFile, startServer } from './fileServer.ts';
import { randomBytes, randomNumbers, sha256, testEntry } from './tools.ts';

const content = randomBytes(2_000_000);
const digest = sha256(content);
const entry = testEntry(content);
const children = new Set<ChildProcess>();
let program: string;
let server: FileServer;
/** Bytes sent per connection, so that no round of kills reaches the end of the file. */
let stallAfter: number | undefined;

beforeAll(async () => {
  program = join(temporaryFolder(), 'pullProcess.mjs');
  await build({
    entryPoints: [new URL('./pullProcess.ts', import.meta.url).pathname],
    bundle: true,
    platform: 'node',
    format: 'esm',
    outfile: program,
    banner: {
      js: "import { createRequire as requireFor } from 'node:module'; const require = requireFor(import.meta.url);",
    },
    logLevel: 'error',
  });
  server = await startServer((request, response) =>
    sendHubFile(server, request, response, content, digest, {
      chunkBytes: 10_000,
      chunkPauseMs: 1,
      stallAfter,
    }),
  );
});

afterAll(async () => {
  for (const child of children) child.kill('SIGKILL');
  await server.close();
});

interface Ended {
  readonly output: string;
  readonly signal: NodeJS.Signals | null;
  readonly code: number | null;
}

function startPull(
  directory: string,
  variables: Record<string, string> = {},
  origin = server.origin,
): { child: ChildProcess; ended: Promise<Ended> } {
  const task = JSON.stringify({ directory, origin, entry });
  const child = spawn(process.execPath, [program, task], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...variables },
  });
  children.add(child);
  let output = '';
  child.stdout?.on('data', (chunk) => {
    output += chunk;
  });
  const ended = new Promise<Ended>((resolve) =>
    child.once('exit', (code, signal) => {
      children.delete(child);
      resolve({ output, signal, code });
    }),
  );
  return { child, ended };
}

afterEach(() => {
  vi.restoreAllMocks();
});

describe('a process that is killed while it downloads', () => {
  it('twenty times can resume each time, and ends with the right file', async () => {
    const directory = temporaryFolder();
    const random = randomNumbers(3);
    const kept: number[] = [];
    stallAfter = 90_000;
    for (let round = 0; round < 20; round++) {
      const { child, ended } = startPull(directory);
      const enough = (kept.at(-1) ?? 0) + 1 + random() * 80_000;
      const watch = setInterval(() => {
        stagedBytes(directory, entry).then((bytes) => bytes >= enough && child.kill('SIGKILL'));
      }, 2);
      const { signal } = await ended;
      clearInterval(watch);
      expect(signal).toBe('SIGKILL');
      kept.push(await stagedBytes(directory, entry));
    }
    stallAfter = undefined;
    // Every round made progress and lost nothing.
    expect(kept).toEqual([...new Set(kept)].toSorted((a, b) => a - b));
    server.requests.length = 0;
    const { output, code } = await startPull(directory).ended;
    expect(code).toBe(0);
    expect(server.requests.at(-1)?.headers.range).toBe(`bytes=${kept.at(-1)}-`);
    expect(sha256(await readFile(JSON.parse(output).path))).toBe(digest);
  });
});

describe('several pulls of one model', () => {
  it('in two processes download it once for both', async () => {
    const directory = temporaryFolder();
    server.bytesSent = 0;
    const both = await Promise.all([startPull(directory).ended, startPull(directory).ended]);
    expect(both.map(({ output }) => JSON.parse(output).state)).toEqual(['present', 'present']);
    expect(server.bytesSent).toBe(content.length);
  });

  it("in one process download it once, and the waiting pull reports the other's progress", async () => {
    const directory = temporaryFolder();
    const endpoints = { hub: new URL(server.origin), index: new URL(server.origin) };
    const store = openStore({ directory, entries: [entry], endpoints });
    server.bytesSent = 0;
    const phases = new Set<StoreProgress['phase']>();
    const onProgress = (progress: StoreProgress) => phases.add(progress.phase);
    const models = await Promise.all([1, 2, 3].map(() => store.pull('tiny', { onProgress })));
    expect(models.map((model) => model.state)).toEqual(['present', 'present', 'present']);
    expect(server.bytesSent).toBe(content.length);
    expect(phases).toContain('waiting');
  });

  it('can be cancelled while they wait', async () => {
    const path = join(temporaryFolder(), 'a.lock');
    const cancel = new AbortController();
    await withLock(path, {}, async () => {
      const waiting = withLock(path, { signal: cancel.signal, onWait: () => cancel.abort() }, async () => 'never');
      await expect(waiting).rejects.toMatchObject({ code: 'cancelled' });
    });
  });
});

describe('behind a proxy', () => {
  it('downloads tunnel through the proxy of the environment', async () => {
    const folder = temporaryFolder();
    const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
    const made = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-keyout', key, '-out', cert];
    execFileSync('openssl', [...made, '-subj', '/CN=models.test', '-addext', 'subjectAltName=DNS:models.test'], {
      stdio: 'ignore',
    });
    // No name server knows models.test: only the proxy can lead there.
    const secure = createTlsServer({ key: await readFile(key), cert: await readFile(cert) }, (socket) => {
      const upstream = connect(Number(new URL(server.origin).port), '127.0.0.1');
      upstream.pipe(socket).pipe(upstream);
      socket.on('error', () => upstream.destroy());
      upstream.on('error', () => socket.destroy());
    });
    await new Promise<void>((resolve) => secure.listen(0, '127.0.0.1', resolve));
    const tunnels: string[] = [];
    const proxy = createServer();
    proxy.on('connect', (request, socket) => {
      tunnels.push(request.url ?? '');
      const upstream = connect((secure.address() as AddressInfo).port, '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
        upstream.pipe(socket).pipe(upstream);
      });
      socket.on('error', () => upstream.destroy());
      upstream.on('error', () => socket.destroy());
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    const address = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    const variables = {
      HTTPS_PROXY: address,
      https_proxy: address,
      NO_PROXY: '',
      no_proxy: '',
      NODE_EXTRA_CA_CERTS: cert,
    };
    const { output } = await startPull(temporaryFolder(), variables, 'https://models.test').ended;
    expect(JSON.parse(output).state).toBe('present');
    expect(new Set(tunnels)).toEqual(new Set(['models.test:443']));
    proxy.closeAllConnections();
    proxy.close();
    secure.close();
  });
});

describe('a lock', () => {
  it('never has two holders', async () => {
    const path = join(temporaryFolder(), 'a.lock');
    let holders = 0;
    let most = 0;
    const work = async () => {
      most = Math.max(most, ++holders);
      await new Promise((resolve) => setTimeout(resolve, 1));
      holders--;
    };
    await Promise.all(Array.from({ length: 8 }, () => withLock(path, {}, work)));
    expect(most).toBe(1);
  });

  it('of a dead process is taken over immediately', async () => {
    const path = join(temporaryFolder(), 'a.lock');
    const { child, ended } = startPull(temporaryFolder());
    child.kill('SIGKILL');
    await ended;
    await writeFile(path, JSON.stringify({ pid: child.pid, host: hostname(), token: 'gone' }));
    expect(await withLock(path, {}, async () => 'mine')).toBe('mine');
  });

  it.each([
    ['of another machine', JSON.stringify({ pid: 1, host: 'elsewhere', token: 'old' })],
    ['with invalid content', 'rubbish'],
  ])('%s is taken over after a minute without a touch', async (_name, text) => {
    const path = join(temporaryFolder(), 'locks', 'a.lock');
    await mkdir(join(path, '..'), { recursive: true });
    await writeFile(path, text);
    const cancel = new AbortController();
    const options = { signal: cancel.signal, onWait: () => cancel.abort() };
    await expect(withLock(path, options, async () => 'mine')).rejects.toMatchObject({ code: 'cancelled' });
    const later = laterBy(() => 61_000);
    expect(await withLock(path, { onWait: later }, async () => 'mine')).toBe('mine');
  });

  it('that looks old is taken over once it was not touched for some more seconds', async () => {
    const path = join(temporaryFolder(), 'locks', 'a.lock');
    await mkdir(join(path, '..'), { recursive: true });
    await writeFile(path, JSON.stringify({ pid: 1, host: 'elsewhere', token: 'old' }));
    const then = new Date(Date.now() - 61_000);
    await utimes(path, then, then);
    const waits: number[] = [];
    const onWait = laterBy(() => waits.push(1) && 8_000);
    expect(await withLock(path, { onWait }, async () => 'mine')).toBe('mine');
    expect(waits).toHaveLength(2);
  });

  it('is left to a holder who touches it, whatever the clock says', async () => {
    const path = join(temporaryFolder(), 'locks', 'a.lock');
    await mkdir(join(path, '..'), { recursive: true });
    await writeFile(path, JSON.stringify({ pid: 1, host: 'elsewhere', token: 'held' }));
    const cancel = new AbortController();
    let touches = 0;
    const pass = laterBy(() => 8_000);
    const onWait = async () => {
      pass();
      // Dated a year ago: this clock was set forward.
      const then = new Date(Date.now() - 365 * 86_400_000 + ++touches * 1000);
      await utimes(path, then, then);
      if (touches === 12) cancel.abort();
    };
    const options = { signal: cancel.signal, onWait };
    await expect(withLock(path, options, async () => 'mine')).rejects.toMatchObject({ code: 'cancelled' });
    expect(JSON.parse(await readFile(path, 'utf8'))).toMatchObject({ token: 'held' });
  });
});

/** @returns a function that lets so much time pass at each call. */
function laterBy(stepMs: () => number): () => void {
  const now = performance.now.bind(performance);
  let passedMs = 0;
  vi.spyOn(performance, 'now').mockImplementation(() => now() + passedMs);
  return () => {
    passedMs += stepMs();
  };
}
