/** Answers, chats and the editor's menus, with a scripted model. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FrameLocator, Locator } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeInEditor, type Editor } from './editor.ts';
import { writeScriptedModel } from './scriptedModel.ts';
import { answered, answerText, untilEnded } from './turns.ts';

/** The model gives its second answer if the prompt contains this character. */
const word = '薪';
const answer = 'Subtracting is in `sums.py:5-6` and in gone.py:9.';
const report = 'It can be written so.\n\n```python\ndef add(a, b):\n    return b + a\n```';

const sums = 'def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    return a - b\n';
const changed = sums.replace('a + b', 'b + a');
const lamp = `def light():\n    return "[${word}]"\n`;
const files = { 'sums.py': sums, 'src/lamp.py': lamp, 'broken.json': '{ "a": }\n', 'log.txt': 'nothing\n' };

const folder = mkdtempSync(join(tmpdir(), 'hearth-scripted-'));
const model = join(folder, 'scripted');
const machineSettings = { 'hearth.chat.model': model, 'hearth.completion.enabled': false };
// Only mentions are attached.
const settings = { 'hearth.chat.includeActiveFile': false, 'hearth.chat.searchWorkspace': false };

/** The chat's only turn, once a new one has replaced it and ended. */
async function replaced(chat: FrameLocator, old: string | null): Promise<Locator> {
  const turn = chat.locator('.turn');
  const id = () => turn.last().getAttribute('data-turn');
  await expect.poll(async () => (await turn.count()) === 1 && (await id()) !== old).toBe(true);
  await untilEnded(turn, 'done');
  return turn;
}

const labels = (turn: Locator) => turn.locator('.question .chip').allTextContents();

describeInEditor('a conversation', { files, settings, machineSettings, git: true }, (editor) => {
  beforeAll(async () => {
    writeScriptedModel(model, { thought: ' Hm.', answer, report, done: word });
    // VS Code copies the terminal's selection through the clipboard, which needs a permission.
    await editor().page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('opens a citation and marks a missing one', async () => {
    const turn = await answered(await editor().openChat(), 'Where is subtracting?');
    expect(await turn.locator('.missing-place').allTextContents()).toEqual(['gone.py:9']);
    await turn.locator('.citation', { hasText: 'sums.py:5' }).click();
    await editor().page.locator('.tab.active[data-resource-name="sums.py"]').waitFor();
    await editor().statusItem('Ln 5, Col 1').waitFor();
    // A selection would be attached to the next question.
    expect(await editor().statusItem('selected').count()).toBe(0);
    const chat = await editor().chat();
    expect(await chat.locator('#chips .chip[data-chip^="selection:"]').count()).toBe(0);
    const marked = editor().page.locator(
      '.editor-group-container.active .view-overlays [class*=TextEditorDecorationType]',
    );
    await expect.poll(() => marked.count()).toBe(2);
    await editor().screenshot('citation');
    await editor().openFile('sums.py');
    await editor().page.keyboard.press('ArrowDown');
    await expect.poll(() => marked.count()).toBe(0);
  });

  test('replaces a question by its edited version', async () => {
    const chat = await editor().chat();
    const turn = chat.locator('.turn');
    const old = await turn.getAttribute('data-turn');
    await turn.locator('.edit').click();
    await turn.locator('.question-edit').fill(`How is [${word}] written?`);
    await turn.locator('.question-edit').press('Enter');
    const next = await replaced(chat, old);
    expect(await next.locator('.question-text').textContent()).toBe(`How is [${word}] written?`);
    expect(await answerText(next)).toContain('It can be written so.');
  });

  test('answers again', async () => {
    const chat = await editor().chat();
    const turn = chat.locator('.turn');
    const old = await turn.getAttribute('data-turn');
    await turn.locator('.again').click();
    expect(await answerText(await replaced(chat, old))).toContain('It can be written so.');
  });

  test('shows code as a change, and writes it only when accepted', async () => {
    const { page } = editor();
    const proposal = page.locator('.tab.active', { hasText: 'sums.py: proposed change' });
    const apply = (await editor().chat()).locator('.turn [data-action=apply]');
    await apply.click();
    await proposal.waitFor();
    await page.locator('.editor-actions a[aria-label="Reject the Change"]').click();
    await proposal.waitFor({ state: 'detached' });
    await editor().openFile('sums.py');
    await page.keyboard.press('Control+S');
    expect(editor().read('sums.py')).toBe(sums);
    await apply.click();
    await proposal.waitFor();
    await editor().screenshot('proposal');
    expect(editor().read('sums.py')).toBe(sums);
    await page.locator('.editor-actions a[aria-label="Accept the Change"]').click();
    await proposal.waitFor({ state: 'detached' });
    await page.keyboard.press('Control+S');
    await expect.poll(() => editor().read('sums.py')).toBe(changed);
  });

  test('is renamed, exported as Markdown and deleted', async () => {
    const { page } = editor();
    const input = page.locator('.quick-input-widget input.input').first();
    await editor().command('Hearth: Rename This Chat');
    await page.locator('.quick-input-widget', { hasText: 'Rename the chat' }).waitFor();
    await input.fill('Kindling');
    await input.press('Enter');
    await editor().command('Hearth: Export This Chat');
    await expect.poll(() => input.inputValue()).toBe(join(editor().workspace, 'Kindling.md'));
    await input.press('Enter');
    await page.locator('.tab.active[data-resource-name="Kindling.md"]').waitFor();
    expect(editor().read('Kindling.md')).toContain(`# Kindling\n\n## You\n\nHow is [${word}] written?\n`);
    expect(editor().read('Kindling.md')).toContain(report);
    await editor().command('Hearth: Chats');
    const row = page.locator('.quick-input-list .monaco-list-row', { hasText: 'Kindling' });
    await row.hover();
    await row.locator('a[aria-label="Delete"]').click();
    await page.locator('.monaco-dialog-box .monaco-button', { hasText: 'Delete' }).click();
    await page.locator('.quick-input-widget', { hasText: 'Hearth: Chats' }).waitFor();
    expect(await row.count()).toBe(0);
    await page.keyboard.press('Escape');
    expect(await (await editor().chat()).locator('.turn').count()).toBe(0);
  });

  test('attaches a mentioned symbol', async () => {
    const chat = await editor().newChat();
    const question = chat.locator('#question');
    await question.pressSequentially('What is @symbol:lig', { delay: 20 });
    await chat.locator('#mentions [role=option]', { hasText: 'light' }).waitFor();
    await question.press('Enter');
    await expect.poll(() => question.inputValue()).toBe('What is @symbol:light ');
    await question.press('Enter');
    const turn = chat.locator('.turn');
    await untilEnded(turn, 'done');
    expect([await labels(turn), await answerText(turn)]).toEqual([['light'], expect.stringContaining('It can be')]);
  });

  test('attaches the changes since the last commit', async () => {
    const chat = await editor().newChat();
    writeFileSync(join(editor().workspace, 'log.txt'), `[${word}]\n`);
    const turn = await answered(chat, 'What does @diff change?');
    expect([await labels(turn), await answerText(turn)]).toEqual([['Changes'], expect.stringContaining('It can be')]);
  });

  test("attaches the terminal's selection", async () => {
    const { page } = editor();
    await editor().command('Terminal: Create New Terminal');
    const terminal = page.locator('.terminal-wrapper.active');
    await terminal.locator('.xterm-screen').waitFor();
    const printed = join(editor().workspace, 'log.txt');
    await terminal.locator('.xterm-helper-textarea').pressSequentially(`cat ${printed} && echo over > over.txt\n`);
    await expect.poll(() => readOr(editor(), 'over.txt')).toBe('over\n');
    await editor().command('Terminal: Select All');
    const chat = await editor().newChat();
    const turn = await answered(chat, 'What does @terminal say?');
    expect([await labels(turn), await answerText(turn)]).toEqual([['Terminal'], expect.stringContaining('It can be')]);
    await editor().command('Terminal: Kill All Terminals');
  });

  test('starts from the light bulb, about a problem or the selection', async () => {
    const { page } = editor();
    const chat = await editor().newChat();
    // The submenu's empty panel has the same class.
    const offers = page.locator('.action-widget:not(.action-list-submenu-panel)');
    const choose = async (text: string) => {
      const offer = offers.locator('.monaco-list-row', { hasText: text });
      // VS Code waits briefly for extensions; an open list is not updated.
      const offered = async () => {
        if (await offers.isVisible()) await page.keyboard.press('Escape');
        await offers.waitFor({ state: 'hidden' });
        await page.keyboard.press('Control+.');
        await offers.waitFor();
        // The rows appear after the list's frame.
        return offer.waitFor({ timeout: 2_000 }).then(
          () => true,
          () => false,
        );
      };
      await expect.poll(offered).toBe(true);
      await offer.click();
      await offers.waitFor({ state: 'hidden' });
    };
    await editor().openFile('broken.json');
    await page.locator('.squiggly-error').first().waitFor();
    await editor().command('Go to Next Problem in Files');
    await choose('Fix with Hearth');
    const turn = chat.locator('.turn').last();
    await turn.locator('.question-text', { hasText: 'broken.json:1: error: ' }).waitFor();
    await untilEnded(turn, 'done');
    await editor().openFile('sums.py');
    await page.keyboard.press('Control+Home');
    await page.keyboard.press('Shift+ArrowDown');
    await page.keyboard.press('Shift+End');
    await choose('Explain with Hearth');
    await turn.locator('.question-text', { hasText: 'Explain this code.' }).waitFor();
    await untilEnded(turn, 'done');
    expect(await labels(turn)).toEqual(['sums.py:1–2']);
  });

  test('writes a commit message into the source control box without a chat', async () => {
    const { page } = editor();
    writeFileSync(join(editor().workspace, 'log.txt'), 'nothing\n');
    await page.keyboard.press('Control+Shift+G');
    // A view shows its actions on hover or focus.
    await page.locator('.part.sidebar .pane-header').first().hover();
    await page.locator('.part.sidebar a[aria-label="Hearth: Write a Commit Message"]').first().click();
    const message = page.locator('.scm-editor .view-lines').first();
    const written = async () => (await message.innerText()).replaceAll(/\s+/g, ' ').trim();
    // The sampler holds it to one subject line, whatever the model would say.
    await expect.poll(written).toMatch(/^\S.{1,70}\S$/);
    expect(await written()).not.toContain(answer);
  });

  test('summarises a folder from its files', async () => {
    const { page } = editor();
    await page.keyboard.press('Control+Shift+E');
    const row = page.locator('.explorer-folders-view .monaco-list-row[aria-label^="src"]');
    // Rows move until the list is complete.
    await page.locator('.explorer-folders-view .monaco-list-row', { hasText: 'sums.py' }).waitFor();
    await row.hover();
    await row.click({ button: 'right' });
    // A menu ignores clicks while it opens.
    const item = page.getByRole('menuitem', { name: 'Hearth: Summarise Folder' });
    const chosen = async () => {
      await item.click({ timeout: 1_000 }).catch(() => undefined);
      return (await item.count()) === 0;
    };
    await expect.poll(chosen, { timeout: 20_000 }).toBe(true);
    const turn = (await editor().chat()).locator('.turn[data-kind=summary]');
    await untilEnded(turn, 'done');
    expect(await answerText(turn)).toContain('src/lamp.py:1: It can be written so.');
    await turn.locator('.citation', { hasText: 'src/lamp.py:1' }).click();
    await page.locator('.tab.active[data-resource-name="lamp.py"]').waitFor();
  });
});

function readOr(editor: Editor, path: string): string {
  try {
    return editor.read(path);
  } catch {
    return '';
  }
}
