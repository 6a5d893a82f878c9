/** Bounds on numbers, against JavaScript's own comparison of the same text. */
import { describe, expect, it } from 'vitest';
import {
  anyInteger,
  anyNumber,
  bounded,
  multipleOf,
  numberLiterals,
  otherNumber,
} from '../../../engine/grammar/numbers.ts';

const bounds = [
  0,
  -0,
  1,
  3,
  -5,
  -120,
  130,
  139,
  0.1,
  1.1,
  -0.1,
  1e30,
  0.001,
  99.99,
  1e-7,
  2 ** 53 - 1,
  1 - 2 ** 53,
  100,
  0.5,
];
const offsets = [0, 1, -1, 0.1, -0.1, 0.01, 1e-6, 10, -10, 0.5];
const near = [...bounds, 2, 4, 9, 10, 12, 13, 121, 0.11, 0.09, 1000, 1 / 3].flatMap((at) =>
  offsets.map((by) => at + by),
);
const plain = near.filter((value) => value === 0 || (Math.abs(value) < 1e21 && Math.abs(value) >= 1e-6));
const texts = [...new Set(plain.flatMap((value) => [value, -value]))].flatMap((value) => {
  const text = String(value);
  return text.includes('.') ? [text, `${text}0`] : [text, `${text}.0`, `${text}.25`];
});

const compare = {
  '<=': (value: number, bound: number) => value <= bound,
  '<': (value: number, bound: number) => value < bound,
  '>=': (value: number, bound: number) => value >= bound,
  '>': (value: number, bound: number) => value > bound,
} as const;

describe('A bound', () => {
  for (const relation of ['<=', '<', '>=', '>'] as const) {
    it.each(bounds)(`accepts the numbers that are ${relation} %d`, (bound) => {
      const set = bounded(relation, bound).and(anyNumber());
      const wrong = texts.filter((text) => {
        const value = Number(text);
        const isTaken = set.has(text);
        // Of texts that a double rounds, some that would be rounded over the bound are not taken.
        const isRounded = text.replace(/\.?0+$/, '') !== String(value).replace(/\.?0+$/, '');
        return isTaken !== compare[relation](value, bound) && (isTaken || !isRounded);
      });
      expect(wrong).toEqual([]);
    });
  }

  it('accepts exponents where programs write them', () => {
    expect(['1e-7', '5e-324', '1e+30'].map((text) => bounded('>', 0).has(text))).toEqual([true, true, true]);
    expect(['1e-7', '-5e-324', '-1e+21', '1e+21', '2e0'].map((text) => bounded('<=', 1).has(text))).toEqual([
      ...[true, true, true],
      ...[false, false],
    ]);
    // Among them no bound is compared.
    expect(['1e+25', '-1e+25', '1e-8'].map((text) => bounded('<', 1e30).has(text))).toEqual([false, true, true]);
  });

  it('keeps values that a double would round to the bound on the right side', () => {
    expect(bounded('<', 1).has('0.99999999999999999999')).toBe(false);
    expect(bounded('<=', 1).has('1.00000000000000000001')).toBe(false);
    expect(bounded('<=', 0.1).has('0.10000000000000009')).toBe(false);
    expect(bounded('<', 1).has('0.9999999999999999')).toBe(true);
    expect(bounded('>', 0).has('0.00000000000000000001')).toBe(true);
  });
});

describe('Numbers', () => {
  it.each([1, 2, 3, 7, 0.01, 0.1, 0.5, 1.5, 10, 100, 0.25, 4000])(
    'are multiples of %d exactly where integer arithmetic says so',
    (divisor) => {
      const set = multipleOf(divisor);
      const wrong = texts.filter((text) => {
        const [whole = '', fraction = ''] = text.split('.');
        const decimals = Math.max(fraction.length, 4);
        const scaled = BigInt(whole + fraction.padEnd(decimals, '0'));
        const scaledDivisor = BigInt(Math.round(divisor * 10_000)) * 10n ** BigInt(decimals - 4);
        return set?.has(text) !== (scaled % scaledDivisor === 0n);
      });
      expect(wrong).toEqual([]);
    },
  );

  it('have no leading zeros, no bare point, no plus', () => {
    const forms = ['01', '.5', '1.', '+1', '-', '1e', '0x1', 'NaN', '', '1e999', '2e308', '--1'];
    expect(forms.filter((text) => anyNumber().has(text))).toEqual([]);
    const written = ['0', '-0', '10', '0.5', '1e5', '1E+5', '1.5e-7', '5e-324', '1.7976931348623157e+308', '1e-05'];
    expect(written.filter((text) => !anyNumber().has(text))).toEqual([]);
  });

  it('outside a set have exactly one spelling', () => {
    const others = otherNumber(anyInteger());
    expect(['1.5', '-0.1'].every((text) => others.has(text))).toBe(true);
    expect(['1', '1.0', '1e2', '-0'].some((text) => others.has(text))).toBe(false);
  });

  it('of an enumeration may be large', () => {
    expect(numberLiterals([1e30]).has('1e+30')).toBe(true);
    expect(numberLiterals([1e30]).has(`1${'0'.repeat(30)}`)).toBe(true);
    expect(numberLiterals([-0.5]).has('-0.5')).toBe(true);
  });
});
