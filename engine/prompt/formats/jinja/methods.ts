/** Non-mutating methods of Python's strings, mappings and lists. Transformers' sandbox refuses the others as well. */
import { type Bound, bind } from './arguments.ts';
import { braceFormat } from './printing.ts';
import {
  type Budget,
  Callable,
  characters,
  codePoints,
  Dict,
  equals,
  isList,
  itemsOf,
  iterate,
  TemplateError,
  Tuple,
  Undefined,
  type Value,
  View,
} from './values.ts';

// Python's string rules: whitespace, line ends and case.

const blank = String.raw`\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000`;
const blanks = new RegExp(`[${blank}]+`);
const isBlank = new RegExp(`[${blank}]`);
const onlyBlanks = new RegExp(`^[${blank}]+$`);

/** `str.strip(characters)`: from both ends or one; without `named`, whitespace. */
export function strip(text: string, named: string | undefined, method: 'strip' | 'lstrip' | 'rstrip'): string {
  const set = named === undefined ? undefined : new Set(named);
  const goes = (char: string): boolean => (set === undefined ? isBlank.test(char) : set.has(char));
  let start = 0;
  let end = text.length;
  const charAt = (at: number): string => String.fromCodePoint(text.codePointAt(at) ?? 0);
  if (method !== 'rstrip') while (start < end && goes(charAt(start))) start += charAt(start).length;
  if (method !== 'lstrip') {
    while (end > start) {
      const low = text.charCodeAt(end - 1);
      const char = low >= 0xdc00 && low <= 0xdfff ? text.slice(end - 2, end) : text.charAt(end - 1);
      if (!goes(char)) break;
      end -= char.length;
    }
  }
  return text.slice(start, end);
}

/** Splits at whitespace, like `split()` without a separator, at most `most` times. */
function splitAtBlanks(text: string, most: number, fromEnd: boolean): string[] {
  if (most < 0) return text.split(blanks).filter((word) => word !== '');
  if (!fromEnd) {
    const words: string[] = [];
    let rest = strip(text, undefined, 'lstrip');
    for (let gap = blanks.exec(rest); gap !== null && words.length < most; gap = blanks.exec(rest)) {
      words.push(rest.slice(0, gap.index));
      rest = rest.slice(gap.index + gap[0].length);
    }
    return rest === '' ? words : [...words, rest];
  }
  const all = text.split(blanks).filter((word) => word !== '');
  const kept = all.slice(Math.max(0, all.length - most));
  let head = strip(text, undefined, 'rstrip');
  for (const word of [...kept].reverse()) head = strip(head.slice(0, head.length - word.length), undefined, 'rstrip');
  return head === '' ? kept : [head, ...kept];
}

function split(text: string, separator: string, most: number, fromEnd: boolean): string[] {
  const all = text.split(separator);
  if (most < 0 || all.length - 1 <= most) return all;
  return fromEnd
    ? [all.slice(0, all.length - most).join(separator), ...all.slice(all.length - most)]
    : [...all.slice(0, most), all.slice(most).join(separator)];
}

const ends = String.raw`\n\r\v\f\x1c-\x1e\x85\u2028\u2029`;
const line = new RegExp(`[^${ends}]*(?:\r\n|[${ends}]|$)`, 'g');
const lineEnd = new RegExp(`(?:\r\n|[${ends}])$`);

export function splitLines(text: string, keepEnds = false): string[] {
  const lines = text.match(line) ?? [];
  if (lines.at(-1) === '') lines.pop();
  return keepEnds ? lines : lines.map((ended) => ended.replace(lineEnd, ''));
}

export const capitalize = (text: string): string => {
  const [first = ''] = text;
  return first.toUpperCase() + text.slice(first.length).toLowerCase();
};

/** `str.title`: the first letter of each word becomes upper case. */
const title = (text: string): string => text.replaceAll(/\p{L}+/gu, (word) => capitalize(word));

/** Length of the result of `str.replace(old, new)`. */
function replacedLength(text: string, old: string, by: string): number {
  if (old === '') return text.length + (text.length + 1) * by.length;
  let count = 0;
  for (let at = text.indexOf(old); at >= 0; at = text.indexOf(old, at + old.length)) count++;
  return text.length + count * (by.length - old.length);
}

function replace(text: string, old: string, by: string, most: number): string {
  if (most < 0 && old !== '') return text.replaceAll(old, () => by);
  const pieces = old === '' ? ['', ...text, ''] : text.split(old);
  const count = most < 0 ? pieces.length - 1 : Math.min(most, pieces.length - 1);
  const head = pieces.slice(0, count + 1).join(by);
  return count + 1 < pieces.length ? [head, ...pieces.slice(count + 1)].join(old) : head;
}

// The methods.

type Method<Self> = {
  readonly parameters: readonly string[];
  readonly run: (self: Self, args: Bound, budget: Budget) => Value;
};

const method = <Self>(parameters: string, run: Method<Self>['run']): Method<Self> => ({
  parameters: parameters.split(' ').filter((name) => name !== ''),
  run,
});

/** A member of the type, accessed by a dot; undefined if there is none. `lookUp`: members in `format`. */
export function methodOf(
  self: Value,
  name: string,
  budget: Budget,
  lookUp: (object: Value, name: string, isItem: boolean) => Value,
): Value | undefined {
  if (typeof self === 'string') {
    if (name === 'format') return new Callable(name, (given, named) => braceFormat(self, given, named, lookUp, budget));
    return bound(textMethods, self, name, budget);
  }
  if (self instanceof Dict) return bound(mappingMethods, self, name, budget) ?? refused(name, mappingChanges);
  const items = self instanceof View ? undefined : itemsOf(self);
  if (items === undefined) return undefined;
  return bound(listMethods, items, name, budget) ?? (isList(self) ? refused(name, listChanges) : undefined);
}

function bound<Self>(
  methods: Readonly<Record<string, Method<Self>>>,
  self: Self,
  name: string,
  budget: Budget,
): Value | undefined {
  const found = Object.hasOwn(methods, name) ? methods[name] : undefined;
  if (found === undefined) return undefined;
  return new Callable(name, (positional, named) =>
    found.run(self, bind(name, found.parameters, positional, named, budget), budget),
  );
}

const mappingChanges = ['clear', 'pop', 'popitem', 'setdefault', 'update'];
const listChanges = ['append', 'clear', 'extend', 'insert', 'pop', 'remove', 'reverse', 'sort'];

/** Exists in Python, but using it fails. */
const refused = (name: string, changes: readonly string[]): Value | undefined =>
  changes.includes(name) ? new Undefined(`access to attribute '${name}' is unsafe`) : undefined;

/** The substring between two optional bounds in code points, and its start. */
function stretch(text: string, args: Bound): { part: string; offset: number } {
  const length = codePoints(text);
  const clamp = (at: number) => Math.min(length, Math.max(0, at < 0 ? at + length : at));
  const start = clamp(args.integer('start', 0));
  const all = characters(text);
  const part = all.slice(start, clamp(args.integer('end', length)));
  return { part: typeof part === 'string' ? part : part.join(''), offset: start };
}

function find(text: string, args: Bound, last: boolean): number {
  const { part, offset } = stretch(text, args);
  const sub = args.pureText('sub');
  const at = last ? part.lastIndexOf(sub) : part.indexOf(sub);
  return at < 0 ? -1 : offset + codePoints(part.slice(0, at));
}

function foundAt(text: string, args: Bound, last: boolean): number {
  const at = find(text, args, last);
  if (at < 0) throw new TemplateError('substring not found');
  return at;
}

/** One prefix or suffix, or a tuple of them. */
function affixed(text: string, args: Bound, holds: (part: string, affix: string) => boolean): boolean {
  const { part } = stretch(text, args);
  const given = args.get('affix');
  const affixes = given instanceof Tuple ? given.items : [given];
  return affixes.some((affix) => {
    if (typeof affix !== 'string') throw new TemplateError('startswith and endswith take a str or a tuple of str');
    return holds(part, affix);
  });
}

function splitText(text: string, args: Bound, fromEnd: boolean, budget: Budget): Value {
  const most = args.integer('maxsplit', -1);
  const separator = args.get('sep');
  if (separator === undefined) return splitAtBlanks(text, most, fromEnd);
  if (typeof separator !== 'string' || separator === '') throw new TemplateError('empty separator');
  budget.spendItems(pieces(text, separator));
  return split(text, separator, most, fromEnd);
}

function pieces(text: string, separator: string): number {
  let count = 1;
  for (let at = text.indexOf(separator); at >= 0; at = text.indexOf(separator, at + separator.length)) count += 1;
  return count;
}

function partition(text: string, separator: string, last: boolean): Tuple {
  const at = last ? text.lastIndexOf(separator) : text.indexOf(separator);
  if (at >= 0) return new Tuple([text.slice(0, at), separator, text.slice(at + separator.length)]);
  return new Tuple(last ? ['', '', text] : [text, '', '']);
}

function pad(text: string, args: Bound, budget: Budget, side: 'left' | 'right' | 'both'): string {
  const width = args.integer('width', 0);
  const room = width - codePoints(text);
  if (room <= 0) return text;
  budget.spendChars(width);
  const fill = args.text('fillchar', ' ');
  // CPython puts the extra blank of `center` on the left if the width is odd.
  const left = side === 'left' ? room : side === 'right' ? 0 : Math.floor(room / 2) + (room & width & 1);
  return fill.repeat(left) + text + fill.repeat(room - left);
}

const every = (pattern: RegExp) => method<string>('', (self) => pattern.test(self));
const cased = (self: string, same: string): boolean => self === same && self.toLowerCase() !== self.toUpperCase();

const textMethods: Readonly<Record<string, Method<string>>> = {
  capitalize: method('', capitalize),
  casefold: method('', (self) => self.toLowerCase().replaceAll('ß', 'ss')),
  center: method('width fillchar', (self, args, budget) => pad(self, args, budget, 'both')),
  count: method('sub start end', (self, args) => {
    const { part } = stretch(self, args);
    const sub = args.pureText('sub');
    return sub === '' ? codePoints(part) + 1 : pieces(part, sub) - 1;
  }),
  endswith: method('affix start end', (self, args) => affixed(self, args, (part, affix) => part.endsWith(affix))),
  expandtabs: method('tabsize', (self, args, budget) => {
    const size = args.integer('tabsize', 8);
    budget.spendChars(self.length + size * (pieces(self, '\t') - 1));
    let column = 0;
    return self.replaceAll(/[^\n\r\t]+|[\n\r\t]/g, (piece) => {
      if (piece === '\t') {
        const room = size > 0 ? size - (column % size) : 0;
        column += room;
        return ' '.repeat(room);
      }
      column = piece === '\n' || piece === '\r' ? 0 : column + codePoints(piece);
      return piece;
    });
  }),
  find: method('sub start end', (self, args) => find(self, args, false)),
  index: method('sub start end', (self, args) => foundAt(self, args, false)),
  isalnum: every(/^[\p{L}\p{N}]+$/u),
  isalpha: every(/^\p{L}+$/u),
  isascii: every(/^[\0-\x7f]*$/),
  isdecimal: every(/^\p{Nd}+$/u),
  isdigit: every(/^[\p{Nd}\u00b2\u00b3\u00b9\u2070-\u2089]+$/u),
  islower: method('', (self) => cased(self, self.toLowerCase())),
  isnumeric: every(/^\p{N}+$/u),
  isspace: every(onlyBlanks),
  istitle: method('', (self) => cased(self, title(self))),
  isupper: method('', (self) => cased(self, self.toUpperCase())),
  join: method('iterable', (self, args, budget) => {
    const items = iterate(args.get('iterable') ?? null);
    const wrong = items.find((item) => typeof item !== 'string');
    if (wrong !== undefined) throw new TemplateError('join takes only strings');
    return joined(items.map(String), self, budget);
  }),
  ljust: method('width fillchar', (self, args, budget) => pad(self, args, budget, 'right')),
  lower: method('', (self) => self.toLowerCase()),
  lstrip: method('chars', (self, args) => stripArguments(self, args, 'lstrip')),
  partition: method('sep', (self, args) => partition(self, args.pureText('sep'), false)),
  removeprefix: method('affix', (self, args) => {
    const affix = args.pureText('affix');
    return self.startsWith(affix) ? self.slice(affix.length) : self;
  }),
  removesuffix: method('affix', (self, args) => {
    const affix = args.pureText('affix');
    return affix !== '' && self.endsWith(affix) ? self.slice(0, -affix.length) : self;
  }),
  replace: method('old new count', (self, args, budget) =>
    replaced(self, args.pureText('old'), args.pureText('new'), args.integer('count', -1), budget),
  ),
  rfind: method('sub start end', (self, args) => find(self, args, true)),
  rindex: method('sub start end', (self, args) => foundAt(self, args, true)),
  rjust: method('width fillchar', (self, args, budget) => pad(self, args, budget, 'left')),
  rpartition: method('sep', (self, args) => partition(self, args.pureText('sep'), true)),
  rsplit: method('sep maxsplit', (self, args, budget) => splitText(self, args, true, budget)),
  rstrip: method('chars', (self, args) => stripArguments(self, args, 'rstrip')),
  split: method('sep maxsplit', (self, args, budget) => splitText(self, args, false, budget)),
  splitlines: method('keepends', (self, args) => splitLines(self, args.flag('keepends'))),
  startswith: method('affix start end', (self, args) => affixed(self, args, (part, affix) => part.startsWith(affix))),
  strip: method('chars', (self, args) => stripArguments(self, args, 'strip')),
  swapcase: method('', (self) =>
    [...self].map((char) => (char === char.toUpperCase() ? char.toLowerCase() : char.toUpperCase())).join(''),
  ),
  title: method('', title),
  upper: method('', (self) => self.toUpperCase()),
  zfill: method('width', (self, args, budget) => {
    const sign = /^[+-]/.exec(self)?.[0] ?? '';
    const width = args.integer('width', 0);
    budget.spendChars(Math.max(0, width));
    return sign + '0'.repeat(Math.max(0, width - codePoints(self))) + self.slice(sign.length);
  }),
};

const stripArguments = (self: string, args: Bound, how: 'strip' | 'lstrip' | 'rstrip'): string =>
  strip(self, args.get('chars') === undefined ? undefined : args.pureText('chars'), how);

export function joined(items: readonly string[], separator: string, budget: Budget): string {
  budget.spendChars(items.reduce((sum, { length }) => sum + length + separator.length, 0));
  return items.join(separator);
}

export function replaced(text: string, old: string, by: string, most: number, budget: Budget): string {
  budget.spendChars(replacedLength(text, old, by));
  return replace(text, old, by, most);
}

const mappingMethods: Readonly<Record<string, Method<Dict>>> = {
  copy: method('', (self) => self),
  get: method('key default', (self, args) => {
    const found = self.entries.get(args.get('key') ?? null);
    return found === undefined ? (args.get('default') ?? null) : found;
  }),
  items: method(
    '',
    (self) =>
      new View(
        'dict_items',
        [...self.entries].map((entry) => new Tuple(entry)),
      ),
  ),
  keys: method('', (self) => new View('dict_keys', [...self.entries.keys()])),
  values: method('', (self) => new View('dict_values', [...self.entries.values()])),
};

const listMethods: Readonly<Record<string, Method<readonly Value[]>>> = {
  copy: method('', (self) => self),
  count: method(
    'value',
    (self, args, budget) => self.filter((item) => equals(item, args.get('value') ?? null, budget)).length,
  ),
  index: method('value', (self, args, budget) => {
    const at = self.findIndex((item) => equals(item, args.get('value') ?? null, budget));
    if (at < 0) throw new TemplateError('the value is not in the list');
    return at;
  }),
};
