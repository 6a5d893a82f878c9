/**
 * A new user's first five minutes: the packaged extension in an empty home with default settings. The default model's own bytes come from a package index and a hub on loopback.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { type FetchedModel, fetchDefaultModel, serveDefaultModel } from '../loopback/defaultModel.ts';
import type { ModelServer } from '../loopback/modelServer.ts';
import { Editor } from './editor.ts';
import { answered, answerText } from './turns.ts';

const { unavailable } = inject('prepared');
const fetched: FetchedModel = unavailable === undefined ? await fetchDefaultModel() : { unavailable };
const skipped = fetched.unavailable === undefined ? '' : ` (skipped: ${fetched.unavailable})`;

const sums = 'import math\n\n\ndef add(a, b):\n    """Return the sum of a and b."""\n    return a + b\n';
/** Slow enough to observe: ten seconds for the whole model. */
const bytesPerSecond = 10e6;

describe.skipIf(fetched.unavailable !== undefined)(`the first five minutes${skipped}`, () => {
  let models: ModelServer | undefined;
  let editor: Editor;
  beforeAll(async () => {
    if (fetched.unavailable !== undefined) return;
    models = await serveDefaultModel(fetched);
    models.faults.bytesPerSecond = bytesPerSecond;
    const { environment } = models;
    editor = await Editor.open({ files: { 'sums.py': sums }, newUser: true, workspaceTrust: true, environment });
  });
  afterAll(async () => {
    await editor?.close();
    await models?.close();
  });

  const notification = (text: string | RegExp) => editor.page.locator('.notification-list-item', { hasText: text });

  test('start with chat and walkthrough, and no sign-in', async () => {
    const { page } = editor;
    const chat = await editor.chat();
    await page.locator('.gettingStartedContainer', { hasText: 'Hearth' }).waitFor();
    await chat.locator('#notice[data-kind=no-model]').waitFor();
    await expect.poll(() => page.locator('.part.auxiliarybar').isVisible()).toBe(false);
    await editor.screenshot('first-1-window');
  });

  test('show that search needs trust, and open the trust editor', async () => {
    const { page } = editor;
    const chat = await editor.chat();
    await chat.locator('#restricted', { hasText: 'Trust it to let Hearth search it' }).waitFor();
    await chat.locator('#restricted').getByRole('button').click();
    await page.locator('.workspace-trust-editor').getByRole('button', { name: 'Trust', exact: true }).click();
    await chat.locator('#restricted').waitFor({ state: 'hidden' });
  });

  test('offer a model at the first key, and download it after one click', async () => {
    const { page } = editor;
    await editor.openFile('sums.py');
    await page.keyboard.press('Control+End');
    await page.keyboard.type('\n');
    await notification('Hearth needs a model').waitFor();
    await editor.screenshot('first-2-offer');
    await notification('Hearth needs a model')
      .getByRole('button', { name: /^(Small and quick|Download) \(\d+ MB\)$/ })
      .click();
    await notification(/\d+ MB \/ \d+ MB/).waitFor();
    await editor.screenshot('first-3-download');
  });

  test('show the first completion, typed during the download, which Tab accepts', async () => {
    const { page } = editor;
    await editor.openFile('sums.py');
    await page.keyboard.press('Control+End');
    await page.keyboard.type('\n\ndef subtract(a, b):\n', { delay: 30 });
    await page.keyboard.type('"""Return the difference of a and b."""\nreturn ', { delay: 30 });
    expect(models?.bytesSent()).toBeLessThan(90e6);
    const ghost = page.locator('.ghost-text-decoration, .ghost-text-decoration-preview').first();
    await ghost.waitFor();
    const offered = (await ghost.textContent())?.replaceAll('\u00a0', ' ') ?? '';
    await editor.screenshot('first-4-completion');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Control+S');
    await expect.poll(() => editor.read('sums.py')).toContain(`return ${offered}`);
    expect(offered.trim()).not.toBe('');
    expect(models?.bytesSent()).toBeGreaterThan(90e6);
    expect(readdirSync(join(editor.home, '.cache', 'hearth', 'models'))).toHaveLength(1);
  });

  test('show the first answer, with a link to the file', async () => {
    const chat = await editor.openChat();
    await chat.locator('#chips .chip', { hasText: 'sums.py' }).waitFor();
    const turn = await answered(chat, 'What is the capital of France? One word.');
    expect((await answerText(turn)).trim()).not.toBe('');
    await editor.screenshot('first-5-answer');
    // A tiny model's citations are random, and conversation.e2e.ts tests citations. Attachments are always linked.
    await editor.statusItem(/^Ln (?!1,)/).waitFor();
    await turn.locator('.question .chip.sent', { hasText: 'sums.py' }).first().click();
    await editor.statusItem('Ln 1, Col 1').waitFor();
  });

  test('leave no identifier of ONNX Runtime’s telemetry, only that of VS Code itself', () => {
    const kept = readdirSync(join(editor.home, '.cache'), { recursive: true }).map(String);
    expect(kept.filter((path) => /onnxruntime/i.test(path) && !path.startsWith('hearth'))).toEqual([]);
  });

  test('survive a reload, with the draft', async () => {
    const { page } = editor;
    const before = await editor.openChat();
    const said = await answerText(before.locator('.turn'));
    await before.locator('#question').pressSequentially('What about ');
    await page.keyboard.press('ArrowLeft');
    await expect
      .poll(() => before.locator('#question').evaluate((box: HTMLTextAreaElement) => box.selectionStart))
      .toBe(10);
    // The draft is saved after a short delay.
    await page.waitForTimeout(1_000);
    await editor.reload();
    const chat = await editor.chat();
    await chat.locator('.turn[data-state=done]').waitFor();
    expect(await answerText(chat.locator('.turn'))).toBe(said);
    const box = chat.locator('#question');
    await expect.poll(() => box.inputValue()).toBe('What about ');
    expect(await box.evaluate((element: HTMLTextAreaElement) => element.selectionStart)).toBe(10);
    await editor.screenshot('first-6-reloaded');
    expect(await page.locator('.part.auxiliarybar').isVisible()).toBe(false);
  });
});
