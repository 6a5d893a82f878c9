/** Inline completion by the real model, while typing. */
import { expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';

// The editor indents the lines itself.
const typed = 'def add(a, b):\n"""Return the sum of a and b."""\nreturn ';
const start = 'import math\n\n';
const files = { 'sums.py': 'import math\n', 'products.py': start, 'differences.py': start };

describeInEditor('inline completion', { files }, (editor) => {
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

  test('is accepted word by word, and the rest stays offered', async () => {
    const { page } = editor();
    await editor().openFile('products.py');
    await page.keyboard.press('Control+End');
    await page.keyboard.type('def multiply(a, b):\n"""Return the product of a and b."""\nreturn ', { delay: 15 });
    const ghost = page.locator('.ghost-text-decoration, .ghost-text-decoration-preview').first();
    await ghost.waitFor();
    const offered = async () => ((await ghost.textContent()) ?? '').replaceAll('\u00a0', ' ');
    const before = await offered();
    await page.keyboard.press('Control+ArrowRight');
    await expect.poll(async () => before.length - (await offered()).length).toBeGreaterThan(0);
    const rest = await offered();
    expect(before.endsWith(rest)).toBe(true);
    await editor().screenshot('partial-accept');
    await page.keyboard.press('Escape');
    await page.keyboard.press('Control+S');
    const taken = before.slice(0, before.length - rest.length);
    await expect.poll(() => editor().read('products.py').trimEnd().endsWith(`return ${taken}`.trimEnd())).toBe(true);
  });

  test('offers nothing while paused', async () => {
    const { page } = editor();
    await editor().openFile('differences.py');
    const paused = editor().statusItem('SmolLM2').locator('.codicon-debug-pause');
    await editor().command('Hearth: Pause or Resume Completions');
    await paused.waitFor();
    await page.keyboard.press('Control+End');
    await page.keyboard.type('def subtract(a, b):\n"""Return the difference of a and b."""\nreturn ', { delay: 15 });
    await editor().command('Trigger Inline Suggestion');
    await page.waitForTimeout(3_000);
    expect(await page.locator('.ghost-text-decoration').count()).toBe(0);
    await editor().command('Hearth: Pause or Resume Completions');
    await paused.waitFor({ state: 'detached' });
    // An explicit request shows a suggestion of any confidence.
    await editor().command('Trigger Inline Suggestion');
    await page.locator('.ghost-text-decoration, .ghost-text-decoration-preview').first().waitFor();
  });
});
