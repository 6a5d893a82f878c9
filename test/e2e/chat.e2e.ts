/** A conversation with the real model: streamed, stopped, kept. */
import type { FrameLocator, Locator } from 'playwright-core';
import { expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';

const longQuestion = 'Write a long story about a lighthouse keeper.';

async function ask(chat: FrameLocator, question: string): Promise<Locator> {
  const before = await chat.locator('.turn').count();
  await chat.locator('#question').fill(question);
  await chat.locator('#question').press('Enter');
  const turn = chat.locator('.turn').nth(before);
  await turn.waitFor();
  return turn;
}

const state = (turn: Locator) => turn.getAttribute('data-state');
const answerLength = async (turn: Locator) => ((await turn.locator('.answer-text').textContent()) ?? '').length;

async function untilStreaming(turn: Locator, chars: number): Promise<void> {
  await expect.poll(() => answerLength(turn), { timeout: 60_000, interval: 50 }).toBeGreaterThan(chars);
  expect(await state(turn)).toBe('running');
}

async function untilState(turn: Locator, wanted: string, timeout = 60_000): Promise<void> {
  await expect.poll(() => state(turn), { timeout, interval: 50 }).toBe(wanted);
}

describeInEditor('the chat', { files: { 'a.py': 'print("hello")\n' } }, (editor) => {
  test('streams an answer word by word, and stops when told to', async () => {
    const chat = await editor().openChat();
    const turn = await ask(chat, longQuestion);
    await untilStreaming(turn, 40);
    const early = await answerLength(turn);
    await untilStreaming(turn, early + 40);
    await chat.locator('#stop').click();
    await untilState(turn, 'stopped', 5_000);
    const kept = await answerLength(turn);
    expect(kept).toBeGreaterThan(early);
    // Nothing more comes.
    await editor().page.waitForTimeout(1_000);
    expect(await answerLength(turn)).toBe(kept);
  });

  test('answers the next question after a stop, and says how fast it was', async () => {
    const chat = await editor().openChat();
    const turn = await ask(chat, 'What is the capital of France? One word.');
    await untilState(turn, 'done');
    expect(await turn.locator('.answer-text').textContent()).toContain('Paris');
    expect(await turn.locator('.figures').textContent()).toMatch(/\d tokens\/s/);
    await editor()
      .statusItem(/SmolLM2.*\d/)
      .waitFor();
  });

  test('shows the history again after the window was reloaded', async () => {
    const before = await (await editor().openChat()).locator('.answer-text').allTextContents();
    expect(before.length).toBe(2);
    await editor().reload();
    const chat = await editor().openChat();
    await expect.poll(() => chat.locator('.turn').count()).toBe(2);
    expect(await chat.locator('.answer-text').allTextContents()).toEqual(before);
    expect(await chat.locator('.turn').evaluateAll((turns) => turns.map((turn) => turn.dataset['state']))).toEqual([
      'stopped',
      'done',
    ]);
  });

  test('keeps what was said when the engine is killed, and goes on with a new one', async () => {
    const chat = await editor().openChat();
    const turn = await ask(chat, longQuestion);
    await untilStreaming(turn, 80);
    const shown = await answerLength(turn);
    const killed = editor().enginePids();
    expect(killed).toHaveLength(1);
    for (const pid of killed) process.kill(pid, 'SIGKILL');
    await untilState(turn, 'failed');
    expect(await answerLength(turn)).toBeGreaterThanOrEqual(shown);
    await editor().screenshot('engine-killed');
    const next = await ask(chat, 'Say hello.');
    await untilState(next, 'done');
    expect(await answerLength(next)).toBeGreaterThan(0);
    expect(editor().enginePids()).toHaveLength(1);
    expect(editor().enginePids()).not.toEqual(killed);
  });

  test('says that this model cannot think when asked to', async () => {
    const chat = await editor().openChat();
    await expect(chat.locator('#thinking').getAttribute('aria-pressed')).resolves.toBe('false');
    await chat.locator('#thinking').click();
    await editor().page.getByText('answers without thinking').first().waitFor();
  });
});
