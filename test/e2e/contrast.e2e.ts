/** Measures the contrast of every text of every scene in VS Code's four kinds of themes, in the real view and in an editor tab. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ToPage } from '../../extension/messages.ts';
import { projectRoot } from '../../scripts/shared/paths.ts';
import { faintParts } from './contrast.ts';
import { describeInEditor } from './editor.ts';
import { scenes } from './scenes.ts';
import { writeScriptedModel } from './scriptedModel.ts';

const folder = mkdtempSync(join(tmpdir(), 'hearth-contrast-'));
const model = join(folder, 'scripted');
const machineSettings = { 'hearth.chat.model': model, 'hearth.completion.enabled': false };
const pictures = 'test/e2e/results/contrast';
beforeAll(() => {
  writeScriptedModel(model, { thought: ' Hm.', answer: 'Yes.', report: 'Done.', done: '薪' });
  mkdirSync(join(projectRoot, pictures), { recursive: true });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const usual = { dark: 'vscode-dark', light: 'vscode-light' };
const highContrast = { dark: 'vscode-high-contrast', light: 'vscode-high-contrast-light' };
const detect = { 'window.autoDetectColorScheme': true };
const highContrastThemes = {
  ...detect,
  'workbench.preferredDarkColorTheme': 'Default High Contrast',
  'workbench.preferredLightColorTheme': 'Default High Contrast Light',
};

for (const [title, classes, settings] of [
  ['the usual themes', usual, detect],
  ['the themes of high contrast', highContrast, highContrastThemes],
] as const) {
  describeInEditor(title, { files: { 'file.ts': 'let a;\n' }, settings, machineSettings }, (editor) => {
    test.each([
      ['dark', 'view'],
      ['light', 'view'],
      // The tab stays open, so it comes last.
      ['dark', 'tab'],
      ['light', 'tab'],
    ] as const)('can be read: %s, in a %s', async (colorScheme, place) => {
      await editor().page.emulateMedia({ colorScheme });
      const isTab = place === 'tab';
      if (isTab) await editor().command('Hearth: Open Chat in an Editor Tab');
      const chat = isTab ? await editor().chatPage('tab') : await editor().openChat();
      // The extension posts no more messages once the model is loaded.
      await editor().statusItem('scripted').waitFor();
      const body = chat.locator('body');
      await chat.locator(`body.${classes[colorScheme]}`).waitFor();
      const post = (messages: readonly ToPage[]) =>
        body.evaluate((_, all) => {
          for (const message of all) window.postMessage(message, '*');
        }, messages);
      const under = await body.evaluate(
        (element, colour) => getComputedStyle(element).getPropertyValue(colour),
        isTab ? '--vscode-editor-background' : '--vscode-sideBar-background',
      );
      const faint: Record<string, unknown> = {};
      for (const [name, scene] of Object.entries(scenes)) {
        await post(scene.messages);
        await chat.locator(scene.shows).first().waitFor();
        await scene.act?.(chat);
        await post(scene.after ?? []);
        const found = await body.evaluate(faintParts, under);
        if (found.length > 0) faint[name] = found;
        await editor().screenshot(`${classes[colorScheme]}-${place}-${name}`, pictures);
      }
      expect(faint).toEqual({});
    });
  });
}
