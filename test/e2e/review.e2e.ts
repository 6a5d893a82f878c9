/** Reviews, branch descriptions, suggested names and failed commands, with models whose answers are known in advance. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeInEditor, type Editor } from './editor.ts';
import { writeScriptedModel } from './scriptedModel.ts';
import { untilEnded } from './turns.ts';

/** The model gives its second answer if the prompt contains this character. */
const word = '薪';
const committed = 'def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    return a - b\n';
const changed = committed.replace('return a + b', 'return a - b');
const review = '{"comments": [{"line": 2, "comment": "This subtracts. Return a + b instead."}]}';
const description = '{"title": "Subtract in add", "summary": "Sums are differences now.", "changes": ["Change add"]}';

const folder = mkdtempSync(join(tmpdir(), 'hearth-scripted-'));
const model = join(folder, 'scripted');
const naming = join(folder, 'naming');
const settingsOf = (chat: string) => ({ 'hearth.chat.model': chat, 'hearth.completion.enabled': false });
const notice = ({ page }: Editor, text: string) => page.locator('.notification-toast', { hasText: text });

const settings = {
  'hearth.chat.includeActiveFile': false,
  'window.autoDetectColorScheme': true,
  'window.autoDetectHighContrast': true,
};
const themes = {
  light: { colorScheme: 'light', forcedColors: 'none' },
  dark: { colorScheme: 'dark', forcedColors: 'none' },
  'high-contrast': { colorScheme: 'dark', forcedColors: 'active' },
} as const;

async function inThemes(editor: Editor, name: string): Promise<void> {
  for (const [theme, media] of Object.entries(themes)) {
    await editor.page.emulateMedia(media);
    await editor.page
      .locator(`.monaco-workbench.${{ light: 'vs', dark: 'vs-dark', 'high-contrast': 'hc-black' }[theme]}`)
      .waitFor();
    await editor.screenshot(`${name}-${theme}`);
  }
}

describeInEditor(
  'a review',
  { files: { 'sums.py': committed }, settings, machineSettings: settingsOf(model), git: true },
  (editor) => {
    beforeAll(() => writeScriptedModel(model, { thought: ' Hm.', answer: review, report: description, done: word }));
    afterAll(() => rmSync(model, { recursive: true, force: true }));

    const comments = () => editor().page.locator('.editor-group-container.active .review-widget');

    test('puts a comment at the changed line, which follows it', async () => {
      writeFileSync(join(editor().workspace, 'sums.py'), changed);
      await editor().openFile('sums.py');
      await editor().command('Hearth: Review the Changes');
      await notice(editor(), 'Comments: 1. Files: 1.').waitFor();
      await comments().filter({ hasText: 'Return a + b instead.' }).waitFor();
      await editor().page.keyboard.press('Escape');
      await inThemes(editor(), 'review');
      await editor().openFile('sums.py');
      await editor().page.keyboard.press('Control+Home');
      await editor().page.keyboard.type('# Sums.\n');
      // The comments panel shows the line.
      await editor().command('Comments: Focus on Comments View');
      await editor().page.locator('.comments-panel .monaco-list-row', { hasText: 'Ln 3' }).waitFor();
    });

    test('lets a comment be resolved and dismissed', async () => {
      const { page } = editor();
      await comments().first().hover();
      await comments().locator('a[aria-label="Resolve"]').first().click();
      await comments().first().waitFor({ state: 'hidden' });
      await page.locator('.comments-panel .monaco-list-row', { hasText: 'Ln 3' }).click();
      await comments().locator('a[aria-label="Reopen"]').first().waitFor();
      await editor().command('Hearth: Clear the Review');
      await expect.poll(() => comments().count()).toBe(0);
      await editor().openFile('sums.py');
      await page.keyboard.press('Control+Z');
      await page.keyboard.press('Control+S');
      await page.locator('.tab.active.dirty').waitFor({ state: 'detached' });
    });

    test('of a branch covers its commits; its pull request can be described', async () => {
      const git = (...args: string[]) =>
        execFileSync('git', ['-c', 'user.name=Test', '-c', 'user.email=test@localhost', ...args], {
          cwd: editor().workspace,
        });
      git('branch', '--move', '--force', 'main');
      git('checkout', '--quiet', '-b', 'feature');
      writeFileSync(join(editor().workspace, 'sums.py'), changed);
      git('commit', '--quiet', '--all', '--message', 'Subtract');
      // The git extension notices the branch.
      await editor().statusItem('feature').waitFor();
      await editor().command('Hearth: Review the Branch');
      await notice(editor(), 'Comments: 1. Files: 1.').waitFor();
      git('commit', '--quiet', '--allow-empty', '--message', `Light ${word}`);
      await editor().command('Hearth: Describe the Pull Request');
      const lines = editor().page.locator('.editor-group-container.active .view-lines', { hasText: 'Subtract in add' });
      await lines.waitFor();
      await editor().screenshot('pull-request');
      expect((await lines.innerText()).replaceAll(/\s+/g, ' ')).toContain('Sums are differences now.');
    });
  },
);

/** Maximum time for TypeScript's server to start on a busy machine. */
const startMs = 100_000;

const names = '{"names": ["sumOf"]}';
const code = 'export function f(a: number, b: number): number {\n  return a + b;\n}\n\nexport const three = f(1, 2);\n';

describeInEditor(
  'names and failures',
  { files: { 'sums.ts': code }, settings, machineSettings: settingsOf(naming) },
  (editor) => {
    beforeAll(() => writeScriptedModel(naming, { thought: ' Hm.', answer: names, report: 'Never.', done: word }));
    afterAll(() => rmSync(folder, { recursive: true, force: true }));

    test('a name is suggested, and renames the symbol everywhere', { timeout: 2 * startMs }, async () => {
      const { page } = editor();
      await editor().openFile('sums.ts');
      await page.keyboard.press('Control+Home');
      for (let i = 0; i < 'export function '.length; i++) await page.keyboard.press('ArrowRight');
      const row = page.locator('.quick-input-list .monaco-list-row', { hasText: 'sumOf' });
      const nothing = page.locator('.notification-list-item', { hasText: 'Nothing can be renamed here' });
      // TypeScript's server takes seconds to start, and until then nothing can be renamed.
      await expect
        .poll(
          async () => {
            await editor().command('Hearth: Suggest a Name');
            await row.or(nothing).first().waitFor();
            if (await row.isVisible()) return true;
            await editor().command('Notifications: Clear All Notifications');
            return false;
          },
          { timeout: startMs },
        )
        .toBe(true);
      await editor().screenshot('names');
      await row.click();
      await page.locator('.tab.active.dirty').waitFor();
      await page.keyboard.press('Control+S');
      await expect.poll(() => editor().read('sums.ts')).toBe(code.replace('f(a', 'sumOf(a').replace('f(1', 'sumOf(1'));
    });

    test('a failed command is explained, with its output', async () => {
      const { page } = editor();
      await editor().command('Terminal: Create New Terminal');
      await page.locator('.terminal.xterm.focus').waitFor();
      // A shell without integration reports no exit codes.
      await page.locator('.terminal-command-decoration').first().waitFor({ state: 'attached' });
      await page.keyboard.type('ls nowhere-at-all\n');
      await page.locator('.terminal-command-decoration.error').first().waitFor({ state: 'attached' });
      await editor().command("Hearth: Explain the Terminal's Last Failure");
      const chat = await editor().chat();
      const turn = chat.locator('.turn').last();
      await untilEnded(turn, 'done');
      expect(await turn.locator('.question .chip').allTextContents()).toEqual(['ls nowhere-at-all']);
      await inThemes(editor(), 'failure');
    });
  },
);
