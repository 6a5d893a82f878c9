/** An answer that changes several files: one set, accepted together or one by one, with a checkpoint that outlives the window. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Locator } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';
import { writeScriptedModel } from './scriptedModel.ts';
import { answered } from './turns.ts';

// A sentence is one token of the scripted model, so none may occur twice.
const answer = [
  '### `src/sums.py`\n\n```python\ndef add(a, b):\n    total = a + b\n    return total\n```\n\n',
  'Then in `web/app.js`:\n\n```diff\n--- a/web/app.js\n+++ b/web/app.js\n@@ -1,2 +1,2 @@\n-const first = 1;\n+const first = 100;\n const second = 2;\n```\n\n',
  'Create `src/fresh.py`:\n\n```python\nFRESH = True\n```\n\n',
  'Rename `old.txt` to `new.txt`.\n\nDelete `gone.bin`.\n\n',
  'Create `/tmp/hearth-outside.py`:\n\n```python\nOUT = 1\n```\n\nPut this into `.git/hooks/pre-commit.py`:\n\n```python\nHOOK = 1\n```\n',
].join('');
const files = {
  'src/sums.py':
    '\uFEFF# Sums.\r\ndef add(a, b):\r\n    return a + b\r\n\n\r\ndef subtract(a, b):\r\n    return a - b\r\n',
  'web/app.js': 'const first = 1;\nconst second = 2;\n',
  'old.txt': 'Old words.\n',
  'gone.bin': '\u0000\u0001\u00ff',
};
type Path = keyof typeof files;

const folder = mkdtempSync(join(tmpdir(), 'hearth-scripted-'));
const model = join(folder, 'scripted');
const options = {
  files,
  settings: {
    'window.autoDetectColorScheme': true,
    'hearth.chat.includeActiveFile': false,
    'hearth.chat.searchWorkspace': false,
  },
  machineSettings: { 'hearth.chat.model': model, 'hearth.completion.enabled': false },
};

describeInEditor('an answer that changes several files', options, (editor) => {
  beforeAll(() => writeScriptedModel(model, { thought: ' Hm.', answer, report: 'Never.', done: '薪' }));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const at = (path: string) => join(editor().workspace, path);
  const isThere = (path: string) => existsSync(at(path));
  const untouched = () =>
    Object.keys(files).every((path) => isThere(path) && editor().read(path) === files[path as Path]);
  const row = (card: Locator, path: string) => card.locator(`li[data-path="${path}"]`);
  const card = async () => (await editor().chat()).locator('.turn .changes').last();
  const notified = (text: string) => editor().page.locator('.notification-toast', { hasText: text }).first().waitFor();

  test('is one list with counts, and nothing is written', async () => {
    const turn = await answered(await editor().openChat(), 'How?');
    const list = turn.locator('.changes li');
    await expect.poll(() => list.count()).toBe(5);
    expect(
      await list.evaluateAll((rows) => rows.map(({ dataset }) => `${dataset['kind']} ${dataset['path']}`).sort()),
    ).toEqual(['change src/sums.py', 'change web/app.js', 'create src/fresh.py', 'delete gone.bin', 'rename old.txt']);
    expect(await row(turn, 'src/sums.py').locator('.counts').innerText()).toMatch(/\+2\s*−1/);
    expect(untouched()).toBe(true);
    expect(isThere('src/fresh.py')).toBe(false);
    await editor().page.setViewportSize({ width: 1280, height: 1000 });
    await editor().screenshot('change-set');
  });

  test('shows the diff of each file, and accepts one part of it', async () => {
    const { page } = editor();
    await row(await card(), 'old.txt')
      .locator('.changed-file')
      .click();
    await page.locator('.tab.active', { hasText: 'old.txt → new.txt' }).waitFor();
    await row(await card(), 'src/sums.py')
      .locator('.changed-file')
      .click();
    await page.locator('.tab.active', { hasText: 'sums.py: proposed change' }).waitFor();
    await editor().screenshot('change-set-diff');
    expect(untouched()).toBe(true);
    await page.locator('.editor-actions a[aria-label="Accept the Change"]').click();
    await row(await card(), 'src/sums.py')
      .and((await card()).locator('[data-state=accepted]'))
      .waitFor();
    await page.locator('.tab', { hasText: 'sums.py: proposed change' }).waitFor({ state: 'detached' });
    expect(editor().read('src/sums.py')).toContain('    total = a + b\r\n    return total\r\n');
    expect(editor().read('web/app.js')).toBe(files['web/app.js']);
  });

  test('is written as a whole', async () => {
    await (await card()).locator('.card-actions [data-act=accept]').click();
    await expect.poll(async () => (await card()).locator('li[data-state=accepted]').count()).toBe(5);
    expect(editor().read('web/app.js')).toBe('const first = 100;\nconst second = 2;\n');
    expect(editor().read('src/fresh.py')).toBe('FRESH = True\n');
    expect([isThere('gone.bin'), isThere('old.txt'), editor().read('new.txt')]).toEqual([
      false,
      false,
      files['old.txt'],
    ]);
    expect([existsSync('/tmp/hearth-outside.py'), isThere('.git')]).toEqual([false, false]);
    await editor().screenshot('change-set-accepted');
  });

  test('is restored byte for byte after the window was reloaded', async () => {
    await editor().reload();
    await editor().openChat();
    await (await card()).locator('[data-act=restore]').click();
    await notified('Restored: ');
    expect(untouched()).toBe(true);
    expect([isThere('src/fresh.py'), isThere('new.txt')]).toEqual([false, false]);
    await expect.poll(async () => (await card()).locator('li[data-state=proposed]').count()).toBe(5);
  });

  test('asks before it overwrites later edits, and keeps them', async () => {
    const { page } = editor();
    await (await card()).locator('.card-actions [data-act=accept]').click();
    await expect.poll(async () => (await card()).locator('li[data-state=accepted]').count()).toBe(5);
    writeFileSync(at('web/app.js'), 'const mine = 1;\n');
    await (await card()).locator('[data-act=restore]').click();
    const dialog = page.locator('.monaco-dialog-box', { hasText: 'web/app.js' });
    await dialog.waitFor();
    await editor().screenshot('change-set-edited');
    await dialog.getByRole('button', { name: 'Keep Them' }).click();
    await notified('Left as they are: web/app.js');
    await expect.poll(async () => (await card()).locator('li[data-state=proposed]').count()).toBe(4);
    expect(editor().read('web/app.js')).toBe('const mine = 1;\n');
    expect(editor().read('src/sums.py')).toBe(files['src/sums.py']);
  });

  test('writes none of the files if one has changed since', async () => {
    writeFileSync(at('old.txt'), 'Newer words.\n');
    await (await card()).locator('.card-actions [data-act=accept]').click();
    await notified('old.txt has changed since this proposal. Nothing was written.');
    expect(editor().read('src/sums.py')).toBe(files['src/sums.py']);
    expect(isThere('src/fresh.py')).toBe(false);
  });

  test('is shown in the light theme', async () => {
    await editor().page.emulateMedia({ colorScheme: 'light' });
    await (await editor().chat()).locator('body.vscode-light').waitFor();
    await editor().screenshot('change-set-light');
  });
});
