/** Jinja's filters, and `tojson` as transformers has it. Filters over items are in `itemFilters.ts`. */

import { type Bound, bind, type Filter, filter, type Given, type Runtime } from './arguments.ts';
import { itemFilters } from './itemFilters.ts';
import { capitalize, replaced, splitLines, strip } from './methods.ts';
import { json, percentFormat, repr, str } from './printing.ts';
import {
  type Budget,
  codePoints,
  Dict,
  Float,
  lengthOf,
  numberOf,
  TemplateError,
  Tuple,
  truth,
  Undefined,
  type Value,
} from './values.ts';

export function applyFilter(name: string, value: Value, given: Given, runtime: Runtime): Value {
  const found = Object.hasOwn(filters, name) ? filters[name] : undefined;
  if (found === undefined) throw new TemplateError(`No filter named '${name}'.`);
  const { budget } = runtime;
  const args =
    found.parameters === undefined
      ? bind(name, [], [], new Map(), budget)
      : bind(name, found.parameters, given.positional, given.named, budget);
  return found.run(value, args, runtime, given);
}

const onText = (parameters: string, run: (text: string, args: Bound, budget: Budget) => string): Filter =>
  filter(parameters, (value, args, { budget }) => run(str(value, budget), args, budget));

function rounded(value: Value, args: Bound): Value {
  const number = numeric(value);
  const precision = args.integer('precision', 0);
  const method = args.text('method', 'common');
  if (method === 'common') {
    const near = roundHalfEven(number, precision);
    return value instanceof Float ? new Float(near) : near;
  }
  if (method !== 'ceil' && method !== 'floor') throw new TemplateError('method must be common, ceil or floor');
  const scale = 10 ** precision;
  return new Float(Math[method](number * scale) / scale);
}

/** Rounds like Python: by the exact value of the float, halves to even. */
function roundHalfEven(value: number, digits: number): number {
  if (digits > 0 && digits <= 100) return Number(value.toFixed(digits));
  const scale = 10 ** -digits;
  const scaled = value / scale;
  const floor = Math.floor(scaled);
  const half = scaled - floor === 0.5;
  const near = half ? floor + (floor % 2 === 0 ? 0 : 1) : Math.round(scaled);
  return near === 0 ? Math.sign(value) * 0 : near * scale;
}

function numeric(value: Value): number {
  const number = numberOf(value);
  if (number === undefined) throw value instanceof Undefined ? value.error : new TemplateError('a number is wanted');
  return number;
}

function toInteger(value: Value, args: Bound): Value {
  const number = numberOf(value);
  if (number !== undefined) return Number.isFinite(number) ? Math.trunc(number) : args.integer('default', 0);
  if (value instanceof Undefined) throw value.error;
  const text = typeof value === 'string' ? strip(value, undefined, 'strip').replaceAll('_', '') : '';
  const base = args.integer('base', 10);
  const bare = text.toLowerCase().replace({ 16: /^0x/, 8: /^0o/, 2: /^0b/ }[base] ?? /^(?!)/, '');
  const digits = '0123456789abcdefghijklmnopqrstuvwxyz'.slice(0, base);
  if (new RegExp(`^[+-]?[${digits}]+$`).test(bare)) return Number.parseInt(bare, base);
  const fraction = Number(text);
  return text !== '' && Number.isFinite(fraction) && /^[\d.e+-]+$/i.test(text)
    ? Math.trunc(fraction)
    : args.integer('default', 0);
}

function toFloat(value: Value, args: Bound): Value {
  const number = numberOf(value);
  if (number !== undefined) return new Float(number);
  if (value instanceof Undefined) throw value.error;
  const text = typeof value === 'string' ? strip(value, undefined, 'strip') : '';
  return text !== '' && /^[+-]?[\d.]+(?:e[+-]?\d+)?$/i.test(text) && Number.isFinite(Number(text))
    ? new Float(Number(text))
    : (args.get('default') ?? new Float(0));
}

function indented(text: string, args: Bound, budget: Budget): string {
  const given = args.get('width');
  const margin = typeof given === 'string' ? given : ' '.repeat(narrow(args.integer('width', 4), budget));
  const [head = '', ...lines] = splitLines(`${text}\n`);
  budget.spendChars(text.length + (lines.length + 1) * margin.length);
  const blank = args.flag('blank');
  const rest = lines.map((line) => `\n${line === '' && !blank ? '' : margin}${line}`);
  return (args.flag('first') ? margin : '') + head + rest.join('');
}

function narrow(width: number, budget: Budget): number {
  budget.spendChars(Math.max(0, width));
  return Math.max(0, width);
}

function toJson(value: Value, args: Bound, { budget }: Runtime): Value {
  const width = args.get('indent');
  const indent =
    typeof width === 'string'
      ? width
      : width === undefined
        ? undefined
        : ' '.repeat(narrow(args.integer('indent', 0), budget));
  const separators = args.get('separators');
  const [item, key] = separators instanceof Tuple ? separators.items : Array.isArray(separators) ? separators : [];
  const options = {
    indent,
    itemSeparator: typeof item === 'string' ? item : indent === undefined ? ', ' : ',',
    keySeparator: typeof key === 'string' ? key : ': ',
    ...{ sortKeys: args.flag('sort_keys'), asciiOnly: args.flag('ensure_ascii') },
  };
  return json(value, options, budget);
}

function truncated(text: string, args: Bound): string {
  const length = args.integer('length', 255);
  const end = args.text('end', '...');
  if (codePoints(text) <= length + args.integer('leeway', 5)) return text;
  const head = [...text].slice(0, Math.max(0, length - codePoints(end))).join('');
  return (args.flag('killwords') || !head.includes(' ') ? head : head.slice(0, head.lastIndexOf(' '))) + end;
}

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '>': '&gt;',
  '<': '&lt;',
  "'": '&#39;',
  '"': '&#34;',
};
const escaped = onText('', (text, _args, budget) => {
  budget.spendChars(text.length * 5);
  return text.replaceAll(/[&<>'"]/g, (char) => entities[char] ?? char);
});
const length = filter('', (value) => lengthOf(value));
const fallback = filter('default_value boolean', (value, args) => {
  const missing = value instanceof Undefined || (args.flag('boolean') && !truth(value));
  return missing ? (args.get('default_value') ?? (args.has('default_value') ? null : '')) : value;
});

const filters: Readonly<Record<string, Filter>> = {
  ...itemFilters,
  abs: filter('', (value) => (value instanceof Float ? new Float(Math.abs(value.value)) : Math.abs(numeric(value)))),
  attr: filter('name', (value, args, runtime) =>
    value instanceof Dict ? new Undefined('no attribute') : runtime.lookUp(value, args.text('name'), false),
  ),
  capitalize: onText('', capitalize),
  center: onText('width', (text, args, budget) => {
    const width = narrow(args.integer('width', 80), budget);
    const room = width - codePoints(text);
    if (room <= 0) return text;
    const left = Math.floor(room / 2) + (room & width & 1);
    return ' '.repeat(left) + text + ' '.repeat(room - left);
  }),
  ...{ count: length, length },
  ...{ d: fallback, default: fallback },
  ...{ e: escaped, escape: escaped, forceescape: escaped },
  float: filter('default', toFloat),
  format: filter(undefined, (value, _args, { budget }, { positional, named }) =>
    percentFormat(str(value, budget), named.size > 0 ? new Dict(named) : new Tuple(positional), budget),
  ),
  indent: onText('width first blank', indented),
  int: filter('default base', toInteger),
  lower: onText('', (text) => text.toLowerCase()),
  pprint: filter('', (value, _args, { budget }) => repr(value, budget)),
  replace: onText('old new count', (text, args, budget) =>
    replaced(text, args.text('old'), args.text('new'), args.integer('count', -1), budget),
  ),
  round: filter('precision method', rounded),
  safe: onText('', (text) => text),
  string: onText('', (text) => text),
  striptags: onText('', (text) =>
    text
      .replaceAll(/<!--[\s\S]*?-->|<[^>]*>/g, '')
      .split(/\s+/)
      .filter(Boolean)
      .join(' '),
  ),
  title: onText('', (text) =>
    text
      .split(/([-\s({[<]+)/)
      .map((part) => capitalize(part))
      .join(''),
  ),
  tojson: filter('ensure_ascii indent separators sort_keys', toJson),
  trim: onText('chars', (text, args) =>
    strip(text, args.get('chars') === undefined ? undefined : args.text('chars'), 'strip'),
  ),
  truncate: onText('length killwords end leeway', truncated),
  upper: onText('', (text) => text.toUpperCase()),
  urlencode: onText('', (text, _args, budget) => {
    budget.spendChars(text.length * 12);
    return encodeURIComponent(text.toWellFormed())
      .replaceAll('%2F', '/')
      .replaceAll(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
  }),
  wordcount: filter('', (value, _args, { budget }) => str(value, budget).match(/[\p{L}\p{N}_]+/gu)?.length ?? 0),
};
