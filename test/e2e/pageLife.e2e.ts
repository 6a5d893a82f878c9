/** Scrolling of the chat's page: it follows an answer at any speed, and stays where the user scrolled to. */
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import type { ToPage } from '../../extension/messages.ts';
import { openPage, post, type ServedPage, servePage } from './chatPage.ts';
import { launchBrowser } from './editor.ts';
import { answeredTurn, figures } from './scenes.ts';

const { browser: executablePath } = inject('prepared');
const reason = executablePath === '' ? ' (skipped: no Chromium, Chrome or Edge is installed)' : '';

const paragraph = 'Some words that a model wrote, and `code.ts:1`, in a line that is broken.\n\n';
const block = '```ts\nexport function light(lamp: Lamp): void {\n  lamp.on = true;\n}\n```\n\n';
const list = '1. one\n2. two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n';
const answer = Array.from({ length: 12 }, () => paragraph + block + list).join('');

describe.skipIf(executablePath === '')(`the chat page over time${reason}`, () => {
  let served: ServedPage;
  let browser: Browser;
  let page: Page;
  beforeAll(async () => {
    served = await servePage();
    browser = await launchBrowser(executablePath);
    page = await openPage(browser, served.origin);
    await page.setViewportSize({ width: 320, height: 600 });
  });
  afterAll(async () => {
    await browser?.close();
    served?.server.close();
  });

  const below = () =>
    page
      .locator('.scroller')
      .evaluate(({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight);

  const begin = async () => {
    const turn = { ...answeredTurn, answer: '', thinking: '', citations: [], missing: [] };
    await post(page, [{ type: 'conversation', turns: [{ ...turn, outcome: { kind: 'running', note: '' } }] }]);
    await page.locator('.turn[data-state=running]').waitFor();
  };
  /** Streams `text` in token-sized deltas at that speed; `last` follows at once. */
  const stream = (text: string, tokensPerSecond: number, last: readonly ToPage[] = []) =>
    page.evaluate(
      async ([whole, speed, after]) => {
        const pieces = whole.match(/[\s\S]{1,4}/g) ?? [];
        const startMs = performance.now();
        for (const [index, piece] of pieces.entries()) {
          const delta = { type: 'delta', turn: 'n', kind: 'text', text: piece, tokens: index + 1 } as const;
          window.postMessage(delta, '*');
          const dueMs = startMs + ((index + 1) * 1000) / speed;
          if (dueMs > performance.now()) {
            await new Promise((resolve) => setTimeout(resolve, dueMs - performance.now()));
          }
        }
        for (const message of after) window.postMessage(message, '*');
      },
      [text, tokensPerSecond, last] as const,
    );
  const ended: ToPage = {
    type: 'end',
    turn: 'n',
    outcome: { kind: 'done', reason: 'length', figures, dropped: 3 },
  };
  const untilEnded = () => page.locator('.turn[data-state=done] .figures').waitFor();

  // Last text, remarks and scrolling rarely fall into one frame.
  test.each([140, 380])('follows eight answers of %i tokens a second to their end', async (speed) => {
    const short: number[] = [];
    for (let index = 0; index < 8; index++) {
      await begin();
      await stream(answer.slice(0, 900 + index * 23), speed, [ended]);
      await untilEnded();
      await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 100)));
      const missing = await below();
      if (missing > 1) short.push(missing);
    }
    expect(short).toEqual([]);
  });

  test('stays where the user scrolled to, and follows again from the end', async () => {
    await begin();
    await stream(answer, 4_000);
    await expect.poll(below).toBeLessThanOrEqual(1);
    await page.mouse.move(160, 200);
    const writing = stream(answer, 300);
    await page.mouse.wheel(0, -400);
    await page.locator('.to-end').waitFor();
    const top = () => page.locator('.scroller').evaluate(({ scrollTop }) => scrollTop);
    const read = await top();
    await writing;
    expect(await top()).toBe(read);
    expect(await below()).toBeGreaterThan(400);
    await page.locator('.to-end').click();
    await expect.poll(below).toBeLessThanOrEqual(1);
    await stream(answer.slice(0, 800), 300, [ended]);
    await untilEnded();
    await expect.poll(below).toBeLessThanOrEqual(1);
  });
});
