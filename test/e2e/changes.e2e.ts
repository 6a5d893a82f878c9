/** Targets of an answer's code: a new file, the terminal, or a change accepted part by part. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';
import { writeScriptedModel } from './scriptedModel.ts';
import { answered } from './turns.ts';

/** The model answers with `report` if this character is in the prompt. */
const word = '薪';
const util = 'export const two = 2;';
const answer = `Create \`play/util.js\`:\n\n\`\`\`js\n${util}\n\`\`\`\n\nThen run it:\n\n\`\`\`sh\nnode play/util.js\n\`\`\``;
const sums = `# [${word}]\ndef add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    return a - b\n`;
const after = sums.replace('a + b', 'b + a').replace('a - b', '-b + a');
const report = `Both turn round.\n\n\`\`\`python\n${after.slice(after.indexOf('def add'))}\`\`\``;

const folder = mkdtempSync(join(tmpdir(), 'hearth-scripted-'));
const model = join(folder, 'scripted');
const machineSettings = { 'hearth.chat.model': model, 'hearth.completion.enabled': false };
const settings = { 'hearth.chat.includeActiveFile': false, 'hearth.chat.searchWorkspace': false };

describeInEditor('code of an answer', { files: { 'sums.py': sums }, settings, machineSettings }, (editor) => {
  beforeAll(() => writeScriptedModel(model, { thought: ' Hm.', answer, report, done: word }));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const tab = (name: string) => editor().page.locator('.tab.active', { hasText: name });
  const press = async (title: string) => {
    const button = editor().page.locator(`.editor-actions a[aria-label="${title}"]`);
    await button.click();
  };

  test('becomes a new file if the answer names one, once it is accepted', async () => {
    const turn = await answered(await editor().openChat(), 'How do I export two?');
    await turn.locator('[data-action=apply]').first().click();
    await tab('util.js: new file').waitFor();
    await editor().screenshot('new-file');
    expect(existsSync(join(editor().workspace, 'play/util.js'))).toBe(false);
    await press('Accept the Change');
    await editor().page.locator('.tab.active[data-resource-name="util.js"]').waitFor();
    const written = () => existsSync(join(editor().workspace, 'play/util.js')) && editor().read('play/util.js');
    await expect.poll(written).toBe(`${util}\n`);
  });

  test('is put into the terminal if it is a command, and is not run', async () => {
    const { page } = editor();
    await (await editor().chat()).locator('.turn [data-action=run]').click();
    const terminal = page.locator('.terminal-wrapper.active');
    await terminal.locator('.xterm-screen').waitFor();
    await page.waitForTimeout(2_000);
    await editor().screenshot('run-in-terminal');
    // The terminal draws on a canvas, so the test completes the line and runs it.
    await terminal.locator('.xterm-helper-textarea').pressSequentially(' && echo "ran" > ran.txt\n');
    await expect.poll(() => existsSync(join(editor().workspace, 'ran.txt')), { timeout: 20_000 }).toBe(true);
    expect(editor().read('ran.txt')).toBe('ran\n');
    await editor().command('Terminal: Kill All Terminals');
  });

  test('is accepted part by part: the part at the cursor is written, the other stays a proposal', async () => {
    const { page } = editor();
    const turn = await answered(await editor().newChat(), 'How do I turn @file:sums.py round?');
    await turn.locator('[data-action=apply]').click();
    await tab('sums.py: proposed change').waitFor();
    const first = sums.replace('a + b', 'b + a');
    await page.locator('.editor-group-container.active .modified-in-monaco-diff-editor .view-lines').click();
    await page.keyboard.press('Control+Home');
    await press('Accept This Part of the Change');
    await editor().screenshot('one-part');
    await tab('sums.py: proposed change').waitFor();
    await page.keyboard.press('Control+End');
    await press('Accept This Part of the Change');
    await tab('sums.py: proposed change').waitFor({ state: 'detached' });
    await editor().openFile('sums.py');
    await page.keyboard.press('Control+Z');
    await page.keyboard.press('Control+S');
    // Undo reverts only the second part.
    await expect.poll(() => editor().read('sums.py')).toBe(first);
    await page.keyboard.press('Control+Shift+Z');
    await page.keyboard.press('Control+S');
    await expect.poll(() => editor().read('sums.py')).toBe(after);
  });
});
