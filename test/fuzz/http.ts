/**
 * Sends requests of every kind to the HTTP server with a scripted engine. Every bad value must be rejected with 4xx in OpenAI's
 * error format, and nothing may cause a 5xx, a hang or a crash.
 *   npm run fuzz:http -- --count 100000 [--seed 1] [--slow 100]
 */
import { Agent, request } from 'node:http';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { limits } from '../../engine/limits.ts';
import { randomNumbers } from '../unit/catalogue/tools.ts';
import { ScriptedEngine, startScripted, token } from '../unit/http/support.ts';

export interface Figures {
  /** Requests with one invalid value; all must be rejected. */
  readonly badValues: number;
  /** Requests with random changes to JSON tree or bytes; some stay valid. */
  readonly mutants: number;
  readonly accepted: number;
  readonly refused: number;
  /** Malformed headers on a raw connection; each is answered with 4xx or closed. */
  readonly heads: number;
  /** Slow connections that send a byte a second, and the time until the last was closed. */
  readonly slow: number;
  readonly slowClosedMs: number;
  readonly seconds: number;
  /** Memory of the process with client and server, at the start and after each tenth of the requests. */
  readonly memory: readonly Memory[];
  /** Bugs found. */
  readonly problems: readonly string[];
}

/** Megabytes. With --expose-gc, the heap is measured after a garbage collection. */
export interface Memory {
  readonly requests: number;
  readonly resident: number;
  readonly heap: number;
  readonly outsideHeap: number;
}

function memoryAfter(requests: number): Memory {
  globalThis.gc?.();
  const { rss, heapUsed, external } = process.memoryUsage();
  const megabytes = (bytes: number): number => Math.round(bytes / 2 ** 18) / 4;
  return { requests, resident: megabytes(rss), heap: megabytes(heapUsed), outsideHeap: megabytes(external) };
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const user: Json = { role: 'user', content: 'hi' };
const parameters: Json = { type: 'object', properties: { a: { type: 'string' } } };
const sound: Readonly<Record<string, { [key: string]: Json }>> = {
  '/v1/chat/completions': {
    model: 'scripted',
    messages: [
      { role: 'system', content: 's' },
      user,
      {
        role: 'assistant',
        content: null,
        tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: '{}' } }],
      },
      { role: 'tool', tool_call_id: 'c', content: [{ type: 'text', text: 'x' }] },
    ],
    ...{ temperature: 1, top_p: 0.9, seed: 3, n: 2, stop: ['x'], max_tokens: 5, stream: true },
    tools: [{ type: 'function', function: { name: 'f', description: 'd', parameters } }],
    response_format: { type: 'json_schema', json_schema: { name: 'n', schema: parameters } },
    reasoning_effort: 'low',
  },
  '/v1/completions': { model: 'scripted', prompt: 'a', suffix: 'b', max_tokens: 4, stop: 'x', logit_bias: { '3': 1 } },
  '/v1/responses': {
    model: 'scripted',
    input: [
      { role: 'user', content: [{ type: 'input_text', text: 'x' }] },
      { type: 'function_call_output', call_id: 'c', output: 'y' },
    ],
    tools: [{ type: 'function', name: 'f', parameters }],
    text: { format: { type: 'json_object' } },
    reasoning: { effort: 'high' },
  },
  '/v1/embeddings': { model: 'scripted', input: ['x'] },
};

const badByField: Readonly<Record<string, readonly Json[]>> = {
  model: [null, 5, '', 'other', [], {}, 'x'.repeat(100_000), '__proto__'],
  messages: [
    null,
    5,
    'x',
    [],
    {},
    [null],
    [5],
    [{ role: 'wizard', content: 'x' }],
    [{ role: 'user' }],
    [{ role: 'user', content: 5 }],
  ],
  temperature: [-0.1, 5.1, '1', [], {}, true, 1e308],
  top_p: [-1, 1.01, '0.5', {}],
  seed: [0.5, 'x', [], 1e300],
  n: [0, -1, 5, 1.5, 'x', 1e9],
  stop: [5, [5], {}, Array.from({ length: 100 }, () => 'x')],
  max_tokens: [0, -2, 1.5, 'many', 1e12, []],
  max_completion_tokens: [0, 'x'],
  stream: ['yes', 1, [], {}],
  tools: [
    5,
    'x',
    {},
    [5],
    [{ type: 'function' }],
    [{ type: 'function', function: { name: 'no space' } }],
    [{ type: 'function', function: { name: '' } }],
  ],
  tool_choice: ['f', 5, { type: 'function', function: { name: 'absent' } }],
  response_format: [
    'json',
    { type: 'xml' },
    { type: 'json_schema' },
    { type: 'json_schema', json_schema: { schema: 5 } },
  ],
  reasoning_effort: ['much', 5, []],
  frequency_penalty: [1, -1],
  presence_penalty: [-2.1, 2.1, 'x'],
  logprobs: ['yes', -2],
  logit_bias: [{ x: 1 }, { '1': 1e9 }, [], 'x'],
  stream_options: [5, 'x', { include_usage: 5 }],
};

const hostile: readonly Json[] = [
  ...[null, true, false, 0, -1, 1.5, 1e308, -1e308, 2 ** 53, '', ' ', '\u0000', '\ud800', '__proto__', 'constructor'],
  ...[[], {}, [[]], [null], { type: 'text' }, 'x'.repeat(10_000), '<|im_start|>', '../../etc/passwd'],
];

class Fuzzer {
  readonly problems: string[] = [];
  badValues = 0;
  mutants = 0;
  accepted = 0;
  refused = 0;
  heads = 0;
  readonly #port: number;
  readonly #random: () => number;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 8 });

  constructor(port: number, seed: number) {
    this.#port = port;
    this.#random = randomNumbers(seed);
  }

  close(): void {
    this.#agent.destroy();
  }

  /** Sends one request of a random kind. */
  async try(): Promise<void> {
    const kind = this.#random();
    if (kind < 0.45) await this.#badValue();
    else if (kind < 0.95) await this.#mutant();
    else await this.#head();
  }

  async #badValue(): Promise<void> {
    const field = this.#pick(Object.keys(badByField));
    const value = this.#pick(badByField[field] ?? []);
    this.badValues++;
    const body = JSON.stringify({ ...sound['/v1/chat/completions'], [field]: value });
    const status = await this.#send('/v1/chat/completions', body);
    if (status < 400 || status > 499) this.#report(`${field} = ${shown(JSON.stringify(value))} gave ${status}`);
  }

  async #mutant(): Promise<void> {
    const path = this.#pick(Object.keys(sound));
    this.mutants++;
    const tree = this.#changed(structuredClone(sound[path] ?? {}), 3);
    const text = JSON.stringify(tree);
    const body = this.#random() < 0.3 ? this.#scrambled(text) : text;
    const status = await this.#send(path, body);
    if (status === 200) this.accepted++;
    else this.refused++;
    if (status !== 200 && (status < 400 || status > 499)) this.#report(`${path} ${shown(body)} gave ${status}`);
  }

  /** Inserts a hostile value into the tree, or removes a field. */
  #changed(node: Json, depth: number): Json {
    if (depth === 0 || this.#random() < 0.25 || node === null || typeof node !== 'object') return this.#pick(hostile);
    if (Array.isArray(node)) {
      if (node.length === 0) return this.#pick(hostile);
      const index = Math.floor(this.#random() * node.length);
      return node.map((item, i) => (i === index ? this.#changed(item, depth - 1) : item));
    }
    const key = this.#pick(Object.keys(node));
    const { [key]: value = null, ...rest } = node;
    return this.#random() < 0.2 ? rest : { ...rest, [key]: this.#changed(value, depth - 1) };
  }

  #scrambled(text: string): string {
    const at = Math.floor(this.#random() * text.length);
    const insert = this.#pick([
      '',
      '{',
      '}',
      '"',
      '[',
      '\\',
      '\u0000',
      '9'.repeat(400),
      '['.repeat(5000),
      '{"a":'.repeat(5000),
    ]);
    return text.slice(0, at) + insert + text.slice(at + Math.floor(this.#random() * 9));
  }

  #send(path: string, body: string): Promise<number> {
    return new Promise((resolve) => {
      const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
      const options = { host: '127.0.0.1', port: this.#port, path, method: 'POST', headers, agent: this.#agent };
      const asking = request(options, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => {
          const status = response.statusCode ?? 0;
          const text = Buffer.concat(chunks).toString();
          if (status >= 400 && !isError(text)) this.#report(`${path} ${shown(body)} gave ${shown(text)}`);
          resolve(status);
        });
      });
      asking.setTimeout(10_000, () => asking.destroy(new Error('no answer in 10 s')));
      asking.on('error', (error) => {
        this.#report(`${path} ${shown(body)}: ${error.message}`);
        resolve(499);
      });
      asking.end(body);
    });
  }

  async #head(): Promise<void> {
    this.heads++;
    const line = this.#pick([
      ...['GET /v1/models HTTP/1.1', 'POST /v1/chat/completions HTTP/1.1', 'GET http://evil/v1/models HTTP/1.1'],
      ...['PRI * HTTP/2.0', 'GET /v1/models', 'GET  HTTP/1.1', '\u0000\u0001', 'CONNECT 127.0.0.1:1 HTTP/1.1'],
      ...[
        'TRACE / HTTP/1.1',
        `GET /${'x'.repeat(20_000)} HTTP/1.1`,
        'GET /v1/models/%E0%A4%A HTTP/1.1',
        'HEAD / HTTP/1.1',
      ],
    ]);
    const pool = [
      ...[`Host: 127.0.0.1:${this.#port}`, 'Host: evil', 'Host: a\r\nHost: b', `X: ${'y'.repeat(20_000)}`, ': empty'],
      ...['Content-Length: -1', 'Content-Length: 5\r\nContent-Length: 6', 'Content-Length: 99999999999999999999'],
      ...['Transfer-Encoding: chunked\r\nContent-Length: 3', 'Transfer-Encoding: gzip', 'Expect: 100-continue'],
      ...[
        'Upgrade: websocket\r\nConnection: Upgrade',
        'Authorization: Bearer x',
        'Bad Header',
        '\u0000: x',
        'Origin: null',
      ],
    ];
    const headers = Array.from({ length: 1 + Math.floor(this.#random() * 4) }, () => this.#pick(pool));
    const answer = await rawAnswer(this.#port, `${line}\r\n${headers.join('\r\n')}\r\n\r\nzz\r\n`);
    if (answer !== '' && !/^HTTP\/1\.1 4\d\d /.test(answer)) {
      this.#report(`${shown(line)} ${shown(headers.join(' | '))} gave ${shown(answer)}`);
    }
  }

  #pick<T>(list: readonly T[]): T {
    const item = list[Math.floor(this.#random() * list.length)];
    if (item === undefined) throw new Error('Cannot pick from an empty list.');
    return item;
  }

  #report(problem: string): void {
    if (this.problems.length < 100) this.problems.push(problem);
  }
}

const shown = (text: string): string => JSON.stringify(text.slice(0, 200));

function isError(text: string): boolean {
  try {
    const { error } = JSON.parse(text) as { error?: { message?: unknown; type?: unknown } };
    return typeof error?.message === 'string' && typeof error.type === 'string';
  } catch {
    return false;
  }
}

/** Sends bytes, half-closes the connection, and returns the server's response. */
export function rawAnswer(port: number, text: string): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(port, '127.0.0.1', () => socket.end(text, 'latin1'));
    socket.setTimeout(15_000, () => socket.destroy());
    socket.on('data', (chunk) => {
      answer += chunk.toString('latin1');
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(answer));
  });
}

/** Opens `count` connections that send headers slowly. Returns the milliseconds until the server closed the last. */
export async function slowLoris(port: number, count: number): Promise<number> {
  const started = performance.now();
  const closed = Array.from({ length: count }, async () => {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    const over = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    const drip = setInterval(() => socket.write('X'), 1000);
    socket.write('POST /v1/chat/completions HTTP/1.1\r\nX-');
    socket.resume();
    await Promise.race([over, sleep(3 * limits.server.requestMs)]);
    clearInterval(drip);
    socket.destroy();
  });
  await Promise.all(closed);
  return performance.now() - started;
}

export async function fuzzHttp(count: number, seed: number, slow: number): Promise<Figures> {
  const started = performance.now();
  const log: string[] = [];
  const engine = new ScriptedEngine();
  const server = await startScripted(engine, log);
  const port = Number(new URL(server.address).port);
  const fuzzer = new Fuzzer(port, seed);
  const memory = [memoryAfter(0)];
  const loris = slow > 0 ? slowLoris(port, slow) : Promise.resolve(0);
  try {
    for (let done = 0; done < count; done += 8) {
      await Promise.all(Array.from({ length: Math.min(8, count - done) }, () => fuzzer.try()));
      // The scripted engine ignores the request.
      for (const list of [engine.asked, engine.completed, engine.generated]) list.length = 0;
      if (done + 8 >= (count * memory.length) / 10) memory.push(memoryAfter(Math.min(done + 8, count)));
    }
    const slowClosedMs = Math.round(await loris);
    const problems = [...fuzzer.problems, ...log.map((line) => `log: ${line}`)];
    if (slowClosedMs > limits.server.headersMs + 5000) problems.push(`slow connections lasted ${slowClosedMs} ms`);
    const { badValues, mutants, accepted, refused, heads } = fuzzer;
    return {
      ...{ badValues, mutants, accepted, refused, heads, slow, slowClosedMs, problems },
      seconds: Math.round((performance.now() - started) / 100) / 10,
      memory,
    };
  } finally {
    fuzzer.close();
    await server.close();
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({
    options: {
      count: { type: 'string', default: '100000' },
      seed: { type: 'string', default: '1' },
      slow: { type: 'string', default: '100' },
    },
  });
  const figures = await fuzzHttp(Number(values.count), Number(values.seed), Number(values.slow));
  console.log(JSON.stringify(figures, null, 2));
  process.exitCode = figures.problems.length === 0 ? 0 : 1;
}
