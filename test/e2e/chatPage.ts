/** Serves the chat's page on loopback with its real CSP, for tests that need no editor. */
import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { extname, join } from 'node:path';
import { build } from 'esbuild';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { z } from 'zod';
import { chatPage } from '../../extension/chat/html.ts';
import { pageTexts } from '../../extension/chat/pages.ts';
import { action, type Texts, type ToHost, type ToPage, texts } from '../../extension/messages.ts';
import { projectRoot } from '../../scripts/shared/paths.ts';
import { translations } from '../unit/extension/vscode.ts';

export interface ServedPage {
  server: Server;
  origin: string;
  /** Every requested path. */
  asked: string[];
}

/** Each text is its key. */
const namedTexts = texts.parse({
  ...Object.fromEntries(Object.keys(texts.shape).map((key) => [key, key])),
  examples: ['one', 'two', 'three'],
  actions: Object.fromEntries(action.options.map((name) => [name, name])),
});

/** The page's texts as a user of that language reads them. */
export function textsIn(language: string): Texts {
  const path = join(projectRoot, 'l10n', `bundle.l10n.${language}.json`);
  const bundle = z.record(z.string(), z.string()).parse(JSON.parse(readFileSync(path, 'utf8')));
  for (const [english, translated] of Object.entries(bundle)) translations.set(english, translated);
  try {
    return pageTexts();
  } finally {
    translations.clear();
  }
}

export async function servePage(shown: Texts = namedTexts, language = 'en'): Promise<ServedPage> {
  const common = {
    ...({ bundle: true, write: false, outdir: 'out', format: 'iife', assetNames: 'fonts/[name]' } as const),
    loader: { '.woff2': 'file', '.woff': 'empty', '.ttf': 'empty' } as const,
  };
  // As in esbuild.mjs.
  const asFunction = { banner: { js: 'globalThis.hearthDiagrams = () => {' }, footer: { js: '};' } };
  const built = await Promise.all([
    build({ ...common, entryPoints: [join(projectRoot, 'media/chat.ts')] }),
    build({ ...common, ...asFunction, entryPoints: [join(projectRoot, 'media/diagrams.ts')] }),
  ]);
  const files = built.flatMap(({ outputFiles }) => outputFiles);
  const where = { scriptUri: '/chat.js', styleUri: '/chat.css', diagramsUri: '/diagrams.js', cspSource: "'self'" };
  const asked: string[] = [];
  const types: Readonly<Record<string, string>> = {
    '.js': 'text/javascript',
    '.css': 'text/css',
    '.woff2': 'font/woff2',
  };
  const server = createServer(({ url = '' }, response) => {
    asked.push(url);
    const file = files.find(({ path }) => url !== '/' && path.endsWith(url));
    response.setHeader('content-type', types[extname(url)] ?? 'text/html');
    response.end(file?.contents ?? chatPage({ ...where, language, texts: shown }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('The server has no port.');
  return { server, origin: `http://127.0.0.1:${address.port}`, asked };
}

/** Messages of the page are in `window.sent`. Its state lives as long as the browser's session, like a webview's. */
export async function openPage(
  browser: Browser,
  origin: string,
  onRequest?: (url: string) => void,
  options: BrowserContextOptions = {},
): Promise<Page> {
  const page = await browser.newPage(options);
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

/** Posts messages to the page, and waits until it has handled them: `postMessage` alone delivers them later. */
export async function post(page: Page, messages: readonly ToPage[]): Promise<void> {
  await hold(page, [messages]);
  await postHeld(page, 0);
}

const held = 'messagesOfTheTest';

/** Transfers groups of messages into the page without posting them, because the transfer would be a task of the page. */
export const hold = (page: Page, groups: readonly (readonly ToPage[])[]): Promise<void> =>
  page.evaluate(([name, all]) => void Reflect.set(window, name, all), [held, groups] as const);

/** Posts a group of `hold`, as `post` does. */
export const postHeld = (page: Page, group: number): Promise<void> =>
  page.evaluate(
    ([name, index]) =>
      new Promise<void>((resolve) => {
        const all: readonly unknown[] = Reflect.get(window, name)[index];
        let handled = 0;
        const count = () => {
          handled++;
          if (handled < all.length) return;
          window.removeEventListener('message', count);
          resolve();
        };
        if (all.length === 0) return resolve();
        // Listeners run in the order of their registration, so the page's own came before.
        window.addEventListener('message', count);
        for (const message of all) window.postMessage(message, '*');
      }),
    [held, group] as const,
  );
