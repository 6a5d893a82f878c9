/** Two windows of one VS Code on two folders share one engine, but do not depend on each other. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterAll, expect, test } from 'vitest';
import { describeInEditor, type Editor } from './editor.ts';
import { answered, answerText, ask, untilEnded, untilStreaming } from './turns.ts';

const files = (name: string) => ({ [`${name}.py`]: 'import math\n' });
const question = 'What is the capital of France? One word.';
const longQuestion = 'Write a long story about a lighthouse keeper.';

/** Resident memory of the engine in megabytes; undefined where there is no /proc. */
function engineMegabytes(editor: Editor): number | undefined {
  if (process.platform !== 'linux') return undefined;
  const status = readFileSync(`/proc/${editor.enginePids()[0]}/status`, 'utf8');
  return Number(/^VmRSS:\s*(\d+)/m.exec(status)?.[1]) / 1024;
}

/** Extension hosts below this server's process group. */
function extensionHosts(): number {
  return execFileSync('ps', ['-A', '-o', 'args='], { encoding: 'utf8' })
    .split('\n')
    .filter((args) => args.includes('type=extensionHost')).length;
}

async function completes(window: Editor, file: string): Promise<void> {
  const { page } = window;
  await window.openFile(file);
  await page.keyboard.press('Control+End');
  await page.keyboard.type('def add(a, b):\n"""Return the sum of a and b."""\nreturn ', { delay: 15 });
  await page.locator('.ghost-text-decoration, .ghost-text-decoration-preview').first().waitFor();
  await page.keyboard.press('Escape');
}

// Greedy, so that the long answer is long every time.
const settings = { 'hearth.chat.temperature': 0 };

describeInEditor('two windows', { files: files('first'), settings }, (first) => {
  let second: Editor | undefined;
  const other = (): Editor => {
    if (second === undefined) throw new Error('The second window is not open.');
    return second;
  };
  afterAll(() => second?.page.close());

  test('both chat and complete, with one engine whose memory is not doubled', async () => {
    const chat = await first().openChat();
    await answered(chat, question);
    await completes(first(), 'first.py');
    const alone = engineMegabytes(first());
    second = await first().openWindow('second', files('second'));
    const otherChat = await second.openChat();
    expect(await answerText(await answered(otherChat, question))).toContain('Paris');
    await completes(second, 'second.py');
    expect(first().enginePids()).toHaveLength(1);
    const together = engineMegabytes(first());
    if (alone === undefined || together === undefined) return;
    console.log(`The engine takes ${alone.toFixed(0)} MB for one window, ${together.toFixed(0)} MB for two.`);
    expect(together).toBeLessThan(1.3 * alone);
  });

  test('a window that closes during its answer leaves the other unaffected', async () => {
    const engines = first().enginePids();
    const hosts = extensionHosts();
    const turn = await ask(await first().chat(), longQuestion);
    const lost = await ask(await other().chat(), longQuestion);
    await Promise.all([untilStreaming(turn, 40), untilStreaming(lost, 40)]);
    await other().closeWindow();
    await expect.poll(extensionHosts, { timeout: 30_000 }).toBe(hosts - 1);
    await untilEnded(turn, 'done', 180_000);
    expect(first().enginePids()).toEqual(engines);
  });

  test('the question and partial answer of a closed window are restored when its folder is opened again', async () => {
    second = await first().openWindow('second', {});
    const chat = await second.openChat();
    await expect.poll(() => chat.locator('.turn').count()).toBe(2);
    expect((await answerText(chat.locator('.turn').nth(1))).length).toBeGreaterThan(40);
    expect(await answerText(await answered(chat, question))).not.toBe('');
    expect(first().enginePids()).toHaveLength(1);
  });
});
