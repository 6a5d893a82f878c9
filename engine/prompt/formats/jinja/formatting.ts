/** `'%s' % x` and `'{}'.format(x)`. */
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import { floatText, repr, str } from './printing.ts';
import { codePoints, Dict, Float, numberOf, Tuple, typeName, type Value } from './values.ts';

interface Spec {
  readonly fill: string;
  readonly align: '<' | '>' | '^' | '=' | '';
  readonly sign: string;
  readonly alternate: boolean;
  readonly width: number;
  readonly grouping: string;
  readonly precision: number | undefined;
  readonly type: string;
}

const directive = /%(?:\(([^)]*)\))?([-+ #0]*)(\*|\d+)?(?:\.(\*|\d+))?[hlL]?([a-zA-Z%])/g;

export function percentFormat(format: string, given: Value, budget: Budget): string {
  const values = given instanceof Tuple ? [...given.items] : [given];
  const next = (): Value => {
    const value = values.shift();
    if (value === undefined) throw new TemplateError('not enough arguments for format string');
    return value;
  };
  let named = false;
  const text = format.replaceAll(
    directive,
    (_, key: string | undefined, flags: string, width = '', precision, type) => {
      if (type === '%') return '%';
      const size = (written: string | undefined) => (written === '*' ? (numberOf(next()) ?? 0) : Number(written ?? 0));
      const spec: Spec = {
        fill: flags.includes('0') && !flags.includes('-') && type !== 's' ? '0' : ' ',
        align: flags.includes('-') ? '<' : flags.includes('0') && type !== 's' ? '=' : '>',
        sign: flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '-',
        ...{ alternate: flags.includes('#'), width: size(width), grouping: '' },
        precision: precision === undefined ? undefined : size(precision),
        type: type === 'i' || type === 'u' ? 'd' : type,
      };
      named ||= key !== undefined;
      const value = key === undefined ? next() : given instanceof Dict ? given.entries.get(key) : undefined;
      if (value === undefined) throw new TemplateError(`format requires '${key}'`);
      return formatted(
        value,
        type === 's' || type === 'r' ? { ...spec, type: type === 'r' ? 'r' : 's' } : spec,
        budget,
        true,
      );
    },
  );
  if (!named && values.length > 0 && !(given instanceof Dict)) {
    throw new TemplateError('not all arguments converted during string formatting');
  }
  return text;
}

const field = /\{\{|\}\}|\{([^{}!:]*)(?:!([rsa]))?(?::((?:[^{}]|\{[^{}]*\})*))?\}/g;

/** `lookUp`: a member or item of a value. */
export function braceFormat(
  format: string,
  positional: readonly Value[],
  named: ReadonlyMap<string, Value>,
  lookUp: (object: Value, name: string, isItem: boolean) => Value,
  budget: Budget,
): string {
  let counter = 0;
  const valueAt = (path: string): Value => {
    const [head = '', ...rest] = path.match(/^[^.[]*|\.[^.[]+|\[[^\]]*\]/g) ?? [''];
    const index = head === '' ? counter++ : Number(head);
    const first = Number.isInteger(index) ? positional[index] : named.get(head);
    if (first === undefined) throw new TemplateError(`'${path}' is missing among the arguments of format`);
    return rest.reduce((value, step) => lookUp(value, step.replaceAll(/^[.[]|\]$/g, ''), step.startsWith('[')), first);
  };
  return format.replaceAll(field, (whole: string, path: string | undefined, conversion, spec: string | undefined) => {
    if (path === undefined) return whole.charAt(0);
    const value = valueAt(path);
    const inner = (spec ?? '').replaceAll(/\{([^{}]*)\}/g, (_, name: string) => str(valueAt(name), budget));
    const shown =
      conversion === 'r' || conversion === 'a' ? repr(value, budget) : conversion === 's' ? str(value, budget) : value;
    return formatted(shown, specOf(inner), budget, false);
  });
}

function specOf(text: string): Spec {
  const match = /^(?:(.)(?=[<>^=])([<>^=])|([<>^=]))?([-+ ])?(#)?(0)?(\d+)?([,_])?(?:\.(\d+))?([a-zA-Z%])?$/su.exec(
    text,
  );
  if (match === null) throw new TemplateError('Invalid format specifier');
  const [, fill, filledAlign, align, sign, alternate, zero, width, grouping, precision, type] = match;
  return {
    fill: fill ?? (zero === undefined ? ' ' : '0'),
    align: (filledAlign ?? align ?? (zero === undefined ? '' : '=')) as Spec['align'],
    ...{ sign: sign ?? '-', alternate: alternate !== undefined, width: Number(width ?? 0), grouping: grouping ?? '' },
    ...{ precision: precision === undefined ? undefined : Number(precision), type: type ?? '' },
  };
}

function formatted(value: Value, spec: Spec, budget: Budget, percent: boolean): string {
  const number = numberOf(value);
  const isNumber =
    number !== undefined && spec.type !== 's' && spec.type !== 'r' && (spec.type !== '' || typeof value !== 'boolean');
  if (!isNumber && !['', 's', 'r', 'c'].includes(spec.type)) {
    throw new TemplateError(`format '${spec.type}' needs a number, not ${typeName(value)}`);
  }
  if (isNumber) {
    budget.spendChars(spec.precision ?? 0);
    const digits = numberText(number, spec, value instanceof Float, percent);
    return padded(digits, { ...spec, align: spec.align === '' ? '>' : spec.align }, budget);
  }
  const whole = spec.type === 'r' ? repr(value, budget) : str(value, budget);
  const text = spec.precision === undefined ? whole : [...whole].slice(0, spec.precision).join('');
  return padded(text, { ...spec, align: spec.align === '' ? '<' : spec.align }, budget);
}

function numberText(value: number, spec: Spec, isFloat: boolean, percent: boolean): string {
  const sign = value < 0 || Object.is(value, -0) ? '-' : spec.sign === '-' ? '' : spec.sign;
  return sign + grouped(magnitude(Math.abs(value), spec, isFloat, percent), spec.grouping);
}

function magnitude(value: number, { type, precision, alternate }: Spec, isFloat: boolean, percent: boolean): string {
  const digits = Math.min(precision ?? 6, 100);
  switch (type) {
    case 'd':
      return String(Math.trunc(value));
    case 'x':
    case 'X': {
      const hex = (alternate ? '0x' : '') + Math.trunc(value).toString(16);
      return type === 'X' ? hex.toUpperCase() : hex;
    }
    case 'o':
      return (alternate ? '0o' : '') + Math.trunc(value).toString(8);
    case 'b':
      return (alternate ? '0b' : '') + Math.trunc(value).toString(2);
    case 'c':
      return String.fromCodePoint(value);
    case 'e':
    case 'E': {
      const text = exponent(value.toExponential(digits));
      return type === 'E' ? text.toUpperCase() : text;
    }
    case 'f':
    case 'F':
      return value.toFixed(digits);
    case '%':
      return `${(value * 100).toFixed(digits)}%`;
    case 'g':
    case 'G':
    case 'n': {
      const text = shortest(value, Math.max(1, digits));
      return type === 'G' ? text.toUpperCase() : text;
    }
    default:
      if (!isFloat && !percent) return String(value);
      return precision === undefined ? floatText(value) : shortest(value, Math.max(1, digits));
  }
}

const exponent = (text: string): string => text.replace(/e([+-])(\d)$/, 'e$10$2');

/** So many digits, without zeros at the end; with an exponent below 1e-4 and where they do not reach the point. */
function shortest(value: number, digits: number): string {
  const [mantissa = '', power = '0'] = value.toExponential(digits - 1).split('e');
  if (Number(power) >= -4 && Number(power) < digits) {
    const fixed = value.toFixed(Math.max(0, digits - 1 - Number(power)));
    return fixed.includes('.') ? fixed.replace(/\.?0+$/, '') : fixed;
  }
  return exponent(`${mantissa.includes('.') ? mantissa.replace(/\.?0+$/, '') : mantissa}e${power}`);
}

const grouped = (text: string, mark: string): string =>
  mark === '' ? text : text.replace(/^\d+/, (whole) => whole.replaceAll(/\B(?=(?:\d{3})+$)/g, mark));

function padded(text: string, { fill, align, width }: Spec, budget: Budget): string {
  const room = width - codePoints(text);
  if (room <= 0) return text;
  budget.spendChars(width);
  if (align === '<') return text + fill.repeat(room);
  if (align === '^') return fill.repeat(Math.floor(room / 2)) + text + fill.repeat(Math.ceil(room / 2));
  const signed = align === '=' ? (/^[-+ ]/.exec(text)?.[0] ?? '') : '';
  return signed + fill.repeat(room) + text.slice(signed.length);
}
