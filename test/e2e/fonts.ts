/** Fonts that ship with the tests, so that layout does not depend on the machine's fonts. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { projectRoot } from '../../scripts/shared/paths.ts';

/** From npm's @fontsource (SIL Open Font License): a plain one, Debian's wide one, and one wider than any system font. */
export const families = ['inter', 'dejavu-sans', 'opendyslexic'] as const;
export type Family = (typeof families)[number];

/** Makes the page use the family. It is loaded from bytes, which the CSP allows. */
export async function useFont(page: Page, family: Family): Promise<void> {
  const folder = join(projectRoot, 'node_modules', '@fontsource', family, 'files');
  for (const weight of ['400', '700']) {
    const bytes = readFileSync(join(folder, `${family}-latin-${weight}-normal.woff2`)).toString('base64');
    await page.evaluate(
      async ([name, text, of]) => {
        const font = new FontFace(
          name,
          Uint8Array.from(atob(text), (char) => char.charCodeAt(0)),
          { weight: of },
        );
        document.fonts.add(await font.load());
      },
      [family, bytes, weight] as const,
    );
  }
  await page.evaluate((name) => {
    for (const variable of ['--vscode-font-family', '--vscode-editor-font-family']) {
      document.documentElement.style.setProperty(variable, name);
    }
  }, family);
}
