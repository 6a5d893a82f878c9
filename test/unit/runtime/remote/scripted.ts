/** A server on loopback that sends the bytes set by a test. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { chatParams, type Delta } from '../../../../engine/protocol/engineProtocol.ts';
import { RemoteEngine } from '../../../../engine/runtime/remote/remoteEngine.ts';

export type Script = (request: IncomingMessage, response: ServerResponse) => void;

export interface Scripted {
  readonly port: number;
  readonly requests: { method: string; url: string; authorization: string | undefined }[];
  chat: Script;
  completions: Script;
  close(): void;
}

export const sse = (...pieces: string[]): string => pieces.map((piece) => `data: ${piece}\n\n`).join('');
export const stream =
  (text: string, headers: Record<string, string> = { 'content-type': 'text/event-stream' }): Script =>
  (_, response) =>
    void response.writeHead(200, headers).end(text);

/** It has one model; completions where a test scripts them. */
export async function startScriptedServer(tls?: { key: string; cert: string }): Promise<Scripted> {
  const requests: Scripted['requests'] = [];
  const notFound: Script = (_, response) =>
    void response.writeHead(404, { 'content-type': 'application/json' }).end('{}');
  const scripted = { requests, chat: stream(sse('[DONE]')), completions: notFound };
  const listener: RequestListener = (request, response) => {
    const { method = '', url = '', headers } = request;
    requests.push({ method, url, authorization: headers.authorization });
    request.resume();
    if (url.includes('/models')) {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ data: [{ id: 'm', max_model_len: 1000 }] }));
    } else if (url.includes('/chat/completions')) scripted.chat(request, response);
    else scripted.completions(request, response);
  };
  const server: Server = tls ? createTlsServer(tls, listener) : createServer(listener);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const close = () => {
    server.closeAllConnections();
    server.close();
  };
  return Object.assign(scripted, { port, close });
}

export async function askAt(url: string, fields: object = {}) {
  const deltas: Delta[] = [];
  const engine = await RemoteEngine.connect({ url, ...fields }, { onDelta: (delta) => void deltas.push(delta) });
  const params = chatParams.parse({ stream: 's', messages: [{ role: 'user', content: 'hi' }] });
  return { engine, deltas, chat: () => engine.chat(params) };
}
