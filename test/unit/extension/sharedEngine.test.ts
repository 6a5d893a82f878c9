/** Windows that share one engine process: the extension's own client, the bundled engine, tiny models. */

import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { CancellationTokenSource } from 'vscode-jsonrpc/node';
import { type SharedAddress, sharedAddress } from '../../../engine/protocol/sharedEngine.ts';
import { sharedEngines } from '../../../engine/runtime/process.ts';
import { EngineClient } from '../../../extension/client/client.ts';
import { type Launch, sparing } from '../../../extension/client/connection.ts';
import { sharedFolder } from '../../../extension/client/sharedEngine.ts';
import type { Log } from '../../../extension/parts.ts';
import { bundle } from '../runtime/bundle.ts';
import { makeTinyModel } from '../runtime/tinyModel.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { settings } from './vscode.ts';

let engine: Awaited<ReturnType<typeof bundle>>;
let models: Awaited<ReturnType<typeof makeTinyModel>>[];
let store: string;
const graceMs = 3000;
const windows: EngineClient[] = [];
const lines: string[] = [];
const write = (line: string): void => void lines.push(line);
const log: Log = { error: write, warn: write, info: write, debug: () => {} };
const never = new CancellationTokenSource().token;
const runtimeFolder = process.env['XDG_RUNTIME_DIR'];

beforeAll(async () => {
  process.env['XDG_RUNTIME_DIR'] = temporaryFolder();
  engine = await bundle('engine/main.ts');
  models = [await makeTinyModel(), await makeTinyModel()];
  store = temporaryFolder();
});
afterAll(async () => {
  if (runtimeFolder === undefined) delete process.env['XDG_RUNTIME_DIR'];
  else process.env['XDG_RUNTIME_DIR'] = runtimeFolder;
  for (const { remove } of models) await remove();
  await engine.remove();
});
afterEach(async () => {
  const pids = windows.flatMap(({ pid }) => pid ?? []);
  for (const window of windows.splice(0)) await window.stop();
  for (const pid of pids) await gone(pid, graceMs + 3000);
  settings.clear();
  lines.length = 0;
});

const launch = (): Launch => ({ entry: engine.path, env: { HEARTH_HOME: store }, shared: { graceMs } });

function open(launched = launch): EngineClient {
  settings.set('hearth.chat.model', models[0]?.path);
  settings.set('hearth.backend', 'reference');
  const client = new EngineClient(launched, log);
  windows.push(client);
  return client;
}

function alive(pid: number | undefined): boolean {
  try {
    return process.kill(pid ?? 0, 0);
  } catch {
    return false;
  }
}

async function gone(pid: number | undefined, ms: number): Promise<boolean> {
  for (const end = Date.now() + ms; alive(pid) && Date.now() < end; ) await sleep(20);
  return !alive(pid);
}

async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 60_000; !condition(); await sleep(10))
    if (Date.now() > end) throw new Error('too long');
}

const ask = (client: EngineClient, text: string, onDelta: (text: string) => void = () => {}, token = never) =>
  client.chat(
    { messages: [{ role: 'user', content: text }], maxTokens: 200, sampling: { temperature: 0 } },
    { onDelta: (delta) => delta.kind === 'text' && onDelta(delta.text) },
    token,
  );

/** Of the windows above, whose client adds the engine's Node options and variables. */
const meetingPlace = (): string => sharedFolder(sparing(launch()));

const address = (): SharedAddress =>
  sharedAddress.parse(JSON.parse(readFileSync(join(meetingPlace(), 'address.json'), 'utf8')));

/** The engine's answer to a connection that begins with `text`; undefined: it closed the connection. */
function answerTo(path: string, text: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path, () => socket.write(text));
    socket.once('data', (data) => {
      resolve(data.toString());
      socket.destroy();
    });
    socket.once('close', () => resolve(undefined));
    socket.once('error', () => {});
  });
}

describe('two windows', () => {
  it('that start at the same time have one engine, every time', async () => {
    for (let round = 0; round < 4; round++) {
      const two = [open(), open(), open()];
      const cards = await Promise.all(two.map((window) => window.ready()));
      expect(new Set(two.map(({ pid }) => pid)).size).toBe(1);
      expect(new Set(cards.map(({ id }) => id))).toEqual(new Set([models[0]?.path]));
      process.kill(two[0]?.pid ?? 0, 'SIGKILL');
      for (const window of windows.splice(0)) await window.stop();
    }
  });

  it('have one copy of a model, and what one prefills is cached for the other', async () => {
    const [a, b] = [open(), open()];
    await a.ready();
    const loading: string[] = [];
    b.onView(({ state }) => loading.push(state.kind === 'loading' ? `${state.done}` : state.kind));
    await b.ready();
    expect(loading.filter((state) => Number(state) > 0)).toEqual([]);
    const question = `What is this? ${'a = b + c; '.repeat(40)}`;
    const first = await ask(a, question);
    const second = await ask(b, question);
    expect(first.statistics.cachedTokens).toBe(0);
    expect(second.statistics.cachedTokens).toBeGreaterThan(300);
    expect(second.text).toBe(first.text);
  });

  it('get their own answers alone, and a cancellation ends one of them', async () => {
    const [a, b] = [open(), open()];
    await Promise.all([a.ready(), b.ready()]);
    const source = new CancellationTokenSource();
    let [textOfA, textOfB] = ['', ''];
    const answers = Promise.all([
      ask(
        a,
        'one',
        (text) => {
          textOfA += text;
          source.cancel();
        },
        source.token,
      ),
      ask(b, 'two two', (text) => {
        textOfB += text;
      }),
    ]);
    const [answerOfA, answerOfB] = await answers;
    expect(answerOfA.finish).toBe('cancelled');
    expect(answerOfB.finish).toBe('length');
    expect(textOfA).toBe(answerOfA.text);
    expect(textOfB).toBe(answerOfB.text);
  });

  it('are independent: closing one during its answer leaves the other unaffected', async () => {
    const [a, b] = [open(), open()];
    await Promise.all([a.ready(), b.ready()]);
    const { pid } = b;
    const ofA = ask(a, 'one', () => void a.stop());
    const ofB = ask(b, 'two');
    await expect(ofA).rejects.toMatchObject({ code: 'cancelled' });
    expect((await ofB).finish).toBe('length');
    expect(b.pid).toBe(pid);
    expect(lines.filter((line) => line.includes('ended'))).toEqual([]);
    expect((await ask(b, 'three')).text).not.toBe('');
  });

  it('both continue after a crash, with one new engine', async () => {
    const [a, b] = [open(), open()];
    await Promise.all([a.ready(), b.ready()]);
    const { pid } = a;
    let killed = false;
    const onText = (): void => {
      if (!killed) process.kill(pid ?? 0, 'SIGKILL');
      killed = true;
    };
    const answers = await Promise.allSettled([ask(a, 'one', onText), ask(b, 'two', onText)]);
    expect(answers).toMatchObject(Array(2).fill({ status: 'rejected', reason: { code: 'engine-ended' } }));
    const again = await Promise.all([ask(a, 'one'), ask(b, 'two')]);
    expect(again.map(({ finish }) => finish)).toEqual(['length', 'length']);
    expect(a.pid).toBe(b.pid);
    expect(a.pid).not.toBe(pid);
  });

  it('may have different models, if both fit', async () => {
    const [a, b] = [open(), open()];
    await a.ready();
    settings.set('hearth.chat.model', models[1]?.path);
    const other = await b.ready();
    expect(other.id).toBe(models[1]?.path);
    await Promise.all([ask(b, 'two')]);
    settings.set('hearth.chat.model', models[0]?.path);
    await ask(a, 'one');
    expect(a.warmModel?.id).toBe(models[0]?.path);
    expect(a.pid).toBe(b.pid);
  });

  it('restart the engine together when one of them asks for it', async () => {
    const [a, b] = [open(), open()];
    await Promise.all([a.ready(), b.ready()]);
    const { pid } = a;
    await a.restart();
    await until(() => b.view.state.kind === 'ready' && b.pid !== pid);
    expect(b.pid).toBe(a.pid);
  });
});

describe('a shared engine', () => {
  it('outlives the last window for a while, so that a reloaded one finds its model loaded', async () => {
    const a = open();
    await a.ready();
    const { pid } = a;
    await a.stop();
    const b = open();
    const states: string[] = [];
    b.onView(({ state }) => states.push(state.kind === 'loading' ? `${state.done}` : state.kind));
    await b.ready();
    expect(b.pid).toBe(pid);
    expect(states.filter((state) => Number(state) > 0)).toEqual([]);
    await b.stop();
    expect(alive(pid)).toBe(true);
    expect(await gone(pid, graceMs + 2000)).toBe(true);
    // It leaves nothing but the lock.
    expect(readdirSync(meetingPlace())).toEqual(['lock']);
  });

  it('answers only clients that know its token, in a folder that only the user can open', async () => {
    const a = open();
    await a.ready();
    const { requests, life, token, pid } = address();
    expect([pid, sharedEngines()]).toEqual([a.pid, [pid]]);
    const wrong = `${'x'.repeat(token.length)}\n`;
    const status = `${wrong}Content-Length: 56\r\n\r\n{"jsonrpc":"2.0","id":1,"method":"status","params":{}}  `;
    expect(await answerTo(requests, status)).toBeUndefined();
    expect(await answerTo(requests, 'x'.repeat(10_000))).toBeUndefined();
    expect(await answerTo(life, wrong)).toBeUndefined();
    expect(await answerTo(requests, status.replace(wrong, `${token}\n`))).toContain('Content-Length');
    if (process.platform === 'win32') return;
    const folder = meetingPlace();
    expect(lstatSync(folder).mode & 0o777).toBe(0o700);
    expect(lstatSync(join(folder, 'address.json')).mode & 0o777).toBe(0o600);
    if (process.platform !== 'linux') return;
    for (const name of ['cmdline', 'environ'])
      expect(readFileSync(`/proc/${pid}/${name}`, 'latin1')).not.toContain(token);
    for (const name of readdirSync(folder)) {
      if (name.endsWith('.log')) expect(readFileSync(join(folder, name), 'utf8')).not.toContain(token);
    }
    expect(lines.join('\n')).not.toContain(token);
  });

  const alone = (): Launch => ({ entry: engine.path, env: { HEARTH_HOME: store } });
  it.each([
    ['though two windows start at the same time', [launch, launch]],
    ['also as the child of one window', [alone]],
  ])('can be debugged, %s', async (_, launches) => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    process.env['HEARTH_INSPECT'] = `${port}`;
    try {
      const opened = launches.map((launched) => open(launched));
      await Promise.all(opened.map((window) => window.ready()));
      expect(new Set(opened.map(({ pid }) => pid)).size).toBe(1);
      const targets = await fetch(`http://127.0.0.1:${port}/json/list`);
      expect(await targets.text()).toContain('main.mjs');
    } finally {
      delete process.env['HEARTH_INSPECT'];
    }
  });

  it('that was stopped before a window came is killed and replaced', async () => {
    const a = open();
    await a.ready();
    const { pid } = a;
    await a.stop();
    process.kill(pid ?? 0, 'SIGSTOP');
    // Until all its threads are stopped.
    await sleep(200);
    const b = open();
    await b.ready();
    expect(b.pid).not.toBe(pid);
    expect(alive(pid)).toBe(false);
  });

  it('is not shared by another version, other settings of its environment, or in a folder of somebody else', () => {
    const folder = sharedFolder(launch());
    expect(sharedFolder(launch())).toBe(folder);
    const other: Launch = { ...launch(), env: { HEARTH_HOME: '/elsewhere' } };
    expect(sharedFolder(other)).not.toBe(folder);
    const entry = join(temporaryFolder(), 'main.mjs');
    writeFileSync(entry, '');
    const before = sharedFolder({ ...launch(), entry });
    utimesSync(entry, 1, 1);
    expect(sharedFolder({ ...launch(), entry })).not.toBe(before);
    if (process.platform === 'win32') return;
    const runtime = process.env['XDG_RUNTIME_DIR'];
    process.env['XDG_RUNTIME_DIR'] = temporaryFolder();
    const open = join(process.env['XDG_RUNTIME_DIR'], 'hearth');
    mkdirSync(open);
    chmodSync(open, 0o755);
    expect(() => sharedFolder(launch())).toThrow('only this user');
    process.env['XDG_RUNTIME_DIR'] = `/tmp/${'long/'.repeat(30)}`;
    expect(() => sharedFolder(launch())).toThrow('too long');
    process.env['XDG_RUNTIME_DIR'] = runtime;
    expect(existsSync(`/tmp/${'long/'.repeat(30)}`)).toBe(false);
  });

  it('logs why it ended, and restarts with delays', async () => {
    const a = new EngineClient(
      () => ({ ...launch(), env: { HEARTH_HOME: store, NODE_OPTIONS: '--no-such-option' } }),
      log,
    );
    windows.push(a);
    await expect(a.ready()).rejects.toMatchObject({ code: 'engine-ended' });
    await until(() => a.view.state.kind === 'restarting');
    expect(lines.join('\n')).toContain('--no-such-option');
    expect(lines.join('\n')).toContain('exit status 9');
  });
});
