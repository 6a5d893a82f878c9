/** Pictures of a scripted model. Run by `npm run screenshots`, not with the tests. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, test } from 'vitest';
import { describeInEditor, type Editor } from './editor.ts';
import { askOwnChat, pickModel } from './ownChat.ts';
import { files, inBothThemes, settings, widenSideBar } from './pictures.ts';
import { writeScriptedModel } from './scriptedModel.ts';
import { answered, ask, untilEnded } from './turns.ts';

const folder = mkdtempSync(join(tmpdir(), 'hearth-pictures-'));
const model = join(folder, 'Scripted');
const machineSettings = {
  'hearth.chat.model': model,
  'hearth.contextTokens': 65_536,
  'hearth.completion.enabled': false,
};
const script = {
  thought:
    ' The mean of no readings is asked for where none was added. The standard library raises StatisticsError then.',
  answer:
    'It fails for a station without readings: `mean` in station.py:21 raises `StatisticsError`. ' +
    'Ask whether there are readings first, or let it return `None`.',
  report:
    'Keep to one pass.\n\n```python\ndef average(self) -> float:\n' +
    '    return sum(reading.celsius for reading in self.readings) / len(self.readings)\n```',
  done: ' faster',
};
const options = { files, settings: { ...settings, 'chat.newSession.defaultMode': 'ask' }, machineSettings };

async function openStation(editor: Editor) {
  await editor.openFile('station.py');
  return editor.openChat();
}

beforeAll(() => writeScriptedModel(model, script));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describeInEditor('scripted pictures', options, (editor) => {
  test('mentions, and a narrow view', async () => {
    const chat = await openStation(editor());
    await editor().statusItem('Off').waitFor();
    await chat.locator('#question').pressSequentially('Where is @');
    await chat.locator('#mentions [role=option]').first().waitFor();
    await inBothThemes(editor(), 'mentions');
    await chat.locator('#question').fill('');
    await widenSideBar(editor(), -130);
    await inBothThemes(editor(), 'narrow');
    await widenSideBar(editor(), 260);
  });

  test('thinking, open and folded', async () => {
    const chat = await editor().openChat();
    await chat.locator('#thinking').click();
    await chat.locator('#thinking[aria-pressed=true]').waitFor();
    const turn = await ask(chat, 'When does average fail?');
    await turn.locator('.thoughts summary').click();
    await turn.locator('.thoughts-text', { hasText: 'StatisticsError' }).waitFor();
    await turn.locator('.answer-now').click();
    await untilEnded(turn, 'done');
    await inBothThemes(editor(), 'thinking', true);
    await turn.locator('.thoughts summary').click();
    await inBothThemes(editor(), 'thinking-folded');
    await chat.locator('#thinking').click();
  });

  test('a proposed change, and the chats', async () => {
    const { page } = editor();
    const turn = await answered(await editor().openChat(), 'Can it be faster?');
    await turn.locator('[data-action=apply]').click();
    await page.locator('.tab.active', { hasText: 'proposed change' }).waitFor();
    await inBothThemes(editor(), 'change', true);
    await page.locator('.editor-actions a[aria-label="Reject the Change"]').click();
    await editor().command('Hearth: Chats');
    await page.locator('.quick-input-list .monaco-list-row', { hasText: 'average' }).waitFor();
    await inBothThemes(editor(), 'chats');
    await page.keyboard.press('Escape');
  });

  test('the walkthrough', async () => {
    const { page } = editor();
    await editor().command('Welcome: Open Walkthrough...');
    await page.locator('.quick-input-widget input.input').first().fill('Hearth');
    await page.keyboard.press('Enter');
    await page.locator('.getting-started-step').first().waitFor();
    await inBothThemes(editor(), 'walkthrough');
    await page.keyboard.press('Control+F4');
  });

  test("VS Code's own chat", async () => {
    const { page } = editor();
    await editor().command('Extensions: Enable All Extensions');
    await editor().command("Hearth: Use in VS Code's Own Chat");
    await pickModel(page, 'Scripted');
    await inBothThemes(editor(), 'picker');
    await page.keyboard.press('Enter');
    const answer = await askOwnChat(page, '@hearth When does average fail?');
    await answer.filter({ hasText: 'It fails' }).waitFor();
    await inBothThemes(editor(), 'own-chat', true);
  });
});

const highContrast = { 'window.autoDetectColorScheme': false, 'workbench.colorTheme': 'Default High Contrast' };
describeInEditor('high contrast', { ...options, settings: { ...settings, ...highContrast } }, (editor) => {
  test('a conversation', async () => {
    const chat = await openStation(editor());
    await widenSideBar(editor());
    await answered(chat, 'When does average fail?');
    await answered(chat, 'Can it be faster?');
    await editor().screenshot('high-contrast', 'test/e2e/results/screens');
  });
});
