/** Patterns as automata, against V8's own regular expressions. */
import { describe, expect, it } from 'vitest';
import { patternDfa } from '../../../engine/grammar/patterns.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';

const patterns = [
  '^a*$',
  'a',
  '',
  '^$',
  '$',
  'a$|^b',
  '^(?=.*\\d)(?=.*[a-z]).{4,}$',
  '^(?!foo)',
  '^(?!.*\\b(a|bb)\\b).+$',
  '\\bfoo\\b',
  '^(?=.*\\bfoo\\b)',
  '\\Bx',
  '^\\p{L}+$',
  '^\\P{L}*$',
  '^(?<!a)b',
  '(?<=a)b',
  '(?<=ab*)c',
  '(?<!\\d)\\d{2}(?!\\d)',
  'x(?=y(?!z))',
  '^(?:(?!--).)*$',
  '^[0-9]{3}-[0-9]{4}$',
  '^(19|20)\\d\\d-(0[1-9]|1[012])$',
  '[^\\x00-\\x7F]',
  '🐲*x',
  '^(?=a)b$',
  '^\\W*$',
  'a{2,4}b?c+',
  '^(?:a|b(?=c))+c?$',
  '(?!$)a?',
  '^.{1,5}$',
  '^[\\s\\S]*$',
  '^(?<name>a|b)+\\.$',
  // Without the flag u alone: an escape that needs none.
  '^\\S+\\-\\d$',
  '^[\\w.\\-]+$',
];
const alphabet = [...'ab c1fo-.@xyz\n_éZ9🐲"\\'];
const words = [
  'foo',
  'a foo b',
  'afoob',
  'food',
  '555-1212',
  '2020-01',
  '12',
  '123',
  '🐲x',
  'a--b',
  'abbbc',
  'a.',
  'b\u2028',
];

function native(pattern: string): RegExp {
  try {
    return new RegExp(pattern, 'u');
  } catch {
    return new RegExp(pattern);
  }
}

describe('A pattern', () => {
  it.each(patterns)('is found in the texts in which V8 finds it: %s', (pattern) => {
    const dfa = patternDfa(pattern);
    const expected = native(pattern);
    const random = seededRandom(7);
    const pick = (): string => alphabet[Math.floor(random() * alphabet.length)] ?? '';
    const texts = [...words, ...Array.from({ length: 1000 }, (_, i) => Array.from({ length: i % 10 }, pick).join(''))];
    expect(texts.filter((text) => dfa.has(text) !== expected.test(text))).toEqual([]);
  });

  it('may set flags as Python and PCRE do', () => {
    expect(['ABC', 'abd'].map((text) => patternDfa('(?i)^abc$').has(text))).toEqual([true, false]);
    expect(patternDfa('(?s)^a.b$').has('a\nb')).toBe(true);
  });

  it.each(['(', '[b-a]', '(a*)\\1', '(?<=a(?=b))c'])(
    'is refused if it is invalid or no automaton can enforce it: %s',
    (pattern) => {
      expect(() => patternDfa(pattern)).toThrow();
    },
  );

  it.each(['(a{1,200}){1,200}', '(?=.*a.{14})(?=.*b.{13})(?=.*c.{12}).*d.{15}', '(x+x+)+y{300}(a|aa){3000}'])(
    'is enforced or refused within a bound: %s',
    (pattern) => {
      try {
        expect(patternDfa(pattern).edges.length).toBeLessThanOrEqual(5000);
      } catch (error) {
        expect(String(error)).toMatch(/too many .* \(at most \d+\)/);
      }
    },
  );
});
