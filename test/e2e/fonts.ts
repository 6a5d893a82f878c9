/** Fonts that the tests bring with them: a layout must not depend on those of one machine. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { projectRoot } from '../../scripts/shared/paths.ts';

/** Of npm's @fontsource, each under the SIL Open Font License: a plain one, Debian's wide one, and one wider than any system's. */
export const families = ['inter', 'dejavu-sans', 'opendyslexic'] as const;
export type Family = (typeof families)[number];

/** Loads the family, which needs no permission of the page's policy since it comes as bytes, and has the page use it. */
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
