/** With German as display language, Hearth's menus, settings, page and messages are German; its webview draws formulas and diagrams. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { projectRoot } from '../../scripts/shared/paths.ts';
import { describeInEditor } from './editor.ts';
import { writeScriptedModel } from './scriptedModel.ts';
import { answered } from './turns.ts';

const file = z.record(z.string(), z.string());
const read = (name: string) => file.parse(JSON.parse(readFileSync(join(projectRoot, name), 'utf8')));
const texts = read('l10n/bundle.l10n.de.json');
const manifest = read('package.nls.de.json');

const folder = mkdtempSync(join(tmpdir(), 'hearth-scripted-'));
const model = join(folder, 'scripted');
const answer = 'A sum: $x^2$\n\n```mermaid\npie\n "A": 1\n "B": 2\n```';
const options = {
  files: { 'a.ts': 'const a = 1;\n' },
  language: 'de',
  settings: { 'hearth.chat.includeActiveFile': false, 'hearth.chat.searchWorkspace': false },
  machineSettings: { 'hearth.chat.model': model, 'hearth.completion.enabled': false },
};

describeInEditor('a VS Code in German', options, (editor) => {
  beforeAll(() => writeScriptedModel(model, { thought: ' Hm.', answer, report: 'Gut.', done: '薪' }));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('has the page, its controls and the status bar in German', async () => {
    await editor().command(`Hearth: ${manifest['command.openChat']}`);
    const chat = await editor().chat();
    await chat.getByText(texts['Ask about your code'] ?? '', { exact: true }).waitFor();
    expect(await chat.locator('#send').getAttribute('title')).toBe(texts['Send']);
    expect(await chat.locator('html').getAttribute('lang')).toBe('de');
    const label = await editor()
      .page.locator('.statusbar-item[id="hearth.hearth.hearth.status"]')
      .getAttribute('aria-label');
    expect(label).toMatch(/ wird | Modell |bereit/);
    await editor().screenshot('german');
  });

  test('keeps the chat usable in a window zoomed to 200 %', async () => {
    // Same effect on the available pixels as VS Code's zoom level.
    await editor().page.setViewportSize({ width: 640, height: 400 });
    const chat = await editor().chat();
    await chat.locator('#question').fill('Guten Tag');
    const box = await chat.locator('#send').boundingBox();
    expect((box?.x ?? 0) + (box?.width ?? 0)).toBeLessThanOrEqual(640);
    expect(await chat.locator('body').evaluate((body) => body.scrollWidth - body.clientWidth)).toBe(0);
    await editor().screenshot('german-zoomed');
    await editor().page.setViewportSize({ width: 1280, height: 800 });
  });

  test('draws a formula and a diagram of an answer', async () => {
    const turn = await answered(await editor().chat(), 'Wie viel?');
    await turn.locator('.formula .katex').waitFor();
    const picture = turn.locator('.diagram img');
    await picture.waitFor();
    expect(await picture.evaluate((image: HTMLImageElement) => image.naturalWidth)).toBeGreaterThan(100);
    await editor().screenshot('drawings');
  });
});
