/** Jinja's filters, and `tojson` as transformers has it. */
import { type Bound, bind, type Filter, filter, type Given, type Runtime } from './arguments.ts';
import { capitalize, joined, replaced, splitLines, strip } from './methods.ts';
import { json, percentFormat, repr, str } from './printing.ts';
import {
  type Budget,
  codePoints,
  compare,
  Dict,
  equals,
  Float,
  Generator,
  isList,
  itemsOf,
  iterate,
  lengthOf,
  numberOf,
  orElse,
  TemplateError,
  Tuple,
  truth,
  Undefined,
  type Value,
} from './values.ts';

// Filters over items.

/** `user.names.0` of an item; `fallback` replaces missing values on the path. */
function attributeOf(item: Value, path: Value, runtime: Runtime, fallback?: Value): Value {
  const steps = typeof path === 'string' ? path.split('.') : [path];
  return steps.reduce<Value>((value, step) => {
    const index = typeof step === 'string' && /^\d+$/.test(step) ? Number(step) : step;
    const found = runtime.lookUp(value, index, true);
    return found instanceof Undefined && fallback !== undefined ? fallback : found;
  }, item);
}

/** The sort key: an attribute or the item itself. Strings ignore case unless the filter is case-sensitive. */
function keyOf(args: Bound, runtime: Runtime): (item: Value) => Value {
  const path = args.get('attribute');
  const paths = typeof path === 'string' && path.includes(',') ? path.split(',') : undefined;
  const folded = (value: Value): Value =>
    typeof value === 'string' && !args.flag('case_sensitive') ? value.toLowerCase() : value;
  if (path === undefined) return folded;
  if (paths !== undefined) return (item) => paths.map((one) => folded(attributeOf(item, one.trim(), runtime)));
  return (item) => folded(attributeOf(item, path, runtime));
}

function sorted(items: readonly Value[], key: (item: Value) => Value, runtime: Runtime, reverse = false): Value[] {
  const keyed = items.map((item) => ({ item, key: key(item) }));
  const { budget } = runtime;
  keyed.sort((a, b) => (reverse ? compare(b.key, a.key, budget) : compare(a.key, b.key, budget)));
  return keyed.map(({ item }) => item);
}

/** `select`, `reject` and their attribute variants: by a named test or by truth. */
function selecting(keeps: boolean, byAttribute: boolean): Filter {
  return filter(undefined, (value, _args, runtime, { positional }: Given) => {
    const [path, ...rest] = byAttribute ? positional : [null, ...positional];
    if (path === undefined) throw new TemplateError('Missing parameter for attribute name');
    const [test, ...args] = rest;
    const holds = (item: Value): boolean => {
      const subject = byAttribute ? attributeOf(item, path, runtime) : item;
      return test === undefined ? truth(subject) : runtime.test(str(test, runtime.budget), subject, args);
    };
    return new Generator(eachOf(value, runtime).filter((item) => holds(item) === keeps));
  });
}

function eachOf(value: Value, { budget }: Runtime): readonly Value[] {
  const items = iterate(value);
  budget.spend(items.length);
  return items;
}

function mapped(value: Value, runtime: Runtime, { positional, named }: Given): Value {
  const items = eachOf(value, runtime);
  const path = named.get('attribute');
  if (path === undefined) {
    const [name, ...rest] = positional;
    if (name === undefined) throw new TemplateError('map requires a filter argument');
    return new Generator(items.map((item) => runtime.filter(str(name, runtime.budget), item, rest, named)));
  }
  const fallback = named.get('default');
  return new Generator(items.map((item) => attributeOf(item, path, runtime, fallback)));
}

/** Groups of `linecount` items; the last one is filled up. */
function batched(items: readonly Value[], args: Bound, { budget }: Runtime): Value {
  const size = args.integer('linecount', 0);
  if (size < 1) throw new TemplateError('batch takes a number above 0');
  budget.spendItems(size);
  const groups: Value[][] = [];
  for (let at = 0; at < items.length; at += size) groups.push(items.slice(at, at + size));
  const last = groups.at(-1);
  const fill = args.get('fill_with');
  if (fill !== undefined && last !== undefined) while (last.length < size) last.push(fill);
  return new Generator(groups);
}

/** Divides the items into `slices` groups. */
function sliced(items: readonly Value[], args: Bound, { budget }: Runtime): Value {
  const count = args.integer('slices', 0);
  if (count < 1) throw new TemplateError('slice takes a number above 0');
  budget.spendItems(count);
  const fill = args.get('fill_with');
  const least = Math.floor(items.length / count);
  const longer = items.length % count;
  const groups = Array.from({ length: count }, (_, index): Value[] => {
    const start = index * least + Math.min(index, longer);
    const group = items.slice(start, start + least + Number(index < longer));
    return fill !== undefined && index >= longer && longer > 0 ? [...group, fill] : group;
  });
  return new Generator(groups);
}

function unique(items: readonly Value[], key: (item: Value) => Value, { budget }: Runtime): Value {
  const seen: Value[] = [];
  return new Generator(
    items.filter((item) => {
      const own = key(item);
      if (seen.some((known) => equals(known, own, budget))) return false;
      seen.push(own);
      return true;
    }),
  );
}

function grouped(value: Value, args: Bound, runtime: Runtime): Value {
  const path = args.get('attribute') ?? '';
  const fallback = args.get('default');
  const key = (item: Value): Value => attributeOf(item, path, runtime, fallback);
  const folded = (item: Value): Value => {
    const own = key(item);
    return typeof own === 'string' && !args.flag('case_sensitive') ? own.toLowerCase() : own;
  };
  const groups: { key: Value; grouper: Value; items: Value[] }[] = [];
  for (const item of sorted(eachOf(value, runtime), folded, runtime)) {
    const last = groups.at(-1);
    if (last !== undefined && equals(last.key, folded(item), runtime.budget)) last.items.push(item);
    else groups.push({ key: folded(item), grouper: key(item), items: [item] });
  }
  return groups.map(({ grouper, items }) => new Tuple([grouper, items]));
}

function summed(value: Value, args: Bound, runtime: Runtime): Value {
  const path = args.get('attribute');
  const items = eachOf(value, runtime).map((item) => (path === undefined ? item : attributeOf(item, path, runtime)));
  const all = [args.get('start') ?? 0, ...items];
  const total = all.reduce((sum: number, item) => {
    const number = numberOf(item);
    if (number === undefined) throw item instanceof Undefined ? item.error : new TemplateError('sum takes numbers');
    return sum + number;
  }, 0);
  return all.some((item) => item instanceof Float) ? new Float(total) : total;
}

const extreme = (sign: 1 | -1): Filter =>
  filter('case_sensitive attribute', (value, args, runtime) => {
    const key = keyOf(args, runtime);
    const [first, ...rest] = eachOf(value, runtime);
    if (first === undefined) return new Undefined('No aggregated item, sequence was empty.');
    return rest.reduce((best, item) => (sign * compare(key(item), key(best), runtime.budget) > 0 ? item : best), first);
  });

/** The last item of a reversible value. */
function lastOf(value: Value, runtime: Runtime): Value {
  if (value instanceof Generator) throw new TemplateError("'generator' object is not reversible");
  return orElse(eachOf(value, runtime).at(-1), () => new Undefined('No last item, sequence was empty.'));
}

export const itemFilters: Readonly<Record<string, Filter>> = {
  batch: filter('linecount fill_with', (value, args, runtime) => batched(eachOf(value, runtime), args, runtime)),
  dictsort: filter('case_sensitive by reverse', (value, args, runtime) => {
    if (!(value instanceof Dict)) throw new TemplateError('dictsort takes a mapping');
    const at = args.text('by', 'key') === 'value' ? 1 : 0;
    const key = (item: Value): Value => {
      const own = itemsOf(item)?.[at] ?? null;
      return typeof own === 'string' && !args.flag('case_sensitive') ? own.toLowerCase() : own;
    };
    return sorted(
      [...value.entries].map((entry) => new Tuple(entry)),
      key,
      runtime,
      args.flag('reverse'),
    );
  }),
  first: filter('', (value, _args, runtime) => {
    const found = value instanceof Generator ? value.next() : eachOf(value, runtime)[0];
    return orElse(found, () => new Undefined('No first item, sequence was empty.'));
  }),
  groupby: filter('attribute default case_sensitive', grouped),
  items: filter('', (value) => {
    if (value instanceof Undefined) return new Generator([]);
    if (!(value instanceof Dict)) throw new TemplateError('Can only get item pairs from a mapping.');
    return new Generator([...value.entries].map((entry) => new Tuple(entry)));
  }),
  join: filter('d attribute', (value, args, runtime) => {
    const path = args.get('attribute');
    const { budget } = runtime;
    const items = eachOf(value, runtime).map((item) =>
      str(path === undefined ? item : attributeOf(item, path, runtime), budget),
    );
    return joined(items, args.text('d'), budget);
  }),
  last: filter('', (value, _args, runtime) => lastOf(value, runtime)),
  list: filter('', (value, _args, runtime) => [...eachOf(value, runtime)]),
  map: filter(undefined, (value, _args, runtime, given) => mapped(value, runtime, given)),
  max: extreme(1),
  min: extreme(-1),
  reject: selecting(false, false),
  rejectattr: selecting(false, true),
  reverse: filter('', (value, _args, runtime) => {
    const items = [...eachOf(value, runtime)].reverse();
    return typeof value === 'string' ? items.join('') : new Generator(items);
  }),
  select: selecting(true, false),
  selectattr: selecting(true, true),
  slice: filter('slices fill_with', (value, args, runtime) => sliced(eachOf(value, runtime), args, runtime)),
  sort: filter('reverse case_sensitive attribute', (value, args, runtime) =>
    sorted(eachOf(value, runtime), keyOf(args, runtime), runtime, args.flag('reverse')),
  ),
  sum: filter('attribute start', summed),
  unique: filter('case_sensitive attribute', (value, args, runtime) =>
    unique(eachOf(value, runtime), keyOf(args, runtime), runtime),
  ),
};

export const isSequence = (value: Value): boolean =>
  typeof value === 'string' || value instanceof Dict || isList(value) || itemsOf(value) !== undefined;

// All filters, and `tojson` as transformers has it.

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
