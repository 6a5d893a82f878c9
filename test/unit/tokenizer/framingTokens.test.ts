import { describe, expect, it } from 'vitest';
import { type AddedToken, AddedTokenFinder } from '../../../engine/tokenizer/tokenizer.ts';
import { seededRandom } from '../../fuzz/mutants.ts';

const tokensOf = (texts: readonly string[]): AddedToken[] => texts.map((text, id) => ({ id, text, special: true }));

/** The rule itself: at every place the longest token that is there, in whatever time it takes. */
function splitSlowly(tokens: readonly AddedToken[], text: string): (string | number)[] {
  const parts: (string | number)[] = [];
  let plain = '';
  for (let at = 0; at < text.length; ) {
    const there = tokens.filter((token) => text.startsWith(token.text, at));
    const [longest] = there.sort((a, b) => b.text.length - a.text.length || a.id - b.id);
    if (!longest) plain += text[at++];
    else {
      if (plain !== '') parts.push(plain);
      plain = '';
      parts.push(longest.id);
      at += longest.text.length;
    }
  }
  if (plain !== '') parts.push(plain);
  return parts;
}

describe('added tokens in a text', () => {
  it('are the longest at their position, as a slow reference finds them in 500 random vocabularies', () => {
    const random = seededRandom(5);
    const word = (letters: string, most: number): string =>
      Array.from(
        { length: 1 + Math.floor(random() * most) },
        () => letters[Math.floor(random() * letters.length)],
      ).join('');
    for (let round = 0; round < 500; round++) {
      const tokens = tokensOf(Array.from({ length: 1 + Math.floor(random() * 30) }, () => word('a<|\u{1f600}', 5)));
      const text = word('a<|b\u{1f600}', 60);
      expect(new AddedTokenFinder(tokens).split(text), JSON.stringify({ tokens, text })).toEqual(
        splitSlowly(tokens, text),
      );
    }
  });

  it('with a common beginning are found among 65,536', () => {
    const tokens = tokensOf(Array.from({ length: 65_536 }, (_, id) => `<|reserved_${id}|>`));
    const finder = new AddedTokenFinder(tokens);
    expect(finder.split('a<|reserved_65535|>b<|reserved_1|><|reserved_x|>')).toEqual([
      'a',
      65_535,
      'b',
      1,
      '<|reserved_x|>',
    ]);
    // Prefixes of each other: every one is the beginning of all that follow.
    const nested = tokensOf(Array.from({ length: 200 }, (_, id) => 'x'.repeat(id + 1)));
    expect(new AddedTokenFinder(nested).split('x'.repeat(450))).toEqual([199, 199, 49]);
  });
});
