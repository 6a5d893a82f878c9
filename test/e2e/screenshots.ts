/** Pictures of the real model. Run by `npm run screenshots`, not with the tests. */
import { test } from 'vitest';
import { describeInEditor } from './editor.ts';
import { files, inBothThemes, settings, widenSideBar } from './pictures.ts';

describeInEditor('pictures', { files, settings }, (editor) => {
  test('an answer in the chat', async () => {
    await editor().openFile('station.py');
    const chat = await editor().openChat();
    await widenSideBar(editor());
    await chat.locator('#question').fill('Write a Python function that returns the coldest reading of a list.');
    await chat.locator('#question').press('Enter');
    const turn = chat.locator('.turn').first();
    await turn.and(chat.locator('[data-state=done]')).waitFor({ timeout: 100_000 });
    await inBothThemes(editor(), 'chat', true);
  });

  test('a completion', async () => {
    const { page } = editor();
    await editor().openFile('station.py');
    await page.keyboard.press('Control+End');
    // The editor indents automatically.
    await page.keyboard.type('    def coldest(self) -> Reading:\nreturn ', { delay: 20 });
    await page.locator('.ghost-text-decoration').first().waitFor();
    await inBothThemes(editor(), 'completion', true);
    await page.keyboard.press('Tab');
  });

  test('a summary of the file', async () => {
    await editor().newChat();
    await editor().openFile('station.py');
    await editor().command('Hearth: Summarise This File');
    const chat = await editor().chat();
    await chat.locator('.turn[data-state=done]').first().waitFor({ timeout: 100_000 });
    await inBothThemes(editor(), 'summary', true);
  });

  test('the models', async () => {
    await editor().command('Hearth: Models');
    await editor().page.locator('.quick-input-list .monaco-list-row', { hasText: 'SmolLM2' }).first().waitFor();
    await inBothThemes(editor(), 'models', true);
    const row = editor().page.locator('.quick-input-list .monaco-list-row', { hasText: 'SmolLM2' }).first();
    await row.hover();
    await row.locator('a.codicon-info').click();
    await editor().page.locator('.tab.active').waitFor();
    await inBothThemes(editor(), 'inspect');
  });
});
