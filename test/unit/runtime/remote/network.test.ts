/** The way to a remote server: redirects, credentials, proxies, certificates. Real sockets, a certificate of openssl. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { get } from '../../../../engine/catalogue/http.ts';
import { askAt, type Scripted, sse, startScriptedServer, stream } from './scripted.ts';

let server: Scripted;
let other: Scripted;
let secure: Scripted;
let folder: string;
const said = stream(sse('{"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}'));
const messageOf = async (asking: Promise<unknown>): Promise<string> =>
  asking.then(
    () => 'none',
    (error: unknown) => String(error),
  );

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'hearth-network-'));
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
  const name = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  const made = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-keyout', key, '-out', cert];
  execFileSync('openssl', [...made, ...name], { stdio: 'ignore' });
  server = await startScriptedServer();
  other = await startScriptedServer();
  secure = await startScriptedServer({ key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') });
});
beforeEach(() => {
  for (const { requests } of [server, other, secure]) requests.splice(0);
  for (const scripted of [server, other, secure]) scripted.chat = said;
  for (const name of ['http_proxy', 'https_proxy', 'no_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY'])
    vi.stubEnv(name, '');
});
afterEach(() => void vi.unstubAllEnvs());
afterAll(() => {
  for (const scripted of [server, other, secure]) scripted.close();
  rmSync(folder, { recursive: true, force: true });
});

describe('a redirect', () => {
  it.each([301, 302, 307, 308])('%i to another origin is refused, and that server hears nothing', async (status) => {
    server.chat = (_, response) =>
      void response.writeHead(status, { location: `http://u:p@127.0.0.1:${other.port}/v1/chat/completions` }).end();
    const { chat } = await askAt(`http://127.0.0.1:${server.port}/v1`);
    expect(await messageOf(chat())).toBe(
      `HearthError: 127.0.0.1:${server.port} redirects to http://127.0.0.1:${other.port}. Hearth asks only the server that you named: nothing was sent there. If you trust that server, connect to it by its own address.`,
    );
    expect(other.requests).toEqual([]);
  });

  it('within the origin is followed with the question', async () => {
    server.chat = (request, response) => {
      if (request.url?.includes('moved')) said(request, response);
      else response.writeHead(308, { location: '/v1/chat/completions?moved' }).end();
    };
    const { chat } = await askAt(`http://127.0.0.1:${server.port}/v1`, { token: 'secret' });
    expect((await chat()).text).toBe('Hi');
    expect(server.requests.at(-1)).toMatchObject({ method: 'POST', authorization: 'Bearer secret' });
  });

  it('loop is ended', async () => {
    server.chat = (_, response) => void response.writeHead(307, { location: '/v1/chat/completions' }).end();
    const { chat } = await askAt(`http://127.0.0.1:${server.port}/v1`);
    expect(await messageOf(chat())).toContain('redirects in circles; check the address.');
  });
});

describe('an address', () => {
  it('may have a query, which goes with every request', async () => {
    const { chat, engine } = await askAt(`http://127.0.0.1:${server.port}/v1/?api-version=2&a=1&a=2`);
    await chat();
    expect(server.requests.map(({ url }) => url)).toEqual(
      expect.arrayContaining(['/v1/models?api-version=2&a=1&a=2', '/v1/chat/completions?api-version=2&a=1&a=2']),
    );
    expect(engine.card.id).toBe(`remote:http://127.0.0.1:${server.port}/v1#m`);
  });

  it('may have a user and password, which are sent and never shown', async () => {
    const { engine } = await askAt(`http://me:p%40ss@127.0.0.1:${server.port}/v1`);
    expect(server.requests[0]?.authorization).toBe(`Basic ${btoa('me:p@ss')}`);
    expect(JSON.stringify(engine.card)).not.toMatch(/me:|p%40ss|p@ss/);
    const dead = await messageOf(askAt('http://me:p%40ss@127.0.0.1:1/v1'));
    expect(dead).toContain('127.0.0.1:1 cannot be reached');
    const none = await messageOf(askAt('ftp://me:p%40ss@h'));
    expect(none).toContain("'ftp://h' is not a server address");
    const broken = await messageOf(askAt('https://me:p@ss@bad host/v1'));
    for (const text of [dead, none, broken]) expect(text).not.toMatch(/me:|p%40ss|p@ss/);
  });
});

describe('a proxy', () => {
  const asked: string[] = [];
  const proxy = createServer((request, response) => {
    asked.push(`${request.url} ${request.headers['proxy-authorization'] ?? ''}`.trim());
    const { pathname } = new URL(request.url ?? '');
    const target = { host: '127.0.0.1', port: server.port };
    void import('node:http').then(({ request: ask }) => {
      const onward = ask({ ...target, path: pathname, method: request.method, headers: request.headers }, (answer) => {
        response.writeHead(answer.statusCode ?? 0, answer.headers);
        answer.pipe(response);
      });
      request.pipe(onward);
    });
  });
  proxy.on('connect', (request, socket) => {
    asked.push(`CONNECT ${request.url}`);
    const onward = connect(secure.port, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      onward.pipe(socket).pipe(onward);
    });
    onward.on('error', () => socket.destroy());
    socket.on('error', () => onward.destroy());
  });
  let address: string;
  beforeAll(async () => {
    proxy.listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    address = `127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  });
  beforeEach(() => void asked.splice(0));
  afterAll(() => {
    proxy.closeAllConnections();
    proxy.close();
  });

  it.each(['HTTP_PROXY', 'http_proxy', 'HEARTH_PROXY'])('of %s is used', async (name) => {
    vi.stubEnv(name, name === 'http_proxy' ? address : `http://u:p@${address}`);
    const { chat } = await askAt('http://model.test/v1');
    expect((await chat()).text).toBe('Hi');
    const basic = name === 'http_proxy' ? '' : ` Basic ${btoa('u:p')}`;
    expect(asked).toContain(`http://model.test/v1/chat/completions${basic}`);
  });

  it("is tunnelled through for https, with the server's own certificate", async () => {
    vi.stubEnv('HTTPS_PROXY', `http://${address}`);
    vi.stubEnv('HEARTH_STRICT_TLS', 'off');
    const { chat } = await askAt('https://model.test/v1');
    expect((await chat()).text).toBe('Hi');
    expect(asked).toContain('CONNECT model.test:443');
  });

  it('is bypassed for this computer and for hosts in NO_PROXY', async () => {
    vi.stubEnv('HEARTH_PROXY', `http://${address}`);
    expect((await (await askAt(`http://127.0.0.1:${server.port}/v1`)).chat()).text).toBe('Hi');
    for (const name of ['NO_PROXY', 'HEARTH_NO_PROXY']) {
      vi.stubEnv(name, '*.test');
      expect(await messageOf(askAt('http://model.test/v1'))).toContain('model.test cannot be reached');
      vi.stubEnv(name, '');
    }
    expect(asked).toEqual([]);
  });

  it('of another kind is refused without its password', async () => {
    vi.stubEnv('HEARTH_PROXY', 'socks5://u:secret@h:1');
    const message = await messageOf(askAt('http://model.test/v1'));
    expect(message).toBe(
      'HearthError: The configured proxy uses the scheme socks5. An example is http://HOST:PORT. Change HTTPS_PROXY or HTTP_PROXY.',
    );
  });

  it('of VS Code is used for downloads too', async () => {
    vi.stubEnv('HEARTH_PROXY', `http://${address}`);
    vi.stubEnv('HEARTH_STRICT_TLS', 'off');
    const response = await get(new URL('https://files.test/models'));
    response.close();
    expect(response.status).toBe(200);
    expect(asked).toEqual(['CONNECT files.test:443']);
  });
});

describe('a certificate of its own', () => {
  const url = () => `https://127.0.0.1:${secure.port}/v1`;

  it('is refused with advice, in VS Code and elsewhere', async () => {
    const begin = `127.0.0.1:${secure.port} cannot be reached: this computer does not trust its certificate (DEPTH_ZERO_SELF_SIGNED_CERT). If you do, name its certificate file in`;
    expect(await messageOf(askAt(url()))).toBe(`HearthError: ${begin} HEARTH_CERTIFICATES.`);
    vi.stubEnv('HEARTH_CLIENT', 'vscode');
    expect(await messageOf(askAt(url()))).toBe(`HearthError: ${begin} the setting hearth.remote.certificates.`);
    expect(secure.requests).toEqual([]);
  });

  it('is trusted by a file, or if checks are switched off', async () => {
    vi.stubEnv('HEARTH_CERTIFICATES', join(folder, 'cert.pem'));
    expect((await (await askAt(url())).chat()).text).toBe('Hi');
    vi.stubEnv('HEARTH_CERTIFICATES', '');
    vi.stubEnv('HEARTH_STRICT_TLS', 'off');
    expect((await (await askAt(url())).chat()).text).toBe('Hi');
  });

  it('file without a certificate is reported', async () => {
    vi.stubEnv('HEARTH_CLIENT', 'vscode');
    vi.stubEnv('HEARTH_CERTIFICATES', join(folder, 'absent.pem'));
    const absent = `The certificate file ${join(folder, 'absent.pem')} cannot be read. Change the setting hearth.remote.certificates.`;
    expect(await messageOf(askAt(url()))).toBe(`HearthError: ${absent}`);
    writeFileSync(join(folder, 'text.pem'), 'hello');
    vi.stubEnv('HEARTH_CERTIFICATES', join(folder, 'text.pem'));
    expect(await messageOf(askAt(url()))).toContain('has no certificate in PEM form');
  });
});
