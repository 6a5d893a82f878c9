/** Parses statements like jinja2's `parser.py` with transformers' extensions: loop controls and `generation`. */
import { type Expression, ExpressionParser, type Parameter, type Statement, type Target } from './expressions.ts';
import { TemplateError } from './values.ts';

/** @throws TemplateError */
export function parse(source: string): Statement[] {
  const parser = new Parser(new TokenStream(tokenize(source)));
  const statements = parser.statements([]);
  if (parser.stream.current.type !== 'eof') throw parser.stream.unexpected('the end of the template');
  return statements;
}

class Parser extends ExpressionParser {
  /** Parses up to a block that starts with one of the words, which is then the current token. */
  statements(ends: readonly string[]): Statement[] {
    const body: Statement[] = [];
    for (;;) {
      const token = this.stream.current;
      if (token.type === 'eof') {
        if (ends.length > 0) throw new TemplateError(`unexpected end of template, expected ${ends.join(' or ')}`);
        return body;
      }
      this.stream.next();
      if (token.type === 'data') body.push({ kind: 'text', text: token.value });
      else if (token.type === 'variable_begin') body.push(this.#output());
      else if (this.stream.isAny(ends) !== undefined) return body;
      else {
        body.push(this.#statement());
        this.stream.expectType('block_end');
      }
    }
  }

  #output(): Statement {
    const expression = this.tuple();
    this.stream.expectType('variable_end');
    return { kind: 'output', expression };
  }

  /** The rest of a block's head and its body up to one of the words, which is consumed and returned. */
  #body(...ends: readonly string[]): { body: Statement[]; end: string } {
    this.stream.skip(':');
    this.stream.expectType('block_end');
    const body = this.statements(ends);
    return { body, end: this.stream.next().value };
  }

  #statement(): Statement {
    const word = this.stream.expectType('name');
    switch (word) {
      case 'for':
        return this.#for();
      case 'if':
        return this.#if();
      case 'set':
        return this.#set();
      case 'macro':
        return this.#macro();
      case 'call':
        return this.#callBlock();
      case 'filter':
        return { kind: 'filterBlock', filters: this.filters(true), body: this.#body('endfilter').body };
      case 'with':
        return this.#with();
      case 'generation':
        return { kind: 'scope', body: this.#body('endgeneration').body };
      case 'break':
      case 'continue':
        return { kind: word };
      default:
        throw new TemplateError(`Encountered unknown tag '${word}'`);
    }
  }

  #for(): Statement {
    const target = this.#target(['in']);
    this.stream.expect('in');
    const iterable = this.tuple(false, ['recursive']);
    const test = this.stream.skip('if') ? this.expression() : undefined;
    const recursive = this.stream.skip('recursive');
    const { body, end } = this.#body('endfor', 'else');
    const otherwise = end === 'else' ? this.#body('endfor').body : [];
    return { kind: 'for', target, iterable, test, recursive, body, otherwise };
  }

  #if(): Statement {
    const branches: { test: Expression; body: Statement[] }[] = [];
    for (;;) {
      const test = this.tuple(false);
      const { body, end } = this.#body('elif', 'else', 'endif');
      branches.push({ test, body });
      if (end === 'elif') continue;
      return { kind: 'if', branches, otherwise: end === 'else' ? this.#body('endif').body : [] };
    }
  }

  #set(): Statement {
    const target = this.#target(['=']);
    if (this.stream.skip('=')) return { kind: 'set', target, value: this.tuple() };
    return { kind: 'setBlock', target, filters: this.filters(), body: this.#body('endset').body };
  }

  #macro(): Statement {
    const name = this.stream.expectType('name');
    return { kind: 'macro', name, parameters: this.#parameters(), body: this.#body('endmacro').body };
  }

  #callBlock(): Statement {
    const parameters = this.stream.is('(') ? this.#parameters() : [];
    return { kind: 'callBlock', parameters, call: this.expression(), body: this.#body('endcall').body };
  }

  #parameters(): Parameter[] {
    this.stream.expect('(');
    const parameters: Parameter[] = [];
    while (!this.stream.skip(')')) {
      if (parameters.length > 0) this.stream.expect(',');
      const name = this.stream.expectType('name');
      parameters.push({ name, fallback: this.stream.skip('=') ? this.expression() : undefined });
    }
    return parameters;
  }

  #with(): Statement {
    const assignments: [Target, Expression][] = [];
    while (this.stream.current.type !== 'block_end') {
      if (assignments.length > 0) this.stream.expect(',');
      const target = this.#target(['=']);
      this.stream.expect('=');
      assignments.push([target, this.expression()]);
    }
    return { kind: 'with', assignments, body: this.#body('endwith').body };
  }

  #target(ends: readonly string[]): Target {
    const items: Target[] = [];
    let isTuple = false;
    while (this.stream.isAny(ends) === undefined && this.stream.current.type !== 'block_end' && !this.stream.is('|')) {
      items.push(this.#targetItem());
      if (!this.stream.skip(',')) break;
      isTuple = true;
    }
    const [only] = items;
    if (only === undefined) throw this.stream.unexpected('a name');
    return isTuple ? { kind: 'tuple', items } : only;
  }

  #targetItem(): Target {
    if (this.stream.skip('(')) {
      const inside = this.#target([')']);
      this.stream.expect(')');
      return inside;
    }
    const name = this.stream.expectType('name');
    if (!this.stream.skip('.')) return { kind: 'name', name };
    return { kind: 'member', namespace: name, name: this.stream.expectType('name') };
  }
}

// Tokenises templates like jinja2 3.1 with `trim_blocks` and `lstrip_blocks`, transformers' settings.

export type Token =
  | { readonly type: 'data'; readonly value: string }
  | { readonly type: 'variable_begin' | 'variable_end' | 'block_begin' | 'block_end' | 'eof'; readonly value: '' }
  | { readonly type: 'name' | 'string' | 'integer' | 'float' | 'operator'; readonly value: string };

const operators = ['//', '**', '==', '!=', '>=', '<=', ...'+-/*%~[](){}<>=.:|,;'];
const closers: Readonly<Record<string, string>> = { '(': ')', '[': ']', '{': '}' };
const begin = /\{%|\{\{|\{#/g;
const rawBegin = /\{%([-+]?)\s*raw\s*(?:-%\}\s*|%\})/y;
const rawEnd = /\{%([-+]?)\s*endraw\s*(?:\+%\}|-%\}\s*|%\}\n?)/g;
const commentEnd = /\+#\}|-#\}\s*|#\}\n?/g;
const blockEnd = /\+%\}|-%\}\s*|%\}\n?/y;
const variableEnd = /-\}\}\s*|\}\}/y;
const blanks = /\s+/y;
const float = /\d+(?:_\d+)*(?:(?:\.\d+(?:_\d+)*)(?:e[+-]?\d+(?:_\d+)*)?|e[+-]?\d+(?:_\d+)*)/iy;
const integer = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy;
const name = /[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}]*/uy;

/** @throws TemplateError for text that isn't Jinja. */
export function tokenize(source: string): Token[] {
  return new Lexer(source).tokens();
}

class Lexer {
  readonly #source: string;
  readonly #tokens: Token[] = [];
  #at = 0;
  /** Whether the previous text ends with a line feed or is empty. */
  #lineStarts = true;

  constructor(source: string) {
    this.#source = source.replaceAll(/\r\n|\r/g, '\n').replace(/\n$/, '');
  }

  tokens(): Token[] {
    while (this.#at < this.#source.length) this.#readData();
    this.#tokens.push({ type: 'eof', value: '' });
    return this.#tokens;
  }

  /** Text up to the next tag, and that tag. */
  #readData(): void {
    begin.lastIndex = this.#at;
    const tag = begin.exec(this.#source);
    const text = this.#source.slice(this.#at, tag?.index);
    if (tag === null) {
      this.#data(text);
      this.#at = this.#source.length;
      return;
    }
    this.#at = tag.index;
    const raw = tag[0] === '{%' ? this.#match(rawBegin) : undefined;
    const sign = raw?.[1] ?? /[-+]?/.exec(this.#source.slice(tag.index + 2, tag.index + 3))?.[0] ?? '';
    this.#data(this.#stripped(text, sign, tag[0] === '{{'));
    this.#at += raw === undefined ? 2 + sign.length : 0;
    if (raw !== undefined) this.#readRaw();
    else if (tag[0] === '{#') this.#skipComment();
    else if (tag[0] === '{{') this.#readTag('variable_begin', 'variable_end', variableEnd);
    else this.#readTag('block_begin', 'block_end', blockEnd);
  }

  #data(value: string): void {
    if (value !== '') this.#tokens.push({ type: 'data', value });
  }

  /** `{%-` removes all whitespace before it; a tag alone on its line removes that of the line. */
  #stripped(text: string, sign: string, isVariable: boolean): string {
    if (sign === '-') return text.trimEnd();
    if (sign === '+' || isVariable) return text;
    const line = text.lastIndexOf('\n') + 1;
    return (line > 0 || this.#lineStarts) && text.slice(line).trim() === '' ? text.slice(0, line) : text;
  }

  #readRaw(): void {
    rawEnd.lastIndex = this.#at;
    const end = rawEnd.exec(this.#source);
    if (end === null) throw new TemplateError('Missing end of raw directive');
    this.#data(this.#stripped(this.#source.slice(this.#at, end.index), end[1] ?? '', false));
    this.#advance(end.index + end[0].length);
  }

  #skipComment(): void {
    commentEnd.lastIndex = this.#at;
    const end = commentEnd.exec(this.#source);
    if (end === null) throw new TemplateError('Missing end of comment tag');
    this.#advance(end.index + end[0].length);
  }

  #advance(to: number): void {
    this.#at = to;
    this.#lineStarts = this.#source.charAt(to - 1) === '\n';
  }

  #readTag(first: 'variable_begin' | 'block_begin', last: 'variable_end' | 'block_end', end: RegExp): void {
    this.#tokens.push({ type: first, value: '' });
    const open: string[] = [];
    while (open.length > 0 || this.#match(end) === undefined) this.#readToken(open);
    this.#lineStarts = this.#source.charAt(this.#at - 1) === '\n';
    this.#tokens.push({ type: last, value: '' });
  }

  /** Inside brackets, a tag's end doesn't count: `{{ {} }}`. */
  #readToken(open: string[]): void {
    if (this.#at >= this.#source.length) throw new TemplateError('unexpected end of template');
    if (this.#match(blanks) !== undefined) return;
    for (const [type, pattern] of [
      ['float', float],
      ['integer', integer],
      ['name', name],
    ] as const) {
      const found = this.#match(pattern);
      if (found === undefined) continue;
      this.#tokens.push({ type, value: found[0] });
      return;
    }
    const char = this.#source.charAt(this.#at);
    if (char === '"' || char === "'") this.#readString(char);
    else this.#readOperator(open);
  }

  #readOperator(open: string[]): void {
    const value = operators.find((operator) => this.#source.startsWith(operator, this.#at));
    if (value === undefined) throw new TemplateError(`unexpected char '${this.#source.charAt(this.#at)}'`);
    const closer = closers[value];
    if (closer !== undefined) open.push(closer);
    else if (')]}'.includes(value) && open.pop() !== value) throw new TemplateError(`unexpected '${value}'`);
    this.#at += value.length;
    this.#tokens.push({ type: 'operator', value });
  }

  #readString(quote: string): void {
    let end = this.#at + 1;
    while (end < this.#source.length && this.#source.charAt(end) !== quote)
      end += this.#source.charAt(end) === '\\' ? 2 : 1;
    if (end >= this.#source.length) throw new TemplateError('a string has no end');
    this.#tokens.push({ type: 'string', value: unescaped(this.#source.slice(this.#at + 1, end)) });
    this.#at = end + 1;
  }

  /** Matches the sticky pattern here and advances past it. */
  #match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#source);
    if (match === null) return undefined;
    this.#at += match[0].length;
    return match;
  }
}

const simple: Readonly<Record<string, string>> = {
  ...{ '\n': '', '\\': '\\', "'": "'", '"': '"', a: '\x07', b: '\b', f: '\f' },
  ...{ n: '\n', r: '\r', t: '\t', v: '\v' },
};

/** Python's string escapes; keeps unknown ones. */
function unescaped(text: string): string {
  return text.replaceAll(
    /\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([0-7]{1,3})|([\s\S]))/g,
    (whole: string, ...[byte, short, long, octal, char]: (string | undefined)[]) => {
      const hex = byte ?? short ?? long;
      if (hex !== undefined) return String.fromCodePoint(Number.parseInt(hex, 16));
      if (octal !== undefined) return String.fromCodePoint(Number.parseInt(octal, 8));
      return simple[char ?? ''] ?? whole;
    },
  );
}

/** Tokens with a position. A test names a token's type, or the text of an operator or keyword. */
export class TokenStream {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  get current(): Token {
    return this.#tokens[this.#at] ?? { type: 'eof', value: '' };
  }

  next(): Token {
    const token = this.current;
    this.#at += 1;
    return token;
  }

  /** An operator or keyword. */
  is(text: string, ahead = 0): boolean {
    const token = this.#tokens[this.#at + ahead];
    return token !== undefined && (token.type === 'operator' || token.type === 'name') && token.value === text;
  }

  isAny(texts: readonly string[]): string | undefined {
    return texts.find((text) => this.is(text));
  }

  skip(text: string): boolean {
    const found = this.is(text);
    if (found) this.#at += 1;
    return found;
  }

  expect(text: string): void {
    if (!this.skip(text)) throw this.unexpected(`'${text}'`);
  }

  expectType(type: Token['type']): string {
    if (this.current.type !== type) throw this.unexpected(type.replace('_', ' '));
    return this.next().value;
  }

  unexpected(wanted: string): TemplateError {
    const { type, value } = this.current;
    return new TemplateError(`expected ${wanted}, got ${type === 'data' || value === '' ? type : `'${value}'`}`);
  }
}
