/** Edit in place, with a model whose answer is known in advance. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeInEditor, type Editor } from './editor.ts';
import { writeScriptedModel } from './scriptedModel.ts';

const answer = '```python\ndef add(a, b):\n    total = a + b\n    return total\n```';
const sums = '# Sums.\ndef add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    return a - b\n';
const changed = sums.replace('    return a + b', '    total = a + b\n    return total');

const add = 'def add(a, b):\n    return a + b';
const changedAdd = 'def add(a, b):\n    total = a + b\n    return total';
const cell = { cell_type: 'code', execution_count: null, id: 'a', metadata: {}, outputs: [] };
const notebook = { cells: [{ ...cell, source: add.split(/(?<=\n)/) }], metadata: {}, nbformat: 4, nbformat_minor: 5 };

const folder = mkdtempSync(join(tmpdir(), 'hearth-scripted-'));
const model = join(folder, 'scripted');
const options = {
  files: { 'sums.py': sums, 'sums.ipynb': JSON.stringify(notebook) },
  machineSettings: { 'hearth.chat.model': model, 'hearth.completion.enabled': false, 'hearth.nextEdit.enabled': false },
};

async function selectAdd(editor: Editor): Promise<void> {
  await editor.openFile('sums.py');
  const { keyboard } = editor.page;
  await keyboard.press('Control+Home');
  await keyboard.press('ArrowDown');
  await keyboard.press('Shift+ArrowDown');
  await keyboard.press('Shift+End');
}

/** Asks for an edit of the selection, and waits until the answer is whole. */
async function edit(editor: Editor, instruction: string): Promise<void> {
  const { page } = editor;
  await page.keyboard.press('Control+I');
  const input = page.locator('.quick-input-widget', { hasText: 'with Hearth' }).locator('input.input').first();
  await input.fill(instruction);
  await input.press('Enter');
  await lens(editor, 'Change the Instruction').waitFor();
}

const lens = ({ page }: Editor, title: string) => page.locator('.codelens-decoration a', { hasText: title }).first();

async function saved(editor: Editor): Promise<string> {
  await editor.page.keyboard.press('Control+S');
  await expect.poll(() => editor.page.locator('.tab.active.dirty').count()).toBe(0);
  return editor.read('sums.py');
}

describeInEditor('an edit in place', options, (editor) => {
  beforeAll(() => writeScriptedModel(model, { thought: ' Hm.', answer, report: 'Never.', done: '薪' }));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('shows old and new lines, and is written when it is accepted', async () => {
    await selectAdd(editor());
    await edit(editor(), 'Name the sum');
    const decorated = editor().page.locator(
      '.editor-group-container.active .view-overlays [class*=TextEditorDecorationType]',
    );
    await expect.poll(() => decorated.count()).toBe(3);
    await editor().screenshot('edit-in-place');
    expect(editor().read('sums.py')).toBe(sums);
    await editor().page.keyboard.press('Control+Enter');
    await expect.poll(() => decorated.count()).toBe(0);
    expect(await saved(editor())).toBe(changed);
  });

  test('is one step for undo', async () => {
    await editor().page.keyboard.press('Control+Z');
    expect(await saved(editor())).toBe(sums);
  });

  test('leaves the file as it was when it is rejected', async () => {
    await selectAdd(editor());
    await edit(editor(), 'Name the sum');
    await lens(editor(), 'Reject').click();
    await lens(editor(), 'Change the Instruction').waitFor({ state: 'detached' });
    expect(await saved(editor())).toBe(sums);
  });

  test('changes an untitled file', async () => {
    const { page } = editor();
    // Behind the last tab.
    await page.locator('.editor-group-container.active .tabs-container').dblclick({ position: { x: 500, y: 15 } });
    await page.locator('.tab.active[data-resource-name^="Untitled"]').waitFor();
    // Without the brackets and indents that typing adds.
    await page.keyboard.insertText(add);
    await page.keyboard.press('Control+A');
    await edit(editor(), 'Name the sum');
    await page.keyboard.press('Control+Enter');
    await lens(editor(), 'Change the Instruction').waitFor({ state: 'detached' });
    const text = page.locator('.editor-group-container.active .view-lines').first();
    await expect.poll(async () => (await text.innerText()).replaceAll('\u00a0', ' ')).toBe(changedAdd);
  });

  test('changes the cell of a notebook', async () => {
    const { page } = editor();
    await editor().command('View: Close All Editors');
    await page.locator('.monaco-dialog-box .monaco-button', { hasText: "Don't Save" }).click();
    await editor().openNotebook('sums.ipynb');
    await page.locator('.notebookOverlay .cell .view-lines').first().click();
    await page.keyboard.press('Control+A');
    await edit(editor(), 'Name the sum');
    await editor().screenshot('edit-in-cell');
    await page.keyboard.press('Control+Enter');
    await lens(editor(), 'Change the Instruction').waitFor({ state: 'detached' });
    await page.keyboard.press('Control+S');
    const saved = () => JSON.parse(editor().read('sums.ipynb')).cells[0].source.join('');
    await expect.poll(saved).toBe(changedAdd);
  });
});
