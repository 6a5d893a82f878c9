/** Jinja's filters over items. */
import { type Bound, type Filter, filter, type Given, type Runtime } from './arguments.ts';
import { joined } from './methods.ts';
import { str } from './printing.ts';
import {
  compare,
  Dict,
  equals,
  Float,
  Generator,
  isList,
  itemsOf,
  iterate,
  numberOf,
  orElse,
  TemplateError,
  Tuple,
  truth,
  Undefined,
  type Value,
} from './values.ts';

/** `user.names.0` of an item; `fallback` replaces missing values on the path. */
function attributeOf(item: Value, path: Value, runtime: Runtime, fallback?: Value): Value {
  const steps = typeof path === 'string' ? path.split('.') : [path];
  return steps.reduce<Value>((value, step) => {
    const index = typeof step === 'string' && /^\d+$/.test(step) ? Number(step) : step;
    const found = runtime.lookUp(value, index, true);
    return found instanceof Undefined && fallback !== undefined ? fallback : found;
  }, item);
}

/** The sort key: an attribute or the item itself; strings ignore case unless it counts. */
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

/** Groups of so many items; the last one is filled up. */
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

/** So many groups. */
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
