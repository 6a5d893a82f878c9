/** Inline completion by the real model, while typing. */
import { expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';

const typed = 'def add(a, b):\n    """Return the sum of a and b."""\n    return ';

describeInEditor('inline completion', { files: { 'sums.py': 'import math\n' } }, (editor) => {
  test('shows a suggestion, which Tab accepts', async () => {
    const { page } = editor();
    await editor().openFile('sums.py');
    await page.keyboard.press('Control+End');
    // The first key loads the model; completions follow.
    await page.keyboard.type('\n');
    await editor().statusItem('SmolLM2').waitFor();
    await page.keyboard.type(typed, { delay: 15 });
    const ghost = page.locator('.ghost-text-decoration, .ghost-text-decoration-preview').first();
    await ghost.waitFor();
    const offered = (await ghost.textContent())?.replaceAll('\u00a0', ' ') ?? '';
    await editor().screenshot('completion');
    await page.keyboard.press('Tab');
    await ghost.waitFor({ state: 'detached' });
    await page.keyboard.press('Control+S');
    await expect.poll(() => editor().read('sums.py')).toContain(`return ${offered}`);
    expect(offered.trim()).not.toBe('');
  });

  test('offers nothing while paused', async () => {
    const { page } = editor();
    await editor().command('Hearth: Pause or Resume Completions');
    await page.keyboard.press('Control+End');
    await page.keyboard.type('\n\ndef subtract(a, b):\n    return ', { delay: 15 });
    await page.waitForTimeout(3_000);
    expect(await page.locator('.ghost-text-decoration').count()).toBe(0);
    await editor().command('Hearth: Pause or Resume Completions');
    await page.keyboard.type('a');
    await page.keyboard.press('Backspace');
    await page.locator('.ghost-text-decoration').first().waitFor();
  });
});
