/** A conversation with the real model: streaming, stopping, restoring. */
import { expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';
import { answered, answerLength, answerText, ask, untilEnded, untilStreaming } from './turns.ts';

const longQuestion = 'Write a long story about a lighthouse keeper.';

// A tiny model writes until its limit, which leaves time to stop it.
const settings = { 'hearth.chat.maxTokens': 400 };

describeInEditor('the chat', { files: { 'a.py': 'print("hello")\n' }, settings }, (editor) => {
  test('streams an answer and stops it', async () => {
    const chat = await editor().openChat();
    const turn = await ask(chat, longQuestion);
    await untilStreaming(turn, 40);
    const early = await answerLength(turn);
    await untilStreaming(turn, early + 40);
    await chat.locator('#stop').click();
    await untilEnded(turn, 'stopped');
    const kept = await answerLength(turn);
    expect(kept).toBeGreaterThan(early);
    // No more text arrives.
    await editor().page.waitForTimeout(1_000);
    expect(await answerLength(turn)).toBe(kept);
  });

  test('answers the next question after a stop and shows its speed', async () => {
    const chat = await editor().openChat();
    const turn = await answered(chat, 'What is the capital of France? One word.');
    expect(await answerText(turn)).toContain('Paris');
    expect(await turn.locator('.figures').textContent()).toMatch(/\d tokens\/s/);
    await editor()
      .statusItem(/SmolLM2.*\d/)
      .waitFor();
  });

  test('restores the history after a reload', async () => {
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

  test('keeps the text when the engine is killed, and continues with a new one', async () => {
    const chat = await editor().openChat();
    const turn = await ask(chat, longQuestion);
    await untilStreaming(turn, 80);
    const shown = await answerLength(turn);
    const killed = editor().enginePids();
    expect(killed).toHaveLength(1);
    for (const pid of killed) process.kill(pid, 'SIGKILL');
    await untilEnded(turn, 'failed');
    expect(await answerLength(turn)).toBeGreaterThanOrEqual(shown);
    await editor().screenshot('engine-killed');
    const next = await answered(chat, 'Say hello.');
    expect(await answerLength(next)).toBeGreaterThan(0);
    expect(editor().enginePids()).toHaveLength(1);
    expect(editor().enginePids()).not.toEqual(killed);
  });

  test('is in an editor tab as well, with the same draft and answers, also after a reload', {
    timeout: 300_000,
  }, async () => {
    await editor().openFile('a.py');
    await editor().command('Hearth: Open Chat in an Editor Tab');
    const tab = await editor().chatPage('tab');
    const view = await editor().chatPage('view');
    await tab.locator('#question').pressSequentially('Greet me.');
    await expect.poll(() => view.locator('#question').inputValue()).toBe('Greet me.');
    // The file beside it is still the context.
    await tab.locator('#chips .chip', { hasText: 'a.py' }).waitFor();
    await editor().screenshot('chat-tab');
    await tab.locator('#question').press('Enter');
    await expect.poll(() => view.locator('#question').inputValue()).toBe('');
    const last = tab.locator('.turn', { hasText: 'Greet me.' });
    await untilEnded(last, 'done');
    const answer = await answerText(last);
    await expect.poll(() => answerText(view.locator('.turn').last())).toBe(answer);
    // In a browser, VS Code keeps its tabs every five seconds.
    await editor().page.waitForTimeout(7_000);
    await editor().reload();
    const again = await editor().chatPage('tab');
    await expect.poll(() => answerText(again.locator('.turn').last())).toBe(answer);
    await editor().command('View: Close All Editor Groups');
  });

  test('says that the model cannot think', async () => {
    const chat = await editor().openChat();
    await expect(chat.locator('#thinking').getAttribute('aria-pressed')).resolves.toBe('false');
    await chat.locator('#thinking').click();
    await editor().page.getByText('was not trained to think').first().waitFor();
  });
});
