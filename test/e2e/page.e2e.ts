/** The chat's page in a real browser with its real CSP: hostile answers, keyboard, screen readers. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import type { ToHost, ToPage } from '../../extension/messages.ts';
import { payloads } from '../unit/media/payloads.ts';
import { openPage, post, type ServedPage, servePage } from './chatPage.ts';
import { launchBrowser } from './editor.ts';
import { answeredTurn, everything, figures, longPath } from './scenes.ts';

declare global {
  interface Window {
    sent: ToHost[];
    pwned?: unknown;
  }
}

const { browser: executablePath } = inject('prepared');
const reason = executablePath === '' ? ' (skipped: no Chromium, Chrome or Edge is installed)' : '';

/** Streams one payload in two halves into every place that shows text, then clicks and hovers everything. */
async function suffer(page: Page, payload: string): Promise<void> {
  const half = Math.floor(payload.length / 2);
  const turn = 't';
  const running = { kind: 'running', note: payload } as const;
  const chips = [{ id: payload, label: payload, detail: payload, tokens: 1 }];
  const citations = [{ text: payload, path: payload, line: 1, endLine: 1 }];
  const step = { id: '0', title: payload, text: payload, state: 'asks', result: payload } as const;
  const context = { chips, omitted: [payload], citations, missing: [payload], steps: [step] };
  const file = {
    id: payload,
    kind: 'rename',
    path: payload,
    to: payload,
    added: 1,
    removed: 1,
    state: 'proposed',
  } as const;
  const empty = { id: turn, kind: 'chat', question: payload, thinking: '', answer: '', model: payload } as const;
  const before: ToPage[] = [
    { type: 'conversation', turns: [{ ...empty, ...context, outcome: running }] },
    { type: 'changes', turn, changes: { files: [file], isRestorable: true } },
    { type: 'notice', notice: { kind: 'problem', text: payload, actions: ['retry'] } },
    { type: 'context', context: { chips, addable: payload, restricted: false, pinnedTokens: 0 } },
    { type: 'delta', turn, kind: 'thinking', text: payload },
    { type: 'delta', turn, kind: 'text', text: payload.slice(0, half) },
  ];
  const after: ToPage[] = [
    { type: 'delta', turn, kind: 'text', text: payload.slice(half) },
    { type: 'end', turn, outcome: { kind: 'failed', message: payload, actions: ['retry'] } },
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

describe.skipIf(executablePath === '')(`the chat page in a browser${reason}`, () => {
  let served: ServedPage;
  let browser: Browser;
  let page: Page;
  const requests: string[] = [];
  beforeAll(async () => {
    served = await servePage();
    browser = await launchBrowser(executablePath);
    page = await openPage(browser, served.origin, (url) => requests.push(url));
  });
  afterAll(async () => {
    await browser?.close();
    served?.server.close();
  });

  test('loads and runs nothing and offers only web links, whatever an answer contains', async () => {
    const own = [`${served.origin}/`, `${served.origin}/chat.css`, `${served.origin}/chat.js`];
    expect(requests.sort()).toEqual(own);
    for (const payload of payloads) await suffer(page, payload);
    expect(payloads.length).toBeGreaterThanOrEqual(200);
    // Fonts of formulas are the page's own.
    const others = requests.filter((url) => !/\/fonts\/KaTeX_[\w-]+\.woff2$/.test(url));
    expect(others.sort()).toEqual(own);
    for (const url of [...requests, ...served.asked]) expect(new URL(url, served.origin).origin).toBe(served.origin);
    expect(page.url()).toBe(`${served.origin}/`);
    expect(page.context().pages()).toHaveLength(1);
    const { pwned, sent } = await page.evaluate(() => ({ pwned: window.pwned, sent: window.sent }));
    expect(pwned).toBeUndefined();
    const links = sent.flatMap((message) => (message.type === 'open-link' ? [message.href] : []));
    expect(links.length).toBeGreaterThan(0);
    expect(links.filter((href) => !/^https?:\/\//.test(href))).toEqual([]);
    expect(sent.filter((message) => message.type === 'page-error')).toEqual([]);
  });

  const diagram = (source: string): ToPage => ({
    type: 'conversation',
    turns: [
      { ...answeredTurn, answer: `Before\n\n\`\`\`mermaid\n${source}\n\`\`\`\n\nafter`, citations: [], missing: [] },
    ],
  });

  test('typesets formulas with its own fonts, and draws diagrams as pictures, within its CSP', async () => {
    const violations: string[] = [];
    page.on('console', (message) => {
      if (/Content Security Policy/.test(message.text())) violations.push(message.text());
    });
    const answer = String.raw`Inline $a^2+b^2=c^2$ and $$\int_0^1 \frac{x}{2}\,dx$$`;
    await post(page, [{ type: 'conversation', turns: [{ ...answeredTurn, answer }] }]);
    await page.locator('.formula.display .katex').waitFor();
    await expect.poll(() => page.evaluate(() => document.fonts.check('16px KaTeX_Main'))).toBe(true);
    // A fraction under an integral sign is three lines high.
    const height = await page.locator('.formula.display').evaluate((each) => each.getBoundingClientRect().height);
    expect(height).toBeGreaterThan(35);
    expect(violations).toEqual([]);
    await post(page, [diagram('flowchart LR\n  A[Start] --> B{Choice}\n  B -->|yes| C[End]')]);
    const picture = page.locator('.diagram img');
    await picture.waitFor();
    expect(await picture.evaluate((image: HTMLImageElement) => image.naturalWidth)).toBeGreaterThan(100);
    expect(await page.locator('.code pre').isVisible()).toBe(false);
    await page.screenshot({ path: 'test/e2e/results/diagram.png' });
    await page.locator('[data-action=source]').click();
    expect(await page.locator('.code pre').textContent()).toContain('Start');
  });

  test.each([
    ['a mistake', 'flowchart LR\n  A[Start --> B', '.diagram-problem'],
    ['too many edges', `flowchart LR\n${'A --> B\n'.repeat(300)}`, '.diagram-problem'],
    ['too much source', `flowchart LR\n${'A[a long name of a node]\n'.repeat(500)}`, '.diagram-problem'],
  ])('shows the source of a diagram with %s', async (_, source, shown) => {
    await post(page, [diagram(source)]);
    await page.locator(`.code ${shown}`).waitFor();
    expect(await page.locator('.code pre').isVisible()).toBe(true);
    expect(await page.locator('.diagram').count()).toBe(0);
  });

  test('draws diagrams in a frame that cannot reach the page and is removed some seconds later', async () => {
    await post(page, [diagram('flowchart LR\n  A --> B')]);
    await page.locator('.diagram img').waitFor();
    const frame = page.frames().at(-1);
    expect(frame).not.toBe(page.mainFrame());
    expect(await frame?.evaluate(() => window.origin)).toBe('null');
    // As if a diagram ran a script: the page must not accept its messages as the extension's.
    await frame?.evaluate(() => window.parent.postMessage({ type: 'conversation', turns: [] }, '*'));
    await post(page, []);
    expect(await page.locator('.turn').count()).toBe(1);
    await expect.poll(() => page.locator('.diagram-frame').count(), { timeout: 30_000 }).toBe(0);
  });

  test.each([
    'flowchart LR\n  A["<img src=x onerror=window.pwned=1>"] --> B',
    'flowchart LR\n  A["<img src=AWAY/a.png>"] --> B',
    'flowchart LR\n  A --> B\n  click A "javascript:window.pwned=1"\n  click B call alert()',
    '%%{init: {"securityLevel": "loose", "htmlLabels": true, "themeCSS": "* { background: url(AWAY/a.png) }"}}%%\nflowchart LR\n  A["<b onclick=window.pwned=1>x</b>"]',
    '%%{init: {"theme": "base", "themeVariables": {"fontFamily": "x; background: url(AWAY/f)", "primaryColor": "url(AWAY/c)"}}}%%\nflowchart LR\n  A --> B',
    'flowchart LR\n  A --> B\n  style A fill:url(AWAY/x)\n  classDef c background:url(AWAY/y)',
    'flowchart LR\n  A@{ img: "AWAY/a.png" }',
    'sequenceDiagram\n  Alice->>Bob: <script>window.pwned=1</script>',
  ])('runs and loads nothing from a diagram: %s', async (source) => {
    let asked = 0;
    const away = createServer((_, response) => {
      asked += 1;
      response.setHeader('access-control-allow-origin', '*').end();
    }).listen(0, '127.0.0.1');
    await once(away, 'listening');
    const address = away.address();
    const origin = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
    try {
      await post(page, [diagram(source.replaceAll('AWAY', origin))]);
      await page.locator('.diagram img, .diagram-problem').first().waitFor();
      expect(await page.evaluate(() => window.pwned)).toBeUndefined();
      expect(asked).toBe(0);
      await post(page, [diagram('pie\n  "A" : 1\n  "B" : 2')]);
      await page.locator('.diagram img[alt*=pie]').waitFor();
      // Without the policy the server can be reached.
      expect((await fetch(`${origin}/a.png`)).ok && asked).toBe(1);
    } finally {
      away.closeAllConnections();
      away.close();
    }
  });

  const sent = () => page.evaluate(() => window.sent.splice(0));

  test('names everything for screen readers, and announces a complete answer', async () => {
    await page.setViewportSize({ width: 320, height: 700 });
    await post(page, everything);
    const log = page.getByRole('log', { name: 'conversation' });
    const turn = log.getByRole('article');
    for (const heading of ['you', 'answer']) await turn.getByRole('heading', { name: heading }).waitFor();
    await turn.getByRole('list', { name: 'sentLabel' }).getByRole('button').waitFor();
    await turn.getByRole('link', { name: `${longPath}:12` }).waitFor();
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
    await post(page, [{ type: 'end', turn: 'n', outcome }]);
    await expect.poll(() => page.locator('#announcer[aria-live=polite]').textContent()).toContain('answered In `');
    await post(page, [
      { type: 'end', turn: 'n', outcome: { kind: 'failed', message: 'It broke.', actions: ['retry'] } },
    ]);
    await turn.getByRole('alert').getByRole('button', { name: 'retry' }).waitFor();
  });

  test.each(['vscode-dark', 'vscode-high-contrast'])(
    'is traversed by Tab in reading order, with a visible focus: %s',
    async (theme) => {
      await page.evaluate((name) => {
        document.body.className = name;
      }, theme);
      await post(page, everything);
      await page.locator('.figures').waitFor();
      // Send is disabled while the box is empty.
      await page.locator('#question').fill('Why?');
      await page.evaluate(() => {
        document.documentElement.style.setProperty('--vscode-focusBorder', 'rgb(1, 2, 3)');
        document.querySelector<HTMLElement>('main')?.focus();
      });
      const walk: string[] = [];
      const unseen: string[] = [];
      for (;;) {
        await page.keyboard.press('Tab');
        const [label, visible] = await page.evaluate(async () => {
          // By then the page has handled the scroll event.
          for (let i = 0; i < 2; i++) await new Promise((resolve) => requestAnimationFrame(resolve));
          const focused = document.activeElement;
          if (!(focused instanceof HTMLElement)) return ['', false] as const;
          const { outlineStyle, outlineColor } = getComputedStyle(focused);
          const frame = focused.id === 'question' ? focused.closest('.composer') : null;
          // The box has no outline; its frame shows the focus.
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
        ...['edit', 'file_with_a_long_name.ts', 'thoughts', `${longPath}:12`],
        ...['apply', 'insert', 'copy', `const a = '${'x'.repeat(90)}';`],
        // Wide code and tables scroll by keyboard.
        ...[expect.stringContaining('y'.repeat(80)), 'copyAnswer', 'regenerate', 'fork'],
        ...['choose-model', 'show-log', 'trust', 'unpin', 'pin', 'removeChip', 'addChip'],
        ...['placeholder', 'chooseModel: A model with a long name', 'thinkingMode', 'agentOn', 'send'],
      ]);
      expect(unseen).toEqual([]);
    },
  );

  test('works by keyboard alone: ask, mention, recall, edit, stop', async () => {
    await post(page, everything);
    const box = page.locator('#question');
    await box.fill('');
    await page.keyboard.press('ArrowUp');
    expect(await box.inputValue()).toBe(`Why does ${longPath} fail?`);
    await box.fill('');
    await page.keyboard.type('Fix @f');
    const item = (label: string) => ({ kind: 'file', label, detail: '', text: `@file:${label}`, open: false }) as const;
    await expect.poll(sent).toContainEqual({ type: 'suggest', query: 'f' });
    await post(page, [{ type: 'suggestions', query: 'f', items: [item('a.ts'), item('b.ts')] }]);
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
    await post(page, [{ type: 'conversation', turns: [{ ...answeredTurn, outcome: { kind: 'running', note: '' } }] }]);
    await page.locator('#stop').waitFor();
    await page.keyboard.press('Escape');
    await expect.poll(sent).toContainEqual({ type: 'action', action: 'stop' });
    await post(page, everything);
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
