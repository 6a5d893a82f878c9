/** A change of one line, offered again at the next similar place. */
import { expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';

const text = `let total = 0;
other();
total += 1;
subtotal();
return total;
`;

describeInEditor(
  'the next edit',
  { files: { 'sums.js': text }, settings: { 'hearth.completion.enabled': false } },
  (editor) => {
    test('is gone to and made by Tab, and dismissed by Escape', async () => {
      const { keyboard } = editor().page;
      const offer = (says: string) => editor().page.locator('.view-lines', { hasText: says.replaceAll(' ', '\u00a0') });
      await editor().openFile('sums.js');
      await keyboard.press('Control+Home');
      for (let i = 0; i < 'let '.length; i++) await keyboard.press('ArrowRight');
      for (let i = 0; i < 'total'.length; i++) await keyboard.press('Shift+ArrowRight');
      await keyboard.type('sum');
      await offer('same change in line 3').waitFor();
      await editor().screenshot('next-edit');
      await keyboard.press('Tab');
      await offer('Tab to accept').waitFor();
      await keyboard.press('Tab');
      await offer('same change in line 5').waitFor();
      await keyboard.press('Escape');
      await offer('same change in line 5').waitFor({ state: 'detached' });
      await keyboard.press('Control+S');
      const changed = text.replace('total = 0', 'sum = 0').replace('total += 1', 'sum += 1');
      await expect.poll(() => editor().read('sums.js')).toBe(changed);
    });
  },
);
