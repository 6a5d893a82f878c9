/** Values as texts: Python's `str` and `repr`, and `json.dumps` as transformers' `tojson` calls it. */
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import {
  Callable,
  Dict,
  Float,
  Generator,
  itemsOf,
  Namespace,
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
  /** What is being printed: a namespace may hold itself. */
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
    if (this.#open.has(value)) throw new TemplateError('a value that holds itself cannot be printed');
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

  /** Lists that hold one list many times grow exponentially: the length is watched while they are written. */
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

/** The shortest digits that give the number again, in Python's notation. */
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

/** Characters for private use stay as they are, unlike Python's: they stand for others (see `chatPrompt.ts`). */
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
  /** What a level is indented by; undefined: all in one line. */
  readonly indent: string | undefined;
  readonly itemSeparator: string;
  readonly keySeparator: string;
  readonly sortKeys: boolean;
  readonly asciiOnly: boolean;
}

/** @throws TemplateError for what JSON has no word for. */
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
