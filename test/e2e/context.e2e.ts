/** Questions about a workspace: context, and the list of chats. */
import type { FrameLocator } from 'playwright-core';
import { expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';
import { answered, untilEnded } from './turns.ts';

const python = 'def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    return a - b\n';
const files = {
  'sums.py': python,
  'src/lighthouse.py':
    'def light_the_lamp(keeper):\n    """Lights the lamp of the lighthouse."""\n    return keeper.match()\n',
};

// A tiny model writes until its limit.
const settings = { 'hearth.chat.maxTokens': 100, 'hearth.chat.temperature': 0 };

describeInEditor('the chat and the workspace', { files, settings }, (editor) => {
  const chat = () => editor().chat();
  const sent = (page: FrameLocator) => page.locator('.turn').last().locator('.question .chip');

  test('completes a file mention, sends the file, and opens it', async () => {
    const page = await editor().openChat();
    await page.locator('#question').pressSequentially('Which functions are in @sum', { delay: 20 });
    await page.locator('#mentions [role=option]', { hasText: 'sums.py' }).waitFor();
    await editor().screenshot('mentions');
    await page.locator('#question').press('Enter');
    await expect.poll(() => page.locator('#question').inputValue()).toBe('Which functions are in @file:sums.py ');
    await page.locator('#chips .chip', { hasText: 'file:sums.py' }).waitFor();
    await page.locator('#question').press('Enter');
    await untilEnded(page.locator('.turn').last(), 'done');
    expect(await sent(page).allTextContents()).toEqual(['sums.py']);
    expect(await page.locator('#usage').textContent()).toMatch(/^\d+%$/);
    await sent(page).click();
    await editor().page.locator('.tab.active[data-resource-name="sums.py"]').waitFor();
  });

  test('searches the repository and shows the results', async () => {
    const page = await chat();
    await expect
      .poll(
        async () => {
          await answered(page, '@repository Who lights the lamp of the lighthouse?');
          return (await sent(page).allTextContents()).join();
        },
        { timeout: 100_000 },
      )
      .toContain('lighthouse.py:1–3');
    await editor().screenshot('repository');
  });

  test('lists the chats and finds one by its text', async () => {
    const { page } = editor();
    await editor().command('Hearth: New Chat');
    await editor().command('Hearth: Chats');
    await page.locator('.quick-input-widget input.input').fill('lamp');
    await page.locator('.quick-input-list .monaco-list-row', { hasText: 'Which functions' }).waitFor();
    await editor().screenshot('chats');
    await page.keyboard.press('Enter');
    const view = await chat();
    await view.locator('.turn').first().waitFor();
    expect(await view.locator('.question-text').first().textContent()).toContain('Which functions');
  });
});
