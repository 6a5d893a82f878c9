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
    test('is reached and applied by Tab, and dismissed by Escape', async () => {
      const { page } = editor();
      const { keyboard } = page;
      // Decorations draw their text with `::after`, so it is not in the DOM.
      const offers = (says: string, expected = true) =>
        page.waitForFunction(
          ([wanted, shown]) =>
            [...document.querySelectorAll('.view-lines span')].some((own) =>
              getComputedStyle(own, '::after').content.replaceAll('\u00a0', ' ').includes(wanted),
            ) === shown,
          [says, expected] as const,
        );
      await editor().openFile('sums.js');
      await keyboard.press('Control+Home');
      for (let i = 0; i < 'let '.length; i++) await keyboard.press('ArrowRight');
      for (let i = 0; i < 'total'.length; i++) await keyboard.press('Shift+ArrowRight');
      await keyboard.type('sum');
      await offers('same change on line 3');
      await editor().screenshot('next-edit');
      await keyboard.press('Tab');
      await offers('Tab to accept');
      await keyboard.press('Tab');
      await offers('same change on line 5');
      await keyboard.press('Escape');
      await offers('same change on line 5', false);
      await keyboard.press('Control+S');
      const changed = text.replace('total = 0', 'sum = 0').replace('total += 1', 'sum += 1');
      await expect.poll(() => editor().read('sums.js')).toBe(changed);
    });
  },
);
