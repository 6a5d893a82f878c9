/** Values as strings: Python's `str` and `repr`, and `json.dumps` as transformers' `tojson` calls it. */
import {
  type Budget,
  Callable,
  codePoints,
  Dict,
  Float,
  Generator,
  itemsOf,
  Namespace,
  numberOf,
  TemplateError,
  Tuple,
  truth,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.ts';

export function str(value: Value, budget: Budget): string {
  if (typeof value === 'string') return value;
  if (value instanceof Undefined) return '';
  return new Printer(budget).repr(value);
}

export function repr(value: Value, budget: Budget): string {
  return new Printer(budget).repr(value);
}

class Printer {
  readonly #budget: Budget;
  /** Values being printed, because a namespace may contain itself. */
  readonly #open = new Set<Value>();

  constructor(budget: Budget) {
    this.#budget = budget;
  }

  repr(value: Value): string {
    this.#budget.spend(1);
    if (typeof value === 'string') return quoted(value, this.#budget);
    if (typeof value === 'number') return integerText(value);
    if (value === null) return 'None';
    if (typeof value === 'boolean') return value ? 'True' : 'False';
    if (value instanceof Float) return floatText(value.value);
    if (value instanceof Undefined) return 'Undefined';
    if (value instanceof Callable) return `<function ${value.name}>`;
    if (value instanceof Generator) return '<generator object>';
    if (this.#open.has(value)) throw new TemplateError('a value that contains itself cannot be printed');
    this.#open.add(value);
    const text = this.#budget.nested(() => this.#container(value));
    this.#open.delete(value);
    this.#budget.spendChars(text.length);
    return text;
  }

  #container(value: Value): string {
    if (value instanceof Dict) return this.#mapping(value.entries);
    if (value instanceof Namespace) return `<${value.label} ${this.#mapping(value.members)}>`;
    const items = itemsOf(value) ?? [];
    if (value instanceof View && value.label === 'range') return rangeText(items);
    const inside = this.#joined(items.map((item) => () => this.repr(item)));
    if (value instanceof Tuple) return items.length === 1 ? `(${inside},)` : `(${inside})`;
    return value instanceof View ? `${value.label}([${inside}])` : `[${inside}]`;
  }

  #mapping(entries: ReadonlyMap<Value, Value>): string {
    return `{${this.#joined(
      [...entries].map(
        ([key, item]) =>
          () =>
            `${this.repr(key)}: ${this.repr(item)}`,
      ),
    )}}`;
  }

  /** Lists that contain one list many times grow exponentially, so the length is checked while printing. */
  #joined(parts: readonly (() => string)[]): string {
    let length = 0;
    const texts = parts.map((part) => {
      const text = part();
      length += text.length + 2;
      this.#budget.spendChars(length / 64);
      return text;
    });
    return texts.join(', ');
  }
}

function rangeText(items: readonly Value[]): string {
  const [first = 0, second] = items;
  const step = typeof first === 'number' && typeof second === 'number' ? second - first : 1;
  const stop = Number(items.at(-1) ?? -1) + step;
  return step === 1 ? `range(${first}, ${stop})` : `range(${first}, ${stop}, ${step})`;
}

function integerText(value: number): string {
  return Number.isSafeInteger(value) ? String(value) : BigInt(value).toString();
}

/** The shortest digits that round-trip, in Python's notation. */
export function floatText(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf';
  const [mantissa = '', exponentText = '0'] = value.toExponential().split('e');
  const exponent = Number(exponentText);
  if (exponent >= -4 && exponent < 16) {
    if (Object.is(value, -0)) return '-0.0';
    const fixed = exponent < 0 ? value.toFixed(mantissa.replace(/^-?\d\.?/, '').length - exponent) : String(value);
    return fixed.includes('.') ? fixed : `${fixed}.0`;
  }
  return `${mantissa}e${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`;
}

const named: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/** Unlike Python, keeps private-use characters: they stand for others (`chatPrompt.ts`). */
function quoted(text: string, budget: Budget): string {
  budget.spendChars(text.length);
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replaceAll(/[\\\p{Cc}\p{Cf}\p{Cs}\p{Cn}\p{Zl}\p{Zp}]|(?! )\p{Zs}|['"]/gu, (char) => {
    if (char === '"' || char === "'") return char === quote ? `\\${char}` : char;
    const known = named[char];
    if (known !== undefined) return known;
    const hex = (char.codePointAt(0) ?? 0).toString(16);
    if (hex.length <= 2) return `\\x${hex.padStart(2, '0')}`;
    return hex.length <= 4 ? `\\u${hex.padStart(4, '0')}` : `\\U${hex.padStart(8, '0')}`;
  });
  return quote + escaped + quote;
}

export interface JsonOptions {
  /** Indent of a level; undefined: one line. */
  readonly indent: string | undefined;
  readonly itemSeparator: string;
  readonly keySeparator: string;
  readonly sortKeys: boolean;
  readonly asciiOnly: boolean;
}

/** @throws TemplateError for values that JSON can't represent. */
export function json(value: Value, options: JsonOptions, budget: Budget): string {
  const write = (item: Value, margin: string): string => {
    budget.spend(1);
    if (typeof item === 'string') return jsonText(item, options.asciiOnly, budget);
    if (item === null || typeof item === 'boolean') return String(item);
    if (typeof item === 'number') return integerText(item);
    if (item instanceof Float) return jsonNumber(item.value);
    const inner = options.indent === undefined ? '' : margin + options.indent;
    const members = budget.nested(() => jsonMembers(item, options, budget, (member) => write(member, inner)));
    if (members === undefined) throw new TemplateError(`Object of type ${typeName(item)} is not JSON serializable`);
    const [open, close] = item instanceof Dict || item instanceof Namespace ? '{}' : '[]';
    if (members.length === 0) return `${open}${close}`;
    const [before, between, after] =
      options.indent === undefined
        ? ['', options.itemSeparator, '']
        : [`\n${inner}`, `${options.itemSeparator}\n${inner}`, `\n${margin}`];
    budget.spendChars(members.reduce((sum, { length }) => sum + length + between.length, 0));
    return open + before + members.join(between) + after + close;
  };
  return write(value, '');
}

function jsonMembers(
  value: Value,
  { keySeparator, sortKeys, asciiOnly }: JsonOptions,
  budget: Budget,
  write: (member: Value) => string,
): string[] | undefined {
  if (value instanceof Dict) {
    const entries = [...value.entries].map(([key, item]) => [jsonKey(key, budget), item] as const);
    if (sortKeys) entries.sort(([a], [b]) => (a < b ? -1 : Number(a > b)));
    return entries.map(([key, item]) => jsonText(key, asciiOnly, budget) + keySeparator + write(item));
  }
  return value instanceof View ? undefined : itemsOf(value)?.map(write);
}

function jsonKey(key: Value, budget: Budget): string {
  if (key === null || typeof key === 'boolean') return key === null ? 'null' : String(truth(key));
  return str(key, budget);
}

const jsonNumber = (value: number): string =>
  Number.isFinite(value) ? floatText(value) : Number.isNaN(value) ? 'NaN' : value > 0 ? 'Infinity' : '-Infinity';

function jsonText(text: string, asciiOnly: boolean, budget: Budget): string {
  budget.spendChars(text.length);
  const written = JSON.stringify(text);
  if (!asciiOnly) return written;
  return written.replaceAll(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

// `'%s' % x` and `'{}'.format(x)`.

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

/**
 * `digits` significant digits without trailing zeros; with an exponent below 1e-4 and if the digits end before the
 * point.
 */
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
