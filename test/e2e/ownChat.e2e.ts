/** VS Code's own chat with a scripted Hearth model: model picker, @hearth, questions and agent mode. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Locator } from 'playwright-core';
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
/** VS Code's agent sends 18,000 tokens before the question; their prefill takes minutes on a busy machine. */
const agentMs = 200_000;
/** VS Code writes no file of settings before a click (`chat.tools.edits.autoApprove`). */
const asked = '.vscode/tasks.json';
const options = { files: { 'notes.txt': 'The word is [灶].\n' }, settings, machineSettings };

describeInEditor('a scripted model', options, (editor) => {
  beforeAll(() => {
    const path = (name: string) => join(editor().workspace, name);
    writeScriptedModel(model, {
      thought: ' I weigh the question once more. I look at it from the other side.',
      answer: 'Hearth answers here.',
      calls: {
        first: { name: 'read_file', arguments: { filePath: path('notes.txt'), startLine: 1, endLine: 2 } },
        second: { name: 'create_file', arguments: { filePath: path(asked), content: '[薪]' } },
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
    // After a participant's answer VS Code sometimes continues in agent mode.
    await editor().command('Chat: Open Chat (Ask)');
    await editor().page.locator('[aria-label^="Chat Input (Ask)"]').waitFor();
    const answer = await askOwnChat(editor().page, 'Who are you?');
    await answer.filter({ hasText: 'Hearth answers here.' }).waitFor();
    await editor().screenshot('own-chat');
  });

  /** Opens a new chat in agent mode and waits for the card that asks before the file is written. */
  async function untilConfirmation(): Promise<{ answer: Locator; card: Locator }> {
    await editor().page.locator('.part.auxiliarybar .title .codicon-plus').first().click();
    await expect.poll(() => editor().page.locator('.interactive-request').count()).toBe(0);
    await editor().command('Chat: Open Chat (Agent)');
    await editor().page.locator('[aria-label^="Chat Input (Agent)"]').waitFor();
    const answer = await askOwnChat(editor().page, 'Copy the word of notes.txt.');
    // A second, hidden one is in the answer.
    const cards = editor().page.locator('.interactive-session .chat-confirmation-widget2:visible');
    const card = cards.filter({ hasText: 'tasks.json' });
    await card.waitFor({ timeout: agentMs });
    return { answer, card };
  }

  test('writes nothing in agent mode that is skipped on its card', { timeout: 2 * agentMs }, async () => {
    const { answer, card } = await untilConfirmation();
    await editor().screenshot('agent-confirmation');
    expect(existsSync(join(editor().workspace, asked))).toBe(false);
    await card.locator('.monaco-button', { hasText: 'Skip' }).click();
    await answer.filter({ hasText: 'The word was read and written.' }).waitFor();
    expect(existsSync(join(editor().workspace, asked))).toBe(false);
  });

  test('reads one file and writes another in agent mode, once its card is allowed', {
    timeout: 2 * agentMs,
  }, async () => {
    const { answer, card } = await untilConfirmation();
    await card.locator('.monaco-button', { hasText: 'Allow' }).first().click();
    await answer.filter({ hasText: 'The word was read and written.' }).waitFor();
    await editor().screenshot('agent');
    // The model writes this file only after reading notes.txt.
    expect(editor().read(asked)).toBe('[薪]');
  });
});
