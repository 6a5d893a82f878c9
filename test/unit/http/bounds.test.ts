import { request } from 'node:http';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { HttpServer } from '../../../engine/http/server.ts';
import { limits } from '../../../engine/limits.ts';
import { fuzzHttp } from '../../fuzz/http.ts';
import { answerOf, ScriptedEngine, startScripted, token } from './support.ts';

let engine: ScriptedEngine;
let server: HttpServer;
beforeEach(async () => {
  engine = new ScriptedEngine();
  server = await startScripted(engine);
});
afterEach(() => server.close());

const authorised = { authorization: `Bearer ${token}` };
const question = JSON.stringify({ model: 'scripted', messages: [{ role: 'user', content: 'x' }] });
const post = (body: string) =>
  fetch(`${server.address}/v1/chat/completions`, { method: 'POST', headers: authorised, body });

const nested = (depth: number): string => `${'{"not":'.repeat(depth)}{}${'}'.repeat(depth)}`;

describe('the bounds of the server', () => {
  it('queue as many of 64 clients as allowed, and reject the others with Retry-After', async () => {
    let release = (): void => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    engine.answer = async () => {
      await released;
      return answerOf();
    };
    const asked = Array.from({ length: 64 }, () => post(question));
    const refused = 64 - limits.server.pendingRequests;
    const early = await new Promise<Response[]>((resolve) => {
      const list: Response[] = [];
      for (const answer of asked) void answer.then((response) => list.push(response) === refused && resolve(list));
    });
    expect(early.map(({ status }) => status)).toEqual(early.map(() => 429));
    expect(early.every(({ headers }) => headers.get('retry-after') === '1')).toBe(true);
    release();
    const statuses = (await Promise.all(asked)).map(({ status }) => status);
    expect(statuses.filter((status) => status === 200)).toHaveLength(limits.server.pendingRequests);
    // The places are free again.
    expect((await post(question)).status).toBe(200);
  });

  it.each([
    ['too deep', nested(100_000), 'nests deeper than 128 levels'],
    ['too large', `{"title":"${'x'.repeat(300_000)}"}`, 'characters'],
    ['of too many values', `{"enum":[${'1,'.repeat(40_000)}1]}`, 'values'],
  ])('refuse a schema that is %s before it is traversed, and name the limit', async (_, schema, bound) => {
    const ask = question.slice(0, -1);
    const format = `"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":${schema}}}`;
    const tools = `"tools":[{"type":"function","function":{"name":"f","parameters":${schema}}}]`;
    for (const field of [format, tools]) {
      const response = await post(`${ask},${field}}`);
      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({ error: { message: expect.stringContaining(bound) } });
    }
  });

  it('refuse a body beyond its size while it arrives', async () => {
    let sent = 0;
    const status = await new Promise<number | undefined>((resolve) => {
      const { port } = new URL(server.address);
      const asking = request({ port, path: '/v1/responses', method: 'POST', headers: authorised }, (response) => {
        response.resume();
        resolve(response.statusCode);
        asking.destroy();
      });
      asking.on('error', () => resolve(undefined));
      const piece = Buffer.alloc(1 << 20, 0x20);
      const send = (): void => {
        while (!asking.destroyed && sent < 4 * limits.server.bodyBytes) {
          sent += piece.length;
          if (!asking.write(piece)) return void asking.once('drain', send);
        }
      };
      send();
    });
    expect(status).toBe(413);
    expect(sent).toBeLessThan(4 * limits.server.bodyBytes);
    expect(engine.asked).toEqual([]);
  });

  it('refuse JSON that is malformed or too deep; brackets in strings do not count', async () => {
    expect((await post('['.repeat(limits.server.jsonDepth + 1))).status).toBe(400);
    expect((await post('{"model":')).status).toBe(400);
    const harmless = JSON.stringify({
      model: 'scripted',
      messages: [{ role: 'user', content: `"\\${'['.repeat(1000)}` }],
    });
    expect((await post(harmless)).status).toBe(200);
  });

  it('report a port in use, and what to do', async () => {
    const { startHttpServer } = await import('../../../engine/http/server.ts');
    const port = Number(new URL(server.address).port);
    const again = startHttpServer({ ...engine.serving, port, token, log: () => {} });
    await expect(again).rejects.toThrow(`Port ${port} is taken`);
  });

  it('listen on loopback alone', async () => {
    expect(new URL(server.address).hostname).toBe('127.0.0.1');
    const { port } = new URL(server.address);
    await expect(fetch(`http://[::1]:${port}/v1/models`, { headers: authorised })).rejects.toThrow();
  });

  it('close 200 slow connections, and answer 3,000 bad requests with 4xx meanwhile', async () => {
    const figures = await fuzzHttp(3000, 1, 200);
    expect(figures.problems).toEqual([]);
    expect(figures.accepted).toBeGreaterThan(20);
    expect(figures.refused).toBeGreaterThan(500);
  });
});
