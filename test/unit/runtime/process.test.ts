import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, readlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Delta, protocolVersion } from '../../../engine/protocol/engineProtocol.ts';
import { type EngineProcess, startEngine } from '../../../scripts/shared/engineProcess.ts';
import { ScriptedEngine, startScripted, token } from '../http/support.ts';
import { bundle } from './bundle.ts';
import { makeTinyModel } from './tinyModel.ts';

let tiny: Awaited<ReturnType<typeof makeTinyModel>>;
let main: Awaited<ReturnType<typeof bundle>>;
const running: EngineProcess[] = [];

beforeAll(async () => {
  [tiny, main] = await Promise.all([makeTinyModel(), bundle('engine/main.ts')]);
});
afterEach(async () => {
  for (const engine of running.splice(0)) await engine.stop();
});
afterAll(async () => {
  await Promise.all([tiny.remove(), main.remove()]);
});

function start(stderr: 'inherit' | 'ignore' = 'inherit'): EngineProcess {
  // What it would keep of a user's own model stays with the model.
  const engine = startEngine(main.path, { stderr, env: { HEARTH_HOME: join(tiny.path, 'store') } });
  running.push(engine);
  return engine;
}

async function startLoaded(): Promise<EngineProcess> {
  const engine = start();
  await engine.requests.load({ model: tiny.path, backend: 'reference' });
  return engine;
}

const chatRequest = (stream: string, maxTokens: number) => ({
  stream,
  messages: [{ role: 'user' as const, content: 'tell me' }],
  maxTokens,
  sampling: { temperature: 0 },
});

async function gone(child: ChildProcess): Promise<boolean> {
  if (child.exitCode !== null || child.signalCode !== null) return true;
  return Promise.race([once(child, 'exit').then(() => true), sleep(3000, false)]);
}

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

describe('the engine process', () => {
  it('answers over the channel it inherits', async () => {
    const engine = await startLoaded();
    expect(await engine.requests.status()).toMatchObject({ protocolVersion, state: 'ready' });
    const deltas: Delta[] = [];
    engine.on({ delta: (delta) => deltas.push(delta) });
    const answer = await engine.requests.chat(chatRequest('one', 24));
    expect(deltas.map(({ text }) => text).join('')).toBe(answer.text);
    expect(deltas.every(({ stream }) => stream === 'one')).toBe(true);
    const completion = await engine.requests.complete({ prefix: 'a = ', suffix: '', maxTokens: 4 });
    expect(completion.statistics.generatedTokens).toBeGreaterThan(0);
    expect(await engine.requests.unload()).toBeNull();
    expect(await engine.requests.status()).toMatchObject({ state: 'empty' });
  });

  it('keeps two streams apart and lets a completion go first', async () => {
    const engine = await startLoaded();
    const order: string[] = [];
    const chat = engine.requests.chat(chatRequest('long', 150)).then(() => order.push('chat'));
    await new Promise<void>((resolve) => engine.on({ delta: () => resolve() }));
    const completion = engine.requests
      .complete({ prefix: 'let b = ', suffix: '', maxTokens: 4 })
      .then(() => order.push('completion'));
    await Promise.all([chat, completion]);
    expect(order).toEqual(['completion', 'chat']);
  });

  it('stops on cancellation and returns the text so far', async () => {
    const engine = await startLoaded();
    const controller = new AbortController();
    let said = '';
    engine.on({
      delta: ({ text }) => {
        said += text;
        controller.abort();
      },
    });
    const answer = await engine.requests.chat(chatRequest('cut', 2000), controller.signal);
    expect(answer.finish).toBe('cancelled');
    expect(answer.text).toBe(said);
    expect(answer.statistics.generatedTokens).toBeLessThan(100);
    expect(await engine.requests.status()).toMatchObject({ state: 'ready' });
  });

  it('reports unsupported requests as typed errors', async () => {
    const engine = start();
    await expect(engine.requests.chat(chatRequest('none', 4))).rejects.toMatchObject({
      name: 'HearthError',
      code: 'unavailable',
    });
    await expect(engine.requests.load({ model: '/no/such' })).rejects.toMatchObject({ code: 'not-found' });
    await expect(engine.requests.pullModel({ model: 'no-such' })).rejects.toMatchObject({
      code: 'not-found',
    });
  });

  it('refuses parameters of the wrong shape, field by field, and goes on', async () => {
    const engine = await startLoaded();
    const bad: [string, unknown][] = [
      ['chat', { stream: 'x' }],
      ['chat', { stream: 'x', messages: [{ role: 'wizard', content: 'x' }] }],
      ['chat', { ...chatRequest('x', 4), sampling: { temperature: 'hot' } }],
      ['complete', { prefix: 1, suffix: null }],
      ['complete', { prefix: '', suffix: '', maxTokens: -1 }],
      ['summarise', 'text'],
      ['generate', []],
      ['load', null],
      ['removeModel', { model: '../../etc' }],
    ];
    for (const [method, params] of bad) {
      await expect(
        engine.connection.sendRequest(method, params),
        `${method} ${JSON.stringify(params)}`,
      ).rejects.toThrow();
    }
    await expect(engine.connection.sendRequest('no/such/method', {})).rejects.toThrow();
    expect((await engine.requests.chat(chatRequest('still', 4))).statistics.generatedTokens).toBe(4);
  });

  it('survives messages that are not JSON-RPC', async () => {
    const engine = start('ignore');
    for (const message of [
      'text',
      17,
      true,
      {},
      [],
      { jsonrpc: '2.0' },
      { id: 1 },
      { method: 5 },
      { id: {}, method: 'load' },
    ]) {
      engine.child.send(message);
    }
    engine.child.send({ jsonrpc: '2.0', method: '$/cancelRequest', params: { id: 'no such request' } });
    expect(await engine.requests.status()).toMatchObject({ state: 'empty' });
  });

  it('opens no socket that listens', async () => {
    const engine = await startLoaded();
    if (process.platform !== 'linux') return;
    const { pid } = engine.child;
    const descriptors = await readdir(`/proc/${pid}/fd`);
    const links = await Promise.all(descriptors.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')));
    const inodes = links.flatMap((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1] ?? []);
    for (const table of ['tcp', 'tcp6', 'udp', 'udp6']) {
      const rows = (await readFile(`/proc/${pid}/net/${table}`, 'utf8').catch(() => '')).split('\n').slice(1);
      for (const row of rows) expect(inodes).not.toContain(row.trim().split(/\s+/)[9]);
    }
  });

  it('ends when its channel is closed', async () => {
    const engine = await startLoaded();
    engine.child.disconnect();
    expect(await gone(engine.child)).toBe(true);
  });

  it('ends without an abort in the middle of a computation', async () => {
    const engine = start();
    await engine.requests.load({ model: tiny.path, backend: 'onnx' });
    const answer = engine.requests.chat(chatRequest('left', 2000)).catch(() => {});
    await new Promise<void>((resolve) => engine.on({ delta: () => resolve() }));
    engine.child.disconnect();
    expect(await gone(engine.child)).toBe(true);
    expect(engine.child.signalCode).toBe('SIGKILL');
    await answer;
  });

  it('fails what is pending with a typed error when it is killed', async () => {
    const engine = await startLoaded();
    const answer = engine.requests.chat(chatRequest('killed', 2000));
    await new Promise<void>((resolve) => engine.on({ delta: () => resolve() }));
    engine.child.kill('SIGKILL');
    await expect(answer).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('explains itself when started by hand', async () => {
    const child = spawn(process.execPath, [main.path], { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.on('data', (chunk) => {
      said += chunk;
    });
    await once(child, 'close');
    expect(child.exitCode).toBe(2);
    expect(said).toContain('hearth');
  });
});

describe('an engine whose parent dies', () => {
  /** A process that runs `source` and sends the process id of the child that it started. */
  async function parentOf(source: string, ...args: string[]): Promise<{ parent: ChildProcess; pid: number }> {
    const script = join(dirname(main.path), `parent-${Date.now()}.mjs`);
    await writeFile(script, source);
    const parent = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    const pid = await new Promise<number>((resolve) => parent.once('message', (message) => resolve(Number(message))));
    return { parent, pid };
  }

  async function endsWithin(pid: number, ms: number): Promise<boolean> {
    for (const end = Date.now() + ms; Date.now() < end; await sleep(50)) if (!alive(pid)) return true;
    return !alive(pid);
  }

  it('is gone within three seconds of its parent’s kill -9, though it was streaming', async () => {
    const { parent, pid } = await parentOf(
      `import { fork } from 'node:child_process';
       const [, , engine, model] = process.argv;
       const child = fork(engine, [], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
       const ask = (id, method, params) => child.send({ jsonrpc: '2.0', id, method, params });
       const messages = [{ role: 'user', content: 'x' }];
       child.on('message', ({ id, method, error }) => {
         if (error) throw new Error(error.message);
         if (id === 1) ask(2, 'chat', { stream: 's', messages, maxTokens: 2000, sampling: { temperature: 0 } });
         if (method === 'delta') process.send(child.pid);
       });
       ask(1, 'load', { model, backend: 'reference' });`,
      main.path,
      tiny.path,
    );
    expect(alive(pid)).toBe(true);
    parent.kill('SIGKILL');
    expect(await endsWithin(pid, 3000)).toBe(true);
  });

  it('ends even if its main thread never returns to its event loop', async () => {
    const watch = await bundle('engine/runtime/process.ts');
    try {
      const busy = join(dirname(watch.path), 'busy.mjs');
      await writeFile(
        busy,
        `import { endWithParent } from './process.mjs';
         endWithParent('test');
         process.send(process.pid, () => { for (;;); });`,
      );
      const { parent, pid } = await parentOf(
        `import { fork } from 'node:child_process';
         fork(process.argv[2]).once('message', (pid) => process.send(pid));`,
        busy,
      );
      await sleep(300);
      expect(alive(pid)).toBe(true);
      parent.kill('SIGKILL');
      expect(await endsWithin(pid, 3000)).toBe(true);
    } finally {
      await watch.remove();
    }
  });

  it('starts and stops the server for other programs on request, beside the extension', async () => {
    const engine = await startLoaded();
    const { address } = await engine.requests.startServer({ port: 0, token });
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const asked = (path: string, init: RequestInit = {}) => fetch(`${address}${path}`, { headers, ...init });
    const deltas: Delta[] = [];
    engine.on({ delta: (delta) => deltas.push(delta) });
    const { data } = (await (await asked('/models')).json()) as { data: { id: string }[] };
    const model = data[0]?.id;
    const body = JSON.stringify({ model, prompt: 'a = ', max_tokens: 4 });
    const [own, other] = await Promise.all([
      engine.requests.chat(chatRequest('s', 4)),
      asked('/completions', { method: 'POST', body }),
    ]);
    expect(other.status).toBe(200);
    // The extension gets the pieces of its own answer and no others.
    expect(deltas.map(({ text }) => text).join('')).toBe(own.text);
    expect((await asked('/models', { headers: {} })).status).toBe(401);
    await engine.requests.stopServer();
    await expect(asked('/models')).rejects.toThrow();
  });

  it('answers through a remote server once connected, and itself again after a load', async () => {
    const scripted = new ScriptedEngine();
    const server = await startScripted(scripted);
    try {
      const engine = await startLoaded();
      const deltas: Delta[] = [];
      engine.on({ delta: (delta) => deltas.push(delta) });
      const remote = { url: server.address, token };
      expect(await engine.requests.remoteModels(remote)).toEqual([{ id: 'scripted', contextTokens: 4096 }]);
      const card = await engine.requests.connect(remote);
      expect(card).toMatchObject({ name: 'scripted', backend: 'remote', host: new URL(server.address).host });
      const answer = await engine.requests.chat(chatRequest('r', 4));
      expect(answer.text).toBe('One two.');
      expect(deltas.map(({ stream, text }) => [stream, text])).toEqual([
        ['r', 'One '],
        ['r', 'two.'],
      ]);
      expect(scripted.asked).toHaveLength(1);
      expect((await engine.requests.status()).model?.host).toBe(card.host);
      const wrong = engine.requests.connect({ ...remote, token: 'wrong' });
      await expect(wrong).rejects.toMatchObject({ code: 'unavailable' });
      await engine.requests.load({ model: tiny.path, backend: 'reference' });
      expect((await engine.requests.chat(chatRequest('l', 4))).text).not.toBe('One two.');
      expect(scripted.asked).toHaveLength(1);
    } finally {
      await server.close();
    }
  });
});
