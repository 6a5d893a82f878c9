/** The chat's page alone in a real browser, under its real policy: hostile answers, narrow widths, the keyboard, screen readers. */
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import { build } from 'esbuild';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { chatPage } from '../../extension/chat/html.ts';
import { action, type ToHost, type ToPage, type Turn, texts } from '../../extension/messages.ts';
import { projectRoot } from '../../scripts/shared/paths.ts';
import { payloads } from '../unit/media/payloads.ts';
import { launchBrowser } from './editor.ts';

declare global {
  interface Window {
    sent: ToHost[];
    pwned?: unknown;
  }
}

const { browser: executablePath } = inject('prepared');
const reason = executablePath === '' ? ' (skipped: no Chromium, Chrome or Edge is installed)' : '';

/** Each text is its own name. */
const namedTexts = texts.parse({
  ...Object.fromEntries(Object.keys(texts.shape).map((key) => [key, key])),
  examples: ['one', 'two', 'three'],
  actions: Object.fromEntries(action.options.map((name) => [name, name])),
});

async function serve(): Promise<{ server: Server; origin: string; asked: string[] }> {
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

/** One payload in every place that shows text, streamed in two halves; then everything is clicked and hovered. */
async function suffer(page: Page, payload: string): Promise<void> {
  const half = Math.floor(payload.length / 2);
  const turn = 't';
  const running = { kind: 'running', note: payload } as const;
  const chips = [{ id: payload, label: payload, detail: payload, tokens: 1 }];
  const citations = [{ text: payload, path: payload, line: 1, endLine: 1 }];
  const context = { chips, omitted: [payload], citations, missing: [payload] };
  const empty = { id: turn, kind: 'chat', question: payload, thinking: '', answer: '', model: payload } as const;
  const before: ToPage[] = [
    { type: 'conversation', turns: [{ ...empty, ...context, outcome: running }] },
    { type: 'notice', notice: { kind: 'problem', text: payload, actions: ['retry'] } },
    { type: 'context', context: { chips, addable: payload } },
    { type: 'delta', turn, kind: 'thinking', text: payload },
    { type: 'delta', turn, kind: 'text', text: payload.slice(0, half) },
  ];
  const after: ToPage[] = [
    { type: 'delta', turn, kind: 'text', text: payload.slice(half) },
    { type: 'outcome', turn, outcome: { kind: 'failed', message: payload, actions: ['retry'] } },
  ];
  await page.evaluate(
    async ([first, second]) => {
      const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
      for (const message of first ?? []) window.postMessage(message, '*');
      await frame();
      await frame();
      for (const message of second ?? []) window.postMessage(message, '*');
      await frame();
      await frame();
      for (const target of document.querySelectorAll<HTMLElement>('#transcript *, #notice *, #chips *')) {
        target.click?.();
        for (const type of ['auxclick', 'mouseover', 'pointerenter', 'focus', 'toggle']) {
          target.dispatchEvent(new Event(type, { bubbles: true }));
        }
      }
    },
    [before, after],
  );
}

const figures = {
  ...{ promptTokens: 3000, cachedTokens: 900, generatedTokens: 200 },
  ...{ timeToFirstTokenMs: 210, tokensPerSecond: 42 },
};
const name = 'a/very/long/path/to/some/deeply/nested/file_with_a_long_name.ts';
const chips = [{ id: 'file:a', label: 'file_with_a_long_name.ts', detail: 'lines 1 to 20 of 9999', tokens: 1200 }];
const answeredTurn: Turn = {
  ...{ id: 'n', kind: 'chat', question: `Why does ${name} fail?`, chips, omitted: ['b.ts: no room'], model: 'M' },
  thinking: 'Hm.',
  answer: `In \`${name}:12\` and gone.ts:1.\n\n\`\`\`ts\nconst a = '${'x'.repeat(90)}';\n\`\`\`\n\n| a | b |\n|---|---|\n| ${'y'.repeat(80)} | z |`,
  citations: [{ text: `${name}:12`, path: name, line: 12, endLine: 12 }],
  missing: ['gone.ts:1'],
  outcome: { kind: 'done', reason: 'stop', figures, dropped: 3 },
};
/** One of each thing that the page can show. */
const everything: ToPage[] = [
  { type: 'conversation', turns: [answeredTurn] },
  {
    type: 'notice',
    notice: { kind: 'problem', text: 'The model does not fit.', actions: ['choose-model', 'show-log'] },
  },
  { type: 'context', context: { chips, addable: 'other.ts' } },
  {
    type: 'controls',
    controls: {
      ...{ model: 'A model with a long name', modelDetail: '', contextTokens: 8192 },
      ...{ thinking: 'Medium', thinkingOn: true, canThink: true },
    },
  },
];

describe.skipIf(executablePath === '')(`the chat page in a browser${reason}`, () => {
  let served: Awaited<ReturnType<typeof serve>>;
  let browser: Browser;
  let page: Page;
  const requests: string[] = [];
  beforeAll(async () => {
    served = await serve();
    browser = await launchBrowser(executablePath);
    page = await browser.newPage();
    page.on('request', (request) => requests.push(request.url()));
    await page.addInitScript(() => {
      window.sent = [];
      const postMessage = (message: ToHost) => window.sent.push(message);
      Reflect.set(window, 'acquireVsCodeApi', () => ({ postMessage, getState: () => undefined, setState: () => {} }));
    });
    await page.goto(served.origin);
    await page.locator('#question').waitFor();
  });
  afterAll(async () => {
    await browser?.close();
    served?.server.close();
  });

  test('loads nothing, runs nothing and offers only links of the web, whatever an answer holds', async () => {
    const own = [`${served.origin}/`, `${served.origin}/chat.css`, `${served.origin}/chat.js`];
    expect(requests.sort()).toEqual(own);
    for (const payload of payloads) await suffer(page, payload);
    expect(payloads.length).toBeGreaterThanOrEqual(200);
    expect(requests).toEqual(own);
    expect(served.asked.sort()).toEqual(['/', '/chat.css', '/chat.js']);
    expect(page.url()).toBe(`${served.origin}/`);
    expect(page.context().pages()).toHaveLength(1);
    const { pwned, sent } = await page.evaluate(() => ({ pwned: window.pwned, sent: window.sent }));
    expect(pwned).toBeUndefined();
    const links = sent.flatMap((message) => (message.type === 'open-link' ? [message.href] : []));
    expect(links.length).toBeGreaterThan(0);
    expect(links.filter((href) => !/^https?:\/\//.test(href))).toEqual([]);
    expect(sent.filter((message) => message.type === 'page-error')).toEqual([]);
  });

  test.each(['vscode-dark', 'vscode-light', 'vscode-high-contrast'])(
    'stays usable down to 170 pixels: nothing is cut off, every control has a size and a name: %s',
    async (theme) => {
      await page.evaluate(
        ([messages, name]) => {
          document.body.className = name;
          for (const message of messages) window.postMessage(message, '*');
        },
        [everything, theme] as const,
      );
      await page.locator('.citation').waitFor();
      for (const width of [600, 320, 250, 170]) {
        await page.setViewportSize({ width, height: 700 });
        const found = await page.evaluate(() => {
          const shown = [...document.querySelectorAll<HTMLElement>('button, textarea, .chip, .remark, .question-text')];
          const visible = shown.filter((element) => element.checkVisibility());
          const inside = ({ left, right }: DOMRect) => left >= 0 && right <= window.innerWidth;
          return {
            controls: visible.length,
            cut: visible
              .filter((element) => !inside(element.getBoundingClientRect()))
              .map((e) => e.outerHTML.slice(0, 90)),
            nameless: visible.filter((e) => e.matches('button') && !(e.getAttribute('aria-label') ?? e.textContent)),
            overflow: document.documentElement.scrollWidth - window.innerWidth,
          };
        });
        expect(found, `${width} pixels`).toMatchObject({ cut: [], nameless: [], overflow: 0 });
        expect(found.controls).toBeGreaterThan(10);
        await page.screenshot({ path: join(projectRoot, 'test', 'e2e', 'results', `page-${theme}-${width}.png`) });
      }
    },
  );

  const post = (messages: readonly ToPage[]) =>
    page.evaluate((all) => {
      for (const message of all) window.postMessage(message, '*');
    }, messages);
  const sent = () => page.evaluate(() => window.sent.splice(0));

  test('tells screen readers what everything is, and when an answer is complete', async () => {
    await page.setViewportSize({ width: 320, height: 700 });
    await post(everything);
    const log = page.getByRole('log', { name: 'conversation' });
    const turn = log.getByRole('article');
    for (const heading of ['you', 'answer']) await turn.getByRole('heading', { name: heading }).waitFor();
    await turn.getByRole('list', { name: 'sentLabel' }).getByRole('button').waitFor();
    await turn.getByRole('link', { name: `${name}:12` }).waitFor();
    await turn.getByRole('table').waitFor();
    for (const button of ['edit', 'apply', 'insert', 'copy', 'copyAnswer', 'regenerate'])
      await turn.getByRole('button', { name: button, exact: true }).waitFor();
    const box = page.getByRole('combobox', { name: 'placeholder' });
    await box.waitFor();
    await page.getByRole('list', { name: 'contextLabel' }).waitFor();
    await page.getByRole('img', { name: 'usage' }).waitFor();
    await page.getByRole('button', { name: 'chooseModel: A model with a long name' }).waitFor();
    await page.getByRole('button', { name: 'thinkingMode', pressed: true }).waitFor();
    const outcome = { kind: 'done', reason: 'stop', figures, dropped: 0 } as const;
    await post([{ type: 'outcome', turn: 'n', outcome }]);
    await expect.poll(() => page.locator('#announcer[aria-live=polite]').textContent()).toContain('answered In `');
    await post([{ type: 'outcome', turn: 'n', outcome: { kind: 'failed', message: 'It broke.', actions: ['retry'] } }]);
    await turn.getByRole('alert').getByRole('button', { name: 'retry' }).waitFor();
  });

  test.each(['vscode-dark', 'vscode-high-contrast'])(
    'is walked through by Tab as it is read, and shows where the focus is: %s',
    async (theme) => {
      await page.evaluate((name) => {
        document.body.className = name;
      }, theme);
      await post(everything);
      await page.locator('.figures').waitFor();
      // Nothing can be sent while nothing is asked.
      await page.locator('#question').fill('Why?');
      await page.evaluate(() => {
        document.documentElement.style.setProperty('--vscode-focusBorder', 'rgb(1, 2, 3)');
        document.querySelector<HTMLElement>('main')?.focus();
      });
      const walk: string[] = [];
      const unseen: string[] = [];
      for (;;) {
        await page.keyboard.press('Tab');
        const [label, visible] = await page.evaluate(() => {
          const focused = document.activeElement;
          if (!(focused instanceof HTMLElement)) return ['', false] as const;
          const { outlineStyle, outlineColor } = getComputedStyle(focused);
          const frame = focused.id === 'question' ? focused.closest('.composer') : null;
          // The box has no outline of its own: its frame has the colour.
          const mark =
            frame === null ? outlineStyle !== 'none' && outlineColor : getComputedStyle(frame).borderTopColor;
          const shown = mark === 'rgb(1, 2, 3)';
          return [focused.getAttribute('aria-label') ?? focused.textContent ?? '', shown] as const;
        });
        if (walk.includes(label) || walk.length > 40) break;
        walk.push(label);
        if (!visible) unseen.push(label);
        if (label === 'send') break;
      }
      expect(walk).toEqual([
        ...['edit', 'file_with_a_long_name.ts', 'thoughts', `${name}:12`],
        ...['apply', 'insert', 'copy', `const a = '${'x'.repeat(90)}';`],
        // What is wider than the view is scrolled by the keys.
        ...[expect.stringContaining('y'.repeat(80)), 'copyAnswer', 'regenerate'],
        ...['choose-model', 'show-log', 'removeChip', 'addChip'],
        ...['placeholder', 'chooseModel: A model with a long name', 'thinkingMode', 'send'],
      ]);
      expect(unseen).toEqual([]);
    },
  );

  test('is used by the keyboard alone: asking, choosing a mention, recalling, editing, stopping', async () => {
    await post(everything);
    const box = page.locator('#question');
    await box.fill('');
    await page.keyboard.press('ArrowUp');
    expect(await box.inputValue()).toBe(`Why does ${name} fail?`);
    await box.fill('');
    await page.keyboard.type('Fix @f');
    const item = (label: string) => ({ kind: 'file', label, detail: '', text: `@file:${label}`, open: false }) as const;
    await expect.poll(sent).toContainEqual({ type: 'suggest', query: 'f' });
    await post([{ type: 'suggestions', query: 'f', items: [item('a.ts'), item('b.ts')] }]);
    await page.getByRole('option', { name: 'a.ts', selected: true }).waitFor();
    expect(await box.getAttribute('aria-expanded')).toBe('true');
    await page.keyboard.press('ArrowDown');
    const active = await box.getAttribute('aria-activedescendant');
    expect(await page.getByRole('option', { name: 'b.ts', selected: true }).getAttribute('id')).toBe(active);
    await page.keyboard.press('Enter');
    expect(await box.inputValue()).toBe('Fix @file:b.ts ');
    expect(await box.getAttribute('aria-expanded')).toBe('false');
    await page.keyboard.press('Shift+Enter');
    await page.keyboard.type('now');
    await page.keyboard.press('Enter');
    await expect.poll(sent).toContainEqual({ type: 'send', text: 'Fix @file:b.ts \nnow' });
    await post([{ type: 'conversation', turns: [{ ...answeredTurn, outcome: { kind: 'running', note: '' } }] }]);
    await page.locator('#stop').waitFor();
    await page.keyboard.press('Escape');
    await expect.poll(sent).toContainEqual({ type: 'stop' });
    await post(everything);
    await page.locator('.edit').focus();
    await page.keyboard.press('Enter');
    await page.locator('.question-edit:focus').fill('Why?');
    await page.keyboard.press('Escape');
    await page.locator('.edit:focus').press('Enter');
    await page.locator('.question-edit:focus').fill('How?');
    await page.keyboard.press('Enter');
    await expect.poll(sent).toContainEqual({ type: 'resend', turn: 'n', text: 'How?' });
  });
});
