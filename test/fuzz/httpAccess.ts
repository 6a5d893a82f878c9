/**
 * Who gets into the HTTP server: `npm run fuzz:access`. Every combination of host, origin, token, method and path over raw
 * connections; requests smuggled behind others; streams whose client hangs up. A scripted engine stands behind.
 */
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { answerOf, ScriptedEngine, startScripted, token } from '../unit/http/support.ts';
import { rawAnswer } from './http.ts';

export interface AccessFigures {
  readonly combinations: number;
  readonly allowed: number;
  readonly smuggled: number;
  readonly hungUp: number;
  readonly problems: readonly string[];
}

const chat = JSON.stringify({ model: 'scripted', messages: [{ role: 'user', content: 'x' }] });
const own = (port: number): string[] => [`127.0.0.1:${port}`, `localhost:${port}`, `LOCALHOST:${port}`];

const hostsOf = (port: number): (string | undefined)[] => [
  ...own(port),
  ...[undefined, '', '127.0.0.1', 'localhost', `127.0.0.1:${port + 1}`, `127.0.0.1.:${port}`, `0.0.0.0:${port}`],
  ...[`[::1]:${port}`, `evil.example:${port}`, `127.0.0.1:${port}.evil.example`, `localhost.evil.example:${port}`],
  ...[`evil@127.0.0.1:${port}`, `127.0.0.1:${port}#`, `127.1:${port}`, `2130706433:${port}`, `0x7f.1:${port}`],
  ...[`127.0.0.1:${port}\r\nHost: evil.example`, `evil.example\r\nHost: 127.0.0.1:${port}`],
];
const originsOf = (port: number): (string | undefined)[] => [
  ...[undefined, '', 'null', 'https://evil.example', `http://127.0.0.1:${port}`, `http://localhost:${port}`],
  ...['vscode-webview://panel', 'file://', 'chrome-extension://abc'],
];
const authorisations: readonly (string | undefined)[] = [
  ...[`Bearer ${token}`, undefined, '', 'Bearer', 'Bearer ', `Basic ${token}`, token, `Bearer ${token.slice(1)}`],
  ...[
    `Bearer ${token}x`,
    `Bearer ${token.toUpperCase()}`,
    `Bearer ${'0'.repeat(token.length)}`,
    `Bearer ${token} ${token}`,
  ],
  `Bearer ${token}\r\nAuthorization: Bearer ${token}`,
];
const targets: readonly (readonly [method: string, path: string])[] = [
  ['GET', '/v1/models'],
  ['POST', '/v1/chat/completions'],
  ['OPTIONS', '/v1/chat/completions'],
];

const header = (name: string, value: string | undefined): string =>
  value === undefined ? '' : `${name}: ${value}\r\n`;
const bodyOf = (method: string): string =>
  method === 'POST' ? `Content-Type: application/json\r\nContent-Length: ${chat.length}\r\n\r\n${chat}` : '\r\n';

/** A share of all combinations, the first of each included. */
async function combinations(port: number, step: number, report: (problem: string) => void): Promise<[number, number]> {
  let [count, allowed, place] = [0, 0, 0];
  const open = new Set<Promise<void>>();
  for (const host of hostsOf(port)) {
    for (const origin of originsOf(port)) {
      for (const authorisation of authorisations) {
        for (const [method, path] of targets) {
          const right =
            own(port).includes(host ?? '') &&
            origin === undefined &&
            authorisation === `Bearer ${token}` &&
            method !== 'OPTIONS';
          if (!right && place++ % step !== 0) continue;
          count++;
          if (right) allowed++;
          const headers = header('Host', host) + header('Origin', origin) + header('Authorization', authorisation);
          const what = `${method} ${path} ${JSON.stringify([host, origin, authorisation])}`;
          const asking = rawAnswer(
            port,
            `${method} ${path} HTTP/1.1\r\n${headers}Connection: close\r\n${bodyOf(method)}`,
          ).then((answer) => {
            const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1]);
            if (right ? status !== 200 : !(status >= 400 && status < 500)) report(`${what}: ${answer.slice(0, 100)}`);
            if (!right && /scripted|One two/.test(answer)) report(`${what}: it said something`);
            if (answer.includes(token) || /access-control/i.test(answer)) report(`${what}: ${answer.slice(0, 300)}`);
          });
          open.add(asking);
          void asking.finally(() => open.delete(asking));
          if (open.size >= 32) await Promise.race(open);
        }
      }
    }
  }
  await Promise.all(open);
  return [count, allowed];
}

/** One question within what another one is made to look like; each may be answered once at most. */
function smuggledRequests(port: number): string[] {
  const access = `Host: 127.0.0.1:${port}\r\nAuthorization: Bearer ${token}\r\n`;
  const hidden = `POST /v1/chat/completions HTTP/1.1\r\nHost: evil.example\r\nContent-Length: ${chat.length}\r\n\r\n${chat}`;
  const post = `POST /v1/chat/completions HTTP/1.1\r\n${access}`;
  const chunk = (text: string): string => `${text.length.toString(16)}\r\n${text}\r\n`;
  return [
    `${post}Content-Length: ${chat.length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n${chunk(chat)}0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding:\tchunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n${hidden}`,
    `${post}Content-Length: 0\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`,
    `${post}Content-Length: +${chat.length}\r\n\r\n${chat}${hidden}`,
    `${post}Content-Length: 0x10\r\n\r\n${chat}${hidden}`,
    `${post}Transfer-Encoding: chunked\r\n\r\n-1\r\n${chat}\r\n0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n${chat}\r\n0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding: chunked\r\n\r\n${chunk(chat)}0\r\nHost: evil.example\r\n\r\n${hidden}`,
    `${post}X: a\nContent-Length: 0\n\n${hidden}`,
    `${post}X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`,
    `${post}X: \u0000\r\nContent-Length: 0\r\n\r\n${hidden}`,
    ` ${post}Content-Length: 0\r\n\r\n${hidden}`,
    `GET http://evil.example/v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n${hidden}`,
    `GET /v1/models HTTP/1.0\r\n\r\n${hidden}`,
    `GET /v1/models HTTP/1.1\r\n${access}Content-Length: ${hidden.length}\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n${hidden}`,
  ];
}

async function smuggle(port: number, engine: ScriptedEngine, report: (problem: string) => void): Promise<number> {
  const requests = smuggledRequests(port);
  for (const [number, text] of requests.entries()) {
    const before = engine.asked.length;
    const answer = await rawAnswer(port, text);
    // The hidden one names another host: it may be refused, never answered.
    const answered = answer.match(/HTTP\/1\.1 200 /g)?.length ?? 0;
    if (engine.asked.length - before > 1 || answered > 1) report(`smuggled ${number}: ${answer.slice(0, 300)}`);
    if (answer.includes('HTTP/1.1 5')) report(`smuggled ${number}: ${answer.slice(0, 300)}`);
  }
  return requests.length;
}

/** Clients that leave in the middle of a stream: each question is cancelled, and its place is free again. */
async function hangUp(port: number, engine: ScriptedEngine, report: (problem: string) => void): Promise<number> {
  const [count, atOnce] = [64, 16];
  let cancelled = 0;
  const answer = engine.answer;
  engine.answer = (_, signal) =>
    new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => {
        cancelled++;
        reject(signal.reason);
      });
    });
  const body = JSON.stringify({ ...JSON.parse(chat), stream: true });
  const head = `POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAuthorization: Bearer ${token}\r\nContent-Length: ${body.length}\r\n\r\n`;
  for (let done = 0; done < count; done += atOnce) {
    const before = engine.asked.length;
    const sockets = Array.from({ length: atOnce }, () => {
      const socket = connect(port, '127.0.0.1', () => socket.write(head + body));
      return socket.on('error', () => {}).resume();
    });
    for (let wait = 0; engine.asked.length < before + atOnce && wait < 500; wait++) await sleep(10);
    for (const socket of sockets) socket.destroy();
  }
  for (let wait = 0; cancelled < count && wait < 500; wait++) await sleep(10);
  if (cancelled !== count) report(`${count - cancelled} questions of clients that left were not cancelled`);
  engine.answer = answer;
  const after = await rawAnswer(
    port,
    `POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAuthorization: Bearer ${token}\r\nConnection: close\r\n${bodyOf('POST')}`,
  );
  if (!after.startsWith('HTTP/1.1 200')) report(`after the others left: ${after.slice(0, 200)}`);
  return count;
}

/** @param step 1: every combination; otherwise one of so many. */
export async function tryAccess(step: number): Promise<AccessFigures> {
  const engine = new ScriptedEngine();
  engine.answer = async () => answerOf();
  const log: string[] = [];
  const server = await startScripted(engine, log);
  const port = Number(new URL(server.address).port);
  const problems: string[] = [];
  const report = (problem: string): void => void (problems.length < 50 && problems.push(problem));
  const [count, allowed] = await combinations(port, step, report);
  if (engine.asked.length !== own(port).length) report(`${engine.asked.length} questions reached the engine`);
  const smuggled = await smuggle(port, engine, report);
  const hungUp = await hangUp(port, engine, report);
  await server.close();
  if (log.some((line) => line.includes(token))) report('the token is in the log');
  return { combinations: count, allowed, smuggled, hungUp, problems };
}

if (import.meta.main) {
  const figures = await tryAccess(1);
  console.log(JSON.stringify(figures, null, 2));
  process.exitCode = figures.problems.length > 0 ? 1 : 0;
}
