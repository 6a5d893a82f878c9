/** True texts of real files, alone and with what models write beside them: a slice of `npm run proof:completion`. */
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { type CorpusFile, filesUnder } from '../../../scripts/completion/corpus.ts';
import { measure } from '../../../scripts/completion/measure.ts';

const folder = (path: string): string => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
const files: readonly CorpusFile[] = [
  // Not our own sources: each change of them would select other places.
  ...filesUnder(folder('node_modules/zod/src')),
  ...filesUnder(folder('node_modules/highlight.js'), '{lib,scss,styles}/**/*.*'),
  ...filesUnder(folder('node_modules'), '*/*.{json,md}'),
  ...filesUnder(folder('test/fixtures/completion')),
];

/** Largest share of shown texts that are neither the true text nor a beginning with which the file parses. */
const mostWrong = 0.04;

describe('a completion of real code', () => {
  it.each([...new Set(files.map(({ languageId }) => languageId))].toSorted())(
    'shows what is true: %s',
    async (language) => {
      const own = files.filter(({ languageId }) => languageId === language);
      const tally = await measure(own, 10, seededRandom(5));
      expect(tally.places).toBe(10);
      expect(tally.wrong / tally.cases).toBeLessThanOrEqual(mostWrong);
      expect(tally.nothing / tally.cases).toBeLessThanOrEqual(mostWrong);
    },
  );
});
