/** What the chat's page does while time goes by: it follows what is written, however fast, and leaves a reader alone. */
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
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
    const turn = { ...answeredTurn, answer: '', thinking: '', citations: [], removedCitations: 0 };
    await post(page, [{ type: 'conversation', turns: [{ ...turn, outcome: { kind: 'running', note: '' } }] }]);
    await page.locator('.turn[data-state=running]').waitFor();
  };
  /** Writes `text` by pieces of a token's size, so many a second, as the extension passes them on. */
  const stream = (text: string, tokensPerSecond: number) =>
    page.evaluate(
      async ([whole, speed]) => {
        const pieces = whole.match(/[\s\S]{1,4}/g) ?? [];
        const startMs = performance.now();
        for (const [index, piece] of pieces.entries()) {
          const delta = { type: 'delta', turn: 'n', kind: 'text', text: piece, tokens: index + 1 } as const;
          window.postMessage(delta, '*');
          const dueMs = startMs + ((index + 1) * 1000) / speed;
          if (dueMs > performance.now()) await new Promise((resolve) => setTimeout(resolve, dueMs - performance.now()));
        }
      },
      [text, tokensPerSecond] as const,
    );
  const end = async () => {
    await post(page, [{ type: 'outcome', turn: 'n', outcome: { kind: 'done', reason: 'stop', figures, dropped: 3 } }]);
    await page.locator('.turn[data-state=done] .figures').waitFor();
  };

  test.each([60, 140, 240, 380])(
    'is at the end of an answer of %i tokens a second when it is complete',
    async (speed) => {
      await begin();
      await stream(answer.slice(0, speed * 8), speed);
      await end();
      expect(await page.locator('.scroller').evaluate((element) => element.scrollHeight)).toBeGreaterThan(700);
      await expect.poll(below).toBeLessThanOrEqual(1);
    },
  );

  test('stays where a reader scrolled to while more is written, and follows again from the end', async () => {
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
    await stream(answer.slice(0, 800), 300);
    await end();
    await expect.poll(below).toBeLessThanOrEqual(1);
  });
});
