import { chmodSync, existsSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { type HttpServer, tokenInFile } from '../../../engine/http/server.ts';
import { tryAccess } from '../../fuzz/httpAccess.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { ScriptedEngine, startScripted, token } from './support.ts';

let server: HttpServer;
let port: number;
const engine = new ScriptedEngine();

beforeAll(async () => {
  server = await startScripted(engine);
  port = Number(new URL(server.address).port);
});
afterAll(() => server.close());

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: string;
}

/** Name, value, name, value …: so that a header can be sent twice. */
type Headers = readonly string[];

function ask(method: string, path: string, headers: Headers): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asking = request(
      { host: '127.0.0.1', port, method, path, headers, setHost: false, agent: false },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks).toString(),
          }),
        );
      },
    );
    asking.on('error', reject);
    asking.end(
      method === 'POST' ? JSON.stringify({ model: 'scripted', messages: [{ role: 'user', content: 'x' }] }) : '',
    );
  });
}

const hosts = (): (string | undefined)[] => [
  `127.0.0.1:${port}`,
  `LOCALHOST:${port}`,
  `127.0.0.1:${port + 1}`,
  `rebound.example:${port}`,
  undefined,
];
const origins = [undefined, 'null', 'https://evil.example', 'vscode-webview://panel', 'http://127.0.0.1'];
const methods = ['GET', 'POST', 'OPTIONS', 'DELETE'];
const tokens = [token, `${token.slice(0, -1)}1`];

describe('access to the server', () => {
  it('is granted only to the right ones of 200 combinations of host, origin, method and token', async () => {
    let cases = 0;
    let authorised = 0;
    for (const host of hosts()) {
      for (const origin of origins) {
        for (const method of methods) {
          for (const offered of tokens) {
            const path = method === 'POST' ? '/v1/chat/completions' : '/v1/models';
            const right = host !== undefined && hosts().indexOf(host) < 2 && origin === undefined && offered === token;
            const allowed = right && (method === 'GET' || method === 'POST');
            const { status, headers, body } = await ask(method, path, [
              ...['Authorization', `Bearer ${offered}`],
              ...(host === undefined ? [] : ['Host', host]),
              ...(origin === undefined ? [] : ['Origin', origin]),
            ]);
            const what = `${method} ${path} host=${host} origin=${origin} token=${offered === token}`;
            cases++;
            if (allowed) authorised++;
            if (allowed) expect(status, what).toBe(200);
            else expect([400, 401, 403, 405], what).toContain(status);
            if (!allowed) expect(body, what).not.toContain('scripted');
            // No page may read an answer, whatever the request was.
            expect(Object.keys(headers).filter((name) => name.startsWith('access-control-'))).toEqual([]);
          }
        }
      }
    }
    expect({ cases, authorised, asked: engine.asked.length }).toEqual({ cases: 200, authorised: 4, asked: 2 });
  });

  it('is refused for duplicate, missing or malformed headers', async () => {
    const own = ['Host', `127.0.0.1:${port}`];
    const known = ['Authorization', `Bearer ${token}`];
    const bad: [number, Headers][] = [
      [401, own],
      [401, [...own, 'Authorization', token]],
      [401, [...own, 'Authorization', `Basic ${token}`]],
      [401, [...own, 'Authorization', 'Bearer ']],
      [401, [...own, 'Authorization', `Bearer ${token} ${token}`]],
      [401, [...own, ...known, ...known]],
      [401, [...own, 'X-Api-Key', token]],
      [403, [...own, ...own, ...known]],
      [403, ['Host', '127.0.0.1', ...known]],
      [403, ['Host', `127.0.0.1.:${port}`, ...known]],
      [403, [...own, ...known, 'Origin', '']],
    ];
    for (const [status, headers] of bad) {
      const answer = await ask('GET', '/v1/models', headers);
      // Node itself refuses some of them, before any handler.
      expect([400, status], JSON.stringify(headers)).toContain(answer.status);
    }
    expect((await ask('GET', `/v1/models?token=${token}`, own)).status).toBe(401);
  });

  it.skipIf(process.platform === 'win32')('refuses a token file that others may have read', async () => {
    const path = join(temporaryFolder(), 'token');
    const first = await tokenInFile(path);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(await tokenInFile(path)).toBe(first);
    for (const mode of [0o604, 0o640, 0o666]) {
      chmodSync(path, mode);
      await expect(tokenInFile(path)).rejects.toMatchObject({
        code: 'invalid-input',
        message: expect.stringContaining('Other users'),
      });
    }
  });

  it('leaves no empty token file on a full disk', async () => {
    const folder = temporaryFolder();
    const path = join(folder, 'token');
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    const handle = await open(join(folder, 'probe'), 'w');
    const write = vi.spyOn(Object.getPrototypeOf(handle), 'writeFile').mockRejectedValue(full);
    await expect(tokenInFile(path)).rejects.toMatchObject({ message: expect.stringContaining('ENOSPC') });
    write.mockRestore();
    await handle.close();
    expect(existsSync(path)).toBe(false);
    expect(await tokenInFile(path)).toHaveLength(43);
  });

  it('is denied to a tenth of the combinations of `npm run fuzz:access`, to smuggled requests and to clients that leave', {
    timeout: 60_000,
  }, async () => {
    const figures = await tryAccess(10);
    expect(figures.problems).toEqual([]);
    expect(figures).toMatchObject({ allowed: 6, smuggled: 20, hungUp: 64 });
    expect(figures.combinations).toBeGreaterThan(500);
  });

  it('needs a token of Hearth’s own length', async () => {
    const short = { ...engine.serving, port: 0, token: 'short', log: () => {} };
    const { startHttpServer } = await import('../../../engine/http/server.ts');
    await expect(startHttpServer(short)).rejects.toMatchObject({ code: 'invalid-input' });
  });
});
