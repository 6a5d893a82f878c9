/** Serves the chat's page on loopback with its real CSP, for tests that need no editor. */
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import { build } from 'esbuild';
import type { Browser, Page } from 'playwright-core';
import { chatPage } from '../../extension/chat/html.ts';
import { action, type ToHost, type ToPage, texts } from '../../extension/messages.ts';
import { projectRoot } from '../../scripts/shared/paths.ts';

export interface ServedPage {
  server: Server;
  origin: string;
  /** Every requested path. */
  asked: string[];
}

/** Each text is its own name. */
const namedTexts = texts.parse({
  ...Object.fromEntries(Object.keys(texts.shape).map((key) => [key, key])),
  examples: ['one', 'two', 'three'],
  actions: Object.fromEntries(action.options.map((name) => [name, name])),
});

export async function servePage(): Promise<ServedPage> {
  const entryPoints = [join(projectRoot, 'media', 'chat.ts')];
  const built = await build({ entryPoints, bundle: true, write: false, outdir: 'out', format: 'iife' });
  const file = (suffix: string) => built.outputFiles.find(({ path }) => path.endsWith(suffix))?.text ?? '';
  const where = { scriptUri: '/chat.js', styleUri: '/chat.css', cspSource: "'self'" };
  const asked: string[] = [];
  const server = createServer(({ url = '' }, response) => {
    asked.push(url);
    const type = url.endsWith('.js') ? 'text/javascript' : url.endsWith('.css') ? 'text/css' : 'text/html';
    response.setHeader('content-type', type);
    response.end(url === '/' ? chatPage({ ...where, language: 'en', texts: namedTexts }) : file(url.slice(-4)));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('The server has no port.');
  return { server, origin: `http://127.0.0.1:${address.port}`, asked };
}

/** Messages of the page are in `window.sent`. Its state lives as long as the browser's session, like a webview's. */
export async function openPage(browser: Browser, origin: string, onRequest?: (url: string) => void): Promise<Page> {
  const page = await browser.newPage();
  if (onRequest !== undefined) page.on('request', (request) => onRequest(request.url()));
  await page.addInitScript(() => {
    window.sent = [];
    const postMessage = (message: ToHost) => window.sent.push(message);
    const getState = (): unknown => JSON.parse(sessionStorage.getItem('state') ?? 'null') ?? undefined;
    const setState = (state: unknown) => sessionStorage.setItem('state', JSON.stringify(state));
    Reflect.set(window, 'acquireVsCodeApi', () => ({ postMessage, getState, setState }));
  });
  await page.goto(origin);
  await page.locator('#question').waitFor();
  return page;
}

export const post = (page: Page, messages: readonly ToPage[]): Promise<void> =>
  page.evaluate((all) => {
    for (const message of all) window.postMessage(message, '*');
  }, messages);
