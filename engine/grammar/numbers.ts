/** JSON numbers as automata over their digits. Bounds are exact: digits are compared one by one, never rounded. */
import { Dfa } from './dfa.ts';
import { patternDfa } from './patterns.ts';

/** JavaScript and Python write up to 17 significant digits after leading zeros. */
const plain = '-?(0|[1-9][0-9]{0,39})(\\.[0-9]{1,40})?';
const significand = '[1-9](\\.[0-9]{1,20})?[eE]';
const largest = '1(\\.([0-6][0-9]{0,19}|7([0-8][0-9]{0,18})?|79[0-6][0-9]{0,17}|7976931348623157))?[eE]\\+?308';
/** Scientific notation as programs write it: one digit before the point, within a double's range. */
const scientific = `-?(${significand}(\\+?([0-9]{1,2}|[12][0-9]{2}|30[0-7])|-([0-9]{1,2}|[12][0-9]{2}|3[01][0-9]|32[0-4]))|${largest})`;
/** JavaScript writes exponents below 1e-6 and from 1e21 on. */
const tiny = `${significand}-(0?[7-9]|[1-9][0-9]|[12][0-9]{2}|3[01][0-9]|32[0-4])`;
const huge = `(${significand}\\+?(2[1-9]|[3-9][0-9]|[12][0-9]{2}|30[0-7])|${largest})`;

const once = <Value>(make: () => Value): (() => Value) => {
  let made: Value | undefined;
  return () => {
    made ??= make();
    return made;
  };
};

const plainNumber = once(() => patternDfa(`^${plain}$`));
export const anyNumber = once(() => plainNumber().or(patternDfa(`^(${scientific})$`)));
/** Numbers in scientific notation by sign and size. `value` represents all of its kind. */
const exponents = once(() => [
  { value: 1e-7, dfa: patternDfa(`^${tiny}$`) },
  { value: -1e-7, dfa: patternDfa(`^-${tiny}$`) },
  { value: 1e21, dfa: patternDfa(`^${huge}$`) },
  { value: -1e21, dfa: patternDfa(`^-${huge}$`) },
]);
export const anyInteger = once(() => patternDfa('^-?(0|[1-9][0-9]{0,39})$'));
/** Exactly one spelling for each value, so that a spelling outside a set is in its complement. */
const canonical = once(() => patternDfa('^(?!-0$)-?(0|[1-9][0-9]{0,39})(\\.[0-9]{0,39}[1-9])?$'));

export const otherNumber = (set: Dfa): Dfa => canonical().without(set);

export type Relation = '<=' | '<' | '>=' | '>';

const bounds = new Map<string, Dfa>();

/** @param bound finite. */
export function bounded(relation: Relation, bound: number): Dfa {
  const key = `${relation}${bound}`;
  const known = bounds.get(key) ?? beyond(relation, bound).or(exponentsBeyond(relation, bound));
  if (bounds.size > 256) bounds.clear();
  bounds.set(key, known);
  return known;
}

/**
 * The kinds that lie entirely beyond the bound. A kind that contains the bound is excluded, so such numbers must be
 * written without an exponent.
 */
function exponentsBeyond(relation: Relation, bound: number): Dfa {
  const isWithin = (value: number): boolean =>
    value * bound > 0 && (Math.abs(value) < 1 ? Math.abs(bound) < 1e-6 : Math.abs(bound) >= 1e21);
  const kinds = exponents().filter(
    ({ value }) => !isWithin(value) && (relation.startsWith('>') ? value > bound : value < bound),
  );
  return kinds.reduce((all, { dfa }) => all.or(dfa), Dfa.never);
}

function beyond(relation: Relation, bound: number): Dfa {
  const upward = relation.startsWith('>');
  const strict = !relation.endsWith('=');
  // Values between a bound and the next double would be rounded to one of them.
  if (strict && bound !== 0) return beyond(upward ? '>=' : '<=', nextDouble(bound, upward));
  const digits = digitsOf(Math.abs(bound));
  return Dfa.explore<Comparison>({
    start: { place: 'sign', negative: false, read: 0, order: 0 },
    key: ({ place, negative, read, order }) => `${place}${negative ? '-' : ''}${read},${order}`,
    accepts: (state) => {
      if (!endsNumber(state)) return false;
      const order = orderOf(state, bound < 0, digits);
      return order === 0 ? !strict : upward === order > 0;
    },
    step: (state) => compare(state, digits),
  });
}

function nextDouble(value: number, upward: boolean): number {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, value);
  view.setBigInt64(0, view.getBigInt64(0) + (upward === value > 0 ? 1n : -1n));
  return view.getFloat64(0);
}

/** JSON numbers in all allowed spellings. */
export function numberLiterals(values: readonly number[]): Dfa {
  return Dfa.literals(values.flatMap(textsOf));
}

function textsOf(value: number): readonly string[] {
  const { whole, fraction } = digitsOf(Math.abs(value));
  const text = `${value < 0 ? '-' : ''}${whole}${fraction === '' ? '' : `.${fraction}`}`;
  const isShort = value === 0 || (Math.abs(value) < 1e21 && Math.abs(value) >= 1e-6);
  return isShort ? [text] : [text, value.toExponential()];
}

/** Multiples need one state a remainder. */
const maxRemainders = 4000;

/** @returns `undefined` if the divisor needs too many states. */
export function multipleOf(divisor: number): Dfa | undefined {
  const { whole, fraction } = digitsOf(divisor);
  const scaled = Number(whole + fraction);
  if (!(scaled > 0 && scaled <= maxRemainders) || fraction.length > 9) return undefined;
  return Dfa.explore<Remainder>({
    start: { place: 'sign', remainder: 0, decimals: 0 },
    key: ({ place, remainder, decimals }) => `${place}${remainder},${decimals}`,
    accepts: ({ place, remainder, decimals }) =>
      (place === 'whole' || place === 'zero' || place === 'fraction') &&
      (remainder * 10 ** (fraction.length - decimals)) % scaled === 0,
    step: ({ place, remainder, decimals }) =>
      steps(place).flatMap(({ code, digit, to }) => {
        if (digit === undefined) return [{ lo: code, hi: code, to: { place: to, remainder, decimals } }];
        // Only zeros may follow the divisor's decimals.
        if (decimals === fraction.length && to === 'fraction')
          return digit === 0 ? [{ lo: code, hi: code, to: { place: to, remainder, decimals } }] : [];
        const next = (remainder * 10 + digit) % scaled;
        const further = to === 'fraction' ? decimals + 1 : 0;
        return [{ lo: code, hi: code, to: { place: to, remainder: next, decimals: further } }];
      }),
  });
}

interface Remainder {
  readonly place: Place;
  readonly remainder: number;
  /** Decimals of the fraction so far. */
  readonly decimals: number;
}

type Place = 'sign' | 'first' | 'zero' | 'whole' | 'point' | 'fraction';

interface Comparison {
  readonly place: Place;
  readonly negative: boolean;
  /** Digits of the integer part, then of the fraction, as far as they matter. */
  readonly read: number;
  /** How the digits so far compare to the bound's: -1 below, 1 above. */
  readonly order: -1 | 0 | 1;
}

interface Digits {
  readonly whole: string;
  /** Without trailing zeros. */
  readonly fraction: string;
}

function compare({ place, negative, read, order }: Comparison, bound: Digits) {
  return steps(place).map(({ code, digit, to }) => ({ lo: code, hi: code, to: next(code, digit, to) }));

  function next(code: number, digit: number | undefined, to: Place): Comparison {
    if (code === 0x2d) return { place: to, negative: true, read: 0, order: 0 };
    if (digit === undefined) return { place: to, negative, read: 0, order: wholeOrder(read, order, bound) };
    if (to !== 'fraction') {
      const kept = Math.min(read, bound.whole.length) + 1;
      return { place: to, negative, read: kept, order: order || against(digit, bound.whole[read]) };
    }
    if (order !== 0) return { place: to, negative, read: 0, order };
    // Further decimals are compared with zeros.
    const further = Math.min(read + 1, bound.fraction.length);
    return { place: to, negative, read: further, order: against(digit, bound.fraction[read] ?? '0') };
  }
}

function against(digit: number, bound: string | undefined): -1 | 0 | 1 {
  const its = Number(bound ?? digit);
  return digit < its ? -1 : digit > its ? 1 : 0;
}

function wholeOrder(read: number, order: Comparison['order'], { whole }: Digits): Comparison['order'] {
  return read < whole.length ? -1 : read > whole.length ? 1 : order;
}

/** Compares the value with the bound, signs included. */
function orderOf(state: Comparison, boundNegative: boolean, bound: Digits): number {
  const isFraction = state.place === 'fraction';
  const rest = /[1-9]/.test(bound.fraction.slice(isFraction ? state.read : 0));
  const whole = isFraction ? state.order : wholeOrder(state.read, state.order, bound);
  const size = whole === 0 && rest ? -1 : whole;
  if (bound.whole === '0' && bound.fraction === '') return size === 0 ? 0 : state.negative ? -1 : 1;
  if (state.negative !== boundNegative) return state.negative ? -1 : 1;
  return state.negative ? -size : size;
}

const endsNumber = ({ place }: Comparison): boolean => place === 'zero' || place === 'whole' || place === 'fraction';

interface NumberStep {
  readonly code: number;
  readonly digit: number | undefined;
  readonly to: Place;
}

/** Next states of a plain number, by code point. */
function steps(place: Place): readonly NumberStep[] {
  const sign = { code: 0x2d, digit: undefined, to: 'first' } as const;
  const point = { code: 0x2e, digit: undefined, to: 'point' } as const;
  switch (place) {
    case 'sign':
      return [sign, ...firstDigits];
    case 'first':
      return firstDigits;
    case 'zero':
      return [point];
    case 'whole':
      return [point, ...digitSteps('whole')];
    case 'point':
    case 'fraction':
      return digitSteps('fraction');
  }
}

const digitSteps = (to: Place): readonly NumberStep[] =>
  Array.from({ length: 10 }, (_, digit) => ({ code: 0x30 + digit, digit, to }));
const firstDigits: readonly NumberStep[] = digitSteps('whole').map((step) =>
  step.digit === 0 ? { ...step, to: 'zero' } : step,
);

/** Decimal digits of JavaScript's shortest form of a number, without an exponent. */
function digitsOf(value: number): Digits {
  const [, first = '0', rest = '', exponent = '0'] = /^(\d)(?:\.(\d+))?e([+-]\d+)$/.exec(value.toExponential()) ?? [];
  const digits = first + rest;
  const point = Number(exponent) + 1;
  const whole = point <= 0 ? '0' : digits.slice(0, point).padEnd(point, '0');
  const fraction = (point <= 0 ? '0'.repeat(-point) + digits : digits.slice(point)).replace(/0+$/, '');
  return { whole, fraction };
}
