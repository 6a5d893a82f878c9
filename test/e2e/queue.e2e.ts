/** Questions and tasks asked during an answer. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FrameLocator } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';
import { writeScriptedModel } from './scriptedModel.ts';
import { ask, stateOf, untilEnded } from './turns.ts';

const sums = 'def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    return a - b\n';
const folder = mkdtempSync(join(tmpdir(), 'hearth-scripted-'));
const model = join(folder, 'scripted');
const options = {
  files: { 'sums.py': sums },
  settings: { 'hearth.chat.includeActiveFile': false, 'hearth.chat.searchWorkspace': false },
  machineSettings: { 'hearth.chat.model': model, 'hearth.completion.enabled': false },
};

/** A reload and another load of the model; small machines take minutes. */
const reloadMs = 300_000;

const questions = (chat: FrameLocator) => chat.locator('.turn .question-text').allTextContents();
const queue = (chat: FrameLocator) => chat.locator('.turn[data-state=queued] .queue-line').allTextContents();

describeInEditor('the queue', options, (editor) => {
  beforeAll(() => writeScriptedModel(model, { thought: ' Hm.', answer: 'Yes.', report: 'Done.', done: '薪' }));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** The model thinks until Answer now. */
  async function thinking(chat: FrameLocator, question: string) {
    await chat.locator('#thinking').click();
    await chat.locator('#thinking[aria-pressed=true]').waitFor();
    const turn = await ask(chat, question);
    await turn.locator('.answer-now').waitFor();
    await chat.locator('#thinking').click();
    await chat.locator('#thinking[aria-pressed=false]').waitFor();
    return turn;
  }

  test('shows a task and a question below the running answer, and runs them in order', async () => {
    const { page } = editor();
    const chat = await editor().openChat();
    await editor().statusItem('scripted').waitFor();
    const first = await thinking(chat, 'First?');
    await editor().openFile('sums.py');
    await page.keyboard.press('Control+Home');
    await page.keyboard.press('Shift+ArrowDown');
    await page.keyboard.press('Shift+End');
    await editor().command('Hearth: Explain');
    await expect.poll(() => questions(chat)).toEqual(['First?', 'Explain this code.']);
    await editor().openFile('sums.py');
    await page.keyboard.press('Control+End');
    await chat.locator('#question').fill('Third?');
    await chat.locator('#send[title="Add to the queue"]').click();
    await chat.locator('#question').fill('Fourth?');
    await chat.locator('#question').press('Enter');
    await expect.poll(() => questions(chat)).toEqual(['First?', 'Explain this code.', 'Third?', 'Fourth?']);
    expect(await stateOf(first)).toBe('running');
    expect(await queue(chat)).toEqual(Array(3).fill('Queued'));
    await editor().screenshot('queue');
    const fourth = chat.locator('.turn').nth(3);
    await fourth.locator('[data-action=remove]').click();
    await fourth.waitFor({ state: 'detached' });
    const third = chat.locator('.turn').nth(2);
    await third.locator('.edit').click();
    await third.locator('.question-edit').fill('Third, edited?');
    await third.locator('.question-edit').press('Enter');
    await expect.poll(() => questions(chat)).toEqual(['First?', 'Explain this code.', 'Third, edited?']);
    await first.locator('.answer-now').click();
    for (const index of [0, 1, 2]) await untilEnded(chat.locator('.turn').nth(index), 'done');
    // The selection at the time of the task.
    expect(await chat.locator('.turn').nth(1).locator('.question .chip').allTextContents()).toEqual(['sums.py:1–2']);
    expect(await chat.locator('.turn').nth(2).locator('.question .chip').count()).toBe(0);
  });

  test('is held by Stop until a question is sent', async () => {
    const chat = await editor().chat();
    await editor().newChat();
    const first = await thinking(chat, 'First?');
    await chat.locator('#question').fill('Second?');
    await chat.locator('#question').press('Enter');
    await expect.poll(() => queue(chat)).toEqual(['Queued']);
    await chat.locator('#stop').click();
    await untilEnded(first, 'stopped');
    await expect.poll(() => queue(chat)).toEqual(['Not sentSend']);
    await editor().screenshot('queue-held');
    const second = chat.locator('.turn').nth(1);
    expect(await stateOf(second)).toBe('queued');
    await second.locator('[data-action=send]').click();
    await untilEnded(second, 'done');
  });

  test('is held after a reload', { timeout: reloadMs }, async () => {
    const before = await editor().chat();
    await editor().newChat();
    await thinking(before, 'First?');
    await before.locator('#question').fill('Second?');
    await before.locator('#question').press('Enter');
    await expect.poll(() => queue(before)).toEqual(['Queued']);
    await editor().reload();
    const chat = await editor().openChat();
    await expect.poll(() => questions(chat)).toEqual(['First?', 'Second?']);
    expect(await stateOf(chat.locator('.turn').first())).toBe('interrupted');
    expect(await queue(chat)).toEqual(['Not sentSend']);
    await chat.locator('[data-action=send]').click();
    await untilEnded(chat.locator('.turn').nth(1), 'done');
  });
});
