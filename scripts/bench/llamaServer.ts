/** llama.cpp's side of the request benchmark: llama-server on a free loopback port, with prompt caching. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Agent, fetch, type Response } from 'undici';
import { residentBytes } from '../shared/process.ts';
import type { ChatTurn, EngineOptions, Requester } from './requester.ts';

const program = process.env['HEARTH_LLAMA_SERVER'] ?? 'llama-server';

export function findLlamaServer(): string | undefined {
  const { error, stdout, stderr } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  return error ? undefined : (/version:\s*(\S.*)/.exec(stdout + stderr)?.[1] ?? 'of unknown version');
}

export async function startLlamaServer(asked: EngineOptions): Promise<Requester> {
  const { model, contextTokens, threads, directory } = asked;
  const port = await freePort();
  // Two sequences share the context, so that a completion can run while a chat streams.
  const options = [
    '-m',
    model,
    '-c',
    `${2 * contextTokens}`,
    '-t',
    `${threads}`,
    '-np',
    '2',
    '-kvu',
    '--no-webui',
    '--jinja',
    '--slot-save-path',
    directory,
  ];
  const child = spawn(program, [...options, '--port', `${port}`, '--host', '127.0.0.1'], { stdio: 'ignore' });
  process.once('exit', () => child.kill());
  const url = `http://127.0.0.1:${port}`;
  await ready(url, child);
  return {
    // The slot that is saved.
    next: (text) => next(url, text, { id_slot: 0 }),
    keystroke: (text) => next(url, text),
    async store(text) {
      await next(url, text, { id_slot: 0 });
      await post(`${url}/slots/0?action=save`, { filename: savedSlot });
    },
    async recall() {
      await post(`${url}/slots/0?action=restore`, { filename: savedSlot });
    },
    residentBytes: () => residentBytes(child.pid),
    chat: (messages, maxTokens) => chat(url, messages, maxTokens),
    async stop() {
      child.kill();
      if (child.exitCode === null) await once(child, 'exit');
    },
  };
}

/** A long prompt on a busy machine takes longer than fetch's default timeout of five minutes. */
const patient = new Agent({ headersTimeout: 0, bodyTimeout: 0 });

const savedSlot = 'llama-server-slot';

async function next(url: string, prompt: string, more: object = {}): Promise<void> {
  const body = { prompt, n_predict: 1, cache_prompt: true, temperature: 0, ...more };
  await (await post(`${url}/completion`, body)).json();
}

async function chat(url: string, messages: readonly ChatTurn[], maxTokens: number) {
  const start = performance.now();
  const stream = { stream: true, stream_options: { include_usage: true } };
  const body = { messages, max_tokens: maxTokens, temperature: 0, cache_prompt: true, ...stream };
  const response = await post(`${url}/v1/chat/completions`, body);
  let [text, pending, tokens] = ['', '', 0];
  let firstMs: number | undefined;
  const decoder = new TextDecoder();
  for await (const bytes of response.body ?? []) {
    const lines = (pending + decoder.decode(bytes, { stream: true })).split('\n');
    pending = lines.pop() ?? '';
    for (const line of lines.filter((line) => line.startsWith('data: {'))) {
      const { choices, usage } = JSON.parse(line.slice(6));
      tokens = usage?.completion_tokens ?? tokens;
      const content = choices[0]?.delta?.content;
      if (!content) continue;
      firstMs ??= performance.now() - start;
      text += content;
    }
  }
  return { text, tokens, firstMs: firstMs ?? Number.NaN, totalMs: performance.now() - start };
}

async function post(url: string, body: unknown): Promise<Response> {
  const response = await fetch(url, {
    method: 'POST',
    dispatcher: patient,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${await response.text()}`);
  return response;
}

async function ready(url: string, child: ChildProcess): Promise<void> {
  for (;;) {
    if (child.exitCode !== null) throw new Error(`${program} ended with status ${child.exitCode}`);
    const isUp = await fetch(`${url}/health`).then(
      ({ ok }) => ok,
      () => false,
    );
    if (isUp) return;
    await sleep(20);
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
