/** The thinking switch, with a model that has one. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';
import { writeThinkingModel } from './thinkingModel.ts';
import { answered, answerText, ask, untilEnded } from './turns.ts';

/** Random weights think up to their limit, for minutes on a busy machine. */
const thoughtMs = 200_000;

const folder = mkdtempSync(join(tmpdir(), 'hearth-model-'));
const model = join(folder, 'thinker.gguf');
const options = { files: { 'a.py': 'x = 1\n' }, machineSettings: { 'hearth.chat.model': model } };

describeInEditor('the thinking switch', options, (editor) => {
  beforeAll(() => writeThinkingModel(model));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('is off at first: the model answers at once', async () => {
    const chat = await editor().openChat();
    await editor().statusItem('Off').waitFor();
    const turn = await answered(chat, 'Say hello.');
    expect(await turn.locator('.thoughts').isVisible()).toBe(false);
    expect(await answerText(turn)).not.toBe('');
  });

  test('makes the model think first, and shows thinking apart from the answer', {
    timeout: 2 * thoughtMs,
  }, async () => {
    const chat = await editor().chat();
    await chat.locator('#thinking').click();
    await chat.locator('#thinking[aria-pressed=true]').waitFor();
    await editor().statusItem('On').waitFor();
    const turn = await ask(chat, 'Say hello.');
    await untilEnded(turn, 'done', thoughtMs);
    await editor().screenshot('thinking');
    expect(await turn.locator('.thoughts').isVisible()).toBe(true);
    expect(await turn.locator('.thoughts-text').textContent()).not.toBe('');
  });

  test('survives a reload, and is switched off again in the status bar', async () => {
    await editor().reload();
    const chat = await editor().openChat();
    await chat.locator('#thinking[aria-pressed=true]').waitFor();
    await editor().statusItem('On').click();
    await chat.locator('#thinking[aria-pressed=false]').waitFor();
    await editor().statusItem('Off').waitFor();
  });
});
