/** The chat's page is usable down to 170 pixels in every theme, whatever fonts a machine has. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { projectRoot } from '../../scripts/shared/paths.ts';
import { openPage, post, type ServedPage, servePage, textsIn } from './chatPage.ts';
import { launchBrowser } from './editor.ts';
import { families, useFont } from './fonts.ts';
import { scenes } from './scenes.ts';

const { browser: executablePath } = inject('prepared');
const reason = executablePath === '' ? ' (skipped: no Chromium, Chrome or Edge is installed)' : '';

/** The classes of a webview's body in VS Code. */
const themes = {
  dark: 'vscode-dark',
  light: 'vscode-light',
  'high-contrast': 'vscode-high-contrast',
  'high-contrast-light': 'vscode-high-contrast vscode-high-contrast-light',
};
const widths = [600, 320, 250, 170];
/** `HEARTH_PICTURES=1` also takes a picture of every scene at every width, for review. They take half of the time. */
const pictures = process.env['HEARTH_PICTURES'] === '1' ? join(projectRoot, 'test', 'e2e', 'results', 'layout') : '';

/** Elements that are cut off, have no name, or lose text without an ellipsis. */
function faults() {
  const seen =
    'button, textarea, summary, .chip, .remark, .omitted, .question-text, .link, .card, .figures, .control-label, h2, p';
  const visible = [...document.querySelectorAll<HTMLElement>(seen)].filter(
    (element) =>
      element.checkVisibility() &&
      element.closest('.visually-hidden, .code pre, .table-scroll') === null &&
      element.getClientRects().length > 0,
  );
  const named = (element: HTMLElement) => element.outerHTML.slice(0, 90);
  const cut = visible.filter((element) => {
    const { left, right } = element.getBoundingClientRect();
    return left < 0 || right > window.innerWidth;
  });
  const lost = visible.filter((element) => {
    const { overflowX, textOverflow } = getComputedStyle(element);
    return element.scrollWidth > element.clientWidth + 1 && overflowX !== 'visible' && textOverflow !== 'ellipsis';
  });
  const nameless = visible.filter((e) => e.matches('button') && !(e.getAttribute('aria-label') ?? e.textContent));
  return {
    controls: visible.filter((element) => element.matches('button, textarea')).length,
    cut: cut.map(named),
    lost: lost.map(named),
    nameless: nameless.map(named),
    overflow: document.documentElement.scrollWidth - window.innerWidth,
  };
}

describe.skipIf(executablePath === '')(`the chat page at every width${reason}`, () => {
  let served: ServedPage;
  let browser: Browser;
  let page: Page;
  beforeAll(async () => {
    if (pictures !== '') mkdirSync(pictures, { recursive: true });
    served = await servePage();
    browser = await launchBrowser(executablePath);
  });
  afterAll(async () => {
    await browser?.close();
    served?.server.close();
  });
  beforeEach(async () => {
    page = await openPage(browser, served.origin);
  });
  afterEach(() => page?.close());

  const cases = families.flatMap((family) => Object.keys(themes).map((theme) => [family, theme] as const));
  test.each(cases)('cuts nothing off and names every control, in %s, %s', async (family, theme) => {
    await useFont(page, family);
    await page.evaluate(
      (name) => {
        document.body.className = name;
      },
      themes[theme as keyof typeof themes],
    );
    await fitsEverywhere(page, `${family}-${theme}`);
  });
});

/** A display zoomed to 200 %, in the languages with the longest words and the widest letters, and in the others. */
describe.skipIf(executablePath === '')(`the chat page in other languages${reason}`, () => {
  let browser: Browser;
  beforeAll(async () => {
    if (pictures !== '') mkdirSync(pictures, { recursive: true });
    browser = await launchBrowser(executablePath);
  });
  afterAll(() => browser?.close());

  test.each(['de', 'zh-cn', 'ja', 'fr', 'es'])('cuts nothing off in %s', async (language) => {
    const served = await servePage(textsIn(language), language);
    const page = await openPage(browser, served.origin, undefined, { deviceScaleFactor: 2 });
    try {
      await page.evaluate(() => {
        document.body.className = 'vscode-dark';
      });
      await fitsEverywhere(page, language);
    } finally {
      await page.close();
      served.server.close();
    }
  });
});

/** Observers of sizes run before the next frame, and the window's size arrives with it. */
const drawn = (page: Page): Promise<void> =>
  page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done()))));

async function fitsEverywhere(page: Page, picture: string): Promise<void> {
  for (const [name, { messages, shows, act, after = [] }] of Object.entries(scenes)) {
    await page.setViewportSize({ width: 320, height: 700 });
    await post(page, messages);
    await page.locator(shows).first().waitFor();
    await act?.(page);
    await post(page, after);
    for (const width of widths) {
      await page.setViewportSize({ width, height: 700 });
      await drawn(page);
      const { controls, ...found } = await page.evaluate(faults);
      if (pictures !== '') await page.screenshot({ path: join(pictures, `${name}-${picture}-${width}.png`) });
      // The message holds what was found: reports of continuous integration cut the difference.
      const where = `${name} at ${width} pixels: ${JSON.stringify(found)}`;
      expect(found, where).toEqual({ cut: [], lost: [], nameless: [], overflow: 0 });
      expect(controls).toBeGreaterThan(3);
    }
  }
}
