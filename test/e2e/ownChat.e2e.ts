/** VS Code's own chat with a scripted Hearth model: model picker, @hearth, questions and agent mode. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';
import { askOwnChat, pickModel } from './ownChat.ts';
import { writeScriptedModel } from './scriptedModel.ts';
import { answerText, ask, untilEnded } from './turns.ts';

const folder = mkdtempSync(join(tmpdir(), 'hearth-agent-'));
const model = join(folder, 'scripted');
const machineSettings = {
  'hearth.chat.model': model,
  'hearth.contextTokens': 65_536,
  'hearth.completion.enabled': false,
};
// Participants answer in ask mode; a new chat would be in agent mode.
const settings = { 'chat.newSession.defaultMode': 'ask' };
const options = { files: { 'notes.txt': 'The word is [灶].\n' }, settings, machineSettings };

describeInEditor('a scripted model', options, (editor) => {
  beforeAll(() => {
    const path = (name: string) => join(editor().workspace, name);
    writeScriptedModel(model, {
      thought: ' I weigh the question once more. I look at it from the other side.',
      answer: 'Hearth answers here.',
      calls: {
        first: { name: 'read_file', arguments: { filePath: path('notes.txt'), startLine: 1, endLine: 2 } },
        second: { name: 'create_file', arguments: { filePath: path('written.txt'), content: '[薪]' } },
        seen: '灶',
      },
      done: '薪',
      report: 'The word was read and written.',
    });
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('answers now while it thinks', async () => {
    const chat = await editor().openChat();
    await editor().statusItem('Off').waitFor();
    await chat.locator('#thinking').click();
    await chat.locator('#thinking[aria-pressed=true]').waitFor();
    const turn = await ask(chat, 'What do you think?');
    await turn.locator('.thoughts').waitFor();
    await editor().screenshot('answer-now');
    await turn.locator('.answer-now').click();
    await untilEnded(turn, 'done');
    expect(await answerText(turn)).toContain('Hearth answers here.');
    expect(await turn.locator('.answer-now').isVisible()).toBe(false);
    await chat.locator('#thinking').click();
    await chat.locator('#thinking[aria-pressed=false]').waitFor();
  });

  test("is in the model picker of VS Code's own chat", async () => {
    const { page } = editor();
    // VS Code's built-in chat extension is disabled until the user signs in.
    await editor().command('Extensions: Enable All Extensions');
    await editor().command("Hearth: Use in VS Code's Own Chat");
    await pickModel(page, 'scripted');
    await editor().screenshot('picker');
    await page.keyboard.press('Enter');
    await page.locator('.interactive-session .model-picker-split', { hasText: 'scripted' }).waitFor();
  });

  test('answers @hearth there', async () => {
    const answer = await askOwnChat(editor().page, '@hearth Who are you?');
    await answer.filter({ hasText: 'Hearth answers here.' }).waitFor();
    await editor().screenshot('participant');
  });

  test('answers an ordinary question there', async () => {
    const answer = await askOwnChat(editor().page, 'Who are you?');
    await answer.filter({ hasText: 'Hearth answers here.' }).waitFor();
    await editor().screenshot('own-chat');
  });

  test('reads one file and writes another in agent mode', async () => {
    await editor().command('Chat: Open Chat (Agent)');
    await editor().page.locator('[aria-label^="Chat Input (Agent)"]').waitFor();
    const answer = await askOwnChat(editor().page, 'Copy the word of notes.txt.');
    await answer.filter({ hasText: 'The word was read and written.' }).waitFor();
    await editor().screenshot('agent');
    // The model writes this file only after reading notes.txt.
    expect(editor().read('written.txt')).toBe('[薪]');
  });
});
