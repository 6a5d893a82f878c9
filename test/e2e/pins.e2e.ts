/** Pinned context, and chats that continue from an earlier answer. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FrameLocator, Locator } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';
import { writeScriptedModel } from './scriptedModel.ts';
import { answered } from './turns.ts';

const folder = mkdtempSync(join(tmpdir(), 'hearth-scripted-'));
const model = join(folder, 'scripted');
const options = {
  files: { 'sums.py': 'def add(a, b):\n    return a + b\n' },
  settings: {
    'hearth.chat.searchWorkspace': false,
    'window.autoDetectColorScheme': true,
    'window.autoDetectHighContrast': true,
  },
  machineSettings: { 'hearth.chat.model': model, 'hearth.completion.enabled': false },
};
/** A reload and another load of the model; small machines take minutes. */
const reloadMs = 300_000;

const labels = (turn: Locator) => turn.locator('.question .chip').allTextContents();
const questions = (chat: FrameLocator) => chat.locator('.turn .question-text').allTextContents();
const pressed = (chat: FrameLocator) => chat.locator('#chips .chip [aria-pressed=true]');

describeInEditor('a chat', options, (editor) => {
  beforeAll(() => writeScriptedModel(model, { thought: ' Hm.', answer: 'Yes.', report: 'Done.', done: '薪' }));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('sends a pinned file with every question, also after a reload', { timeout: reloadMs }, async () => {
    const { page } = editor();
    await editor().openFile('sums.py');
    const chat = await editor().openChat();
    await editor().statusItem('scripted').waitFor();
    await chat.locator('#chips .chip', { hasText: 'sums.py' }).locator('[aria-pressed=false]').click();
    await pressed(chat).waitFor();
    await chat.locator('#usage', { hasText: '%' }).waitFor();
    await editor().command('View: Close All Editors');
    expect(await labels(await answered(chat, 'First?'))).toEqual(['sums.py']);
    expect(await labels(await answered(chat, 'Second?'))).toEqual(['sums.py']);
    const media = {
      light: { colorScheme: 'light', forcedColors: 'none' },
      dark: { colorScheme: 'dark', forcedColors: 'none' },
      'high-contrast': { colorScheme: 'dark', forcedColors: 'active' },
    } as const;
    for (const [theme, wanted] of Object.entries(media)) {
      await page.emulateMedia(wanted);
      await chat.locator(`body.vscode-${theme}`).waitFor();
      await chat.locator('.turn').last().hover();
      await editor().screenshot(`pins-${theme}`);
    }
    await editor().reload();
    const again = await editor().openChat();
    await pressed(again).waitFor();
    // VS Code may have opened the file again.
    await editor().command('View: Close All Editors');
    expect(await labels(await answered(again, 'Third?'))).toEqual(['sums.py']);
    await pressed(again).click();
    await pressed(again).waitFor({ state: 'detached' });
    expect(await labels(await answered(again, 'Fourth?'))).toEqual([]);
  });

  test('continues from an answer in a new chat, and stays unchanged itself', { timeout: reloadMs }, async () => {
    const chat = await editor().chat();
    const second = chat.locator('.turn').nth(1);
    await second.hover();
    await second.locator('.fork').click();
    await expect.poll(() => questions(chat)).toEqual(['First?', 'Second?']);
    await answered(chat, 'Another way?');
    await editor().reload();
    const again = await editor().openChat();
    await expect.poll(() => questions(again)).toEqual(['First?', 'Second?', 'Another way?']);
    await editor().command('Hearth: Chats');
    const rows = editor().page.locator('.quick-input-list .monaco-list-row');
    await rows.filter({ hasText: 'First? (continued)' }).waitFor();
    await editor().screenshot('fork-list');
    await rows.filter({ hasNotText: 'continued' }).first().click();
    await expect.poll(() => questions(again)).toEqual(['First?', 'Second?', 'Third?', 'Fourth?']);
  });
});
