/** A one-line change, offered again at the next similar place; if there is none, the model's predicted edit. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';
import { writeScriptedModel } from './scriptedModel.ts';

/** Decorations draw their text with `::after`, so it is not in the DOM. */
const offers = (page: Page, says: string, expected = true) =>
  page.waitForFunction(
    ([wanted, shown]) =>
      [...document.querySelectorAll('.view-lines span')].some((own) =>
        getComputedStyle(own, '::after').content.replaceAll('\u00a0', ' ').includes(wanted),
      ) === shown,
    [says, expected] as const,
  );

const text = `let total = 0;
other();
total += 1;
subtotal();
return total;
`;

describeInEditor(
  'the next edit',
  { files: { 'sums.js': text }, settings: { 'hearth.completion.enabled': false } },
  (editor) => {
    test('is reached and applied by Tab, and dismissed by Escape', async () => {
      const { page } = editor();
      const { keyboard } = page;
      await editor().openFile('sums.js');
      await keyboard.press('Control+Home');
      for (let i = 0; i < 'let '.length; i++) await keyboard.press('ArrowRight');
      for (let i = 0; i < 'total'.length; i++) await keyboard.press('Shift+ArrowRight');
      await keyboard.type('sum');
      await offers(page, 'same change on line 3');
      await editor().screenshot('next-edit');
      await keyboard.press('Tab');
      await offers(page, 'Tab to accept');
      await keyboard.press('Tab');
      await offers(page, 'same change on line 5');
      await keyboard.press('Escape');
      await offers(page, 'same change on line 5', false);
      await keyboard.press('Control+S');
      const changed = text.replace('total = 0', 'sum = 0').replace('total += 1', 'sum += 1');
      await expect.poll(() => editor().read('sums.js')).toBe(changed);
    });
  },
);

const limitsText = `limit.first = 1;
start();
pause();
limit.second = 2;
finish();
`;
const folder = mkdtempSync(join(tmpdir(), 'hearth-scripted-'));
const model = join(folder, 'scripted');

describeInEditor(
  'the next edit by a model',
  {
    files: { 'limits.js': limitsText },
    settings: { 'hearth.nextEdit.model': 'on', 'hearth.completion.confidence': 'quiet' },
    machineSettings: { 'hearth.chat.model': model },
  },
  (editor) => {
    const edit = 'limit.second = 20;';
    beforeAll(() => writeScriptedModel(model, { thought: ' Hm.', answer: 'So.', report: 'Never.', done: '薪', edit }));
    afterAll(() => rmSync(folder, { recursive: true, force: true }));

    test('is shown away from the cursor, reached and applied by Tab', async () => {
      const { page } = editor();
      const { keyboard } = page;
      await editor().openFile('limits.js');
      await keyboard.press('Control+Home');
      for (let i = 0; i < 'limit.first = 1'.length; i++) await keyboard.press('ArrowRight');
      // Loads the model, because a next edit does not.
      await editor().command('Trigger Inline Suggestion');
      await editor().statusItem('tokens/s').waitFor();
      await keyboard.press('Escape');
      await keyboard.type('0');
      await offers(page, 'next edit on line 4');
      await editor().screenshot('next-edit-model');
      await keyboard.press('Tab');
      await offers(page, 'Tab to accept');
      await keyboard.press('Tab');
      await offers(page, 'Tab to accept', false);
      await keyboard.press('Control+S');
      const changed = limitsText.replace('first = 1', 'first = 10').replace('second = 2', 'second = 20');
      await expect.poll(() => editor().read('limits.js')).toBe(changed);
    });
  },
);
