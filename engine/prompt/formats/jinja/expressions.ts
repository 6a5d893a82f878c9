/** Parses expressions with the precedence of jinja2's `parser.py`. */
import type { TokenStream } from './parser.ts';

/** The nodes of a template, named like in jinja2's `nodes.py`. */
export type Expression =
  | { readonly kind: 'const'; readonly value: string | number | boolean | null; readonly isFloat?: boolean }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'list' | 'tuple' | 'concat'; readonly items: readonly Expression[] }
  | { readonly kind: 'dict'; readonly entries: readonly (readonly [Expression, Expression])[] }
  | { readonly kind: 'unary'; readonly operator: '-' | '+' | 'not'; readonly operand: Expression }
  | {
      readonly kind: 'binary';
      readonly operator: '+' | '-' | '*' | '/' | '//' | '%' | '**' | 'and' | 'or';
      readonly left: Expression;
      readonly right: Expression;
    }
  | { readonly kind: 'compare'; readonly first: Expression; readonly rest: readonly Comparison[] }
  | {
      readonly kind: 'condition';
      readonly test: Expression;
      readonly whenTrue: Expression;
      readonly otherwise: Expression | undefined;
    }
  | { readonly kind: 'attribute'; readonly object: Expression; readonly name: string }
  | { readonly kind: 'item'; readonly object: Expression; readonly index: Expression }
  | { readonly kind: 'slice'; readonly object: Expression; readonly bounds: readonly (Expression | undefined)[] }
  | { readonly kind: 'call'; readonly callee: Expression; readonly args: Arguments }
  | { readonly kind: 'filter'; readonly operand: Expression; readonly name: string; readonly args: Arguments }
  | { readonly kind: 'test'; readonly operand: Expression; readonly name: string; readonly args: Arguments };

export type Comparator = '==' | '!=' | '<' | '<=' | '>' | '>=' | 'in' | 'not in';
interface Comparison {
  readonly operator: Comparator;
  readonly operand: Expression;
}

export interface Arguments {
  readonly positional: readonly Expression[];
  readonly named: readonly (readonly [string, Expression])[];
  /** `*items` and `**mapping` */
  readonly spread: Expression | undefined;
  readonly namedSpread: Expression | undefined;
}

/** Targets of `for` and `set`. */
export type Target =
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'member'; readonly namespace: string; readonly name: string }
  | { readonly kind: 'tuple'; readonly items: readonly Target[] };

export interface Parameter {
  readonly name: string;
  readonly fallback: Expression | undefined;
}

export interface FilterUse {
  readonly name: string;
  readonly args: Arguments;
}

export type Statement =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'output'; readonly expression: Expression }
  | {
      readonly kind: 'if';
      readonly branches: readonly { readonly test: Expression; readonly body: readonly Statement[] }[];
      readonly otherwise: readonly Statement[];
    }
  | {
      readonly kind: 'for';
      readonly target: Target;
      readonly iterable: Expression;
      readonly test: Expression | undefined;
      readonly recursive: boolean;
      readonly body: readonly Statement[];
      readonly otherwise: readonly Statement[];
    }
  | { readonly kind: 'set'; readonly target: Target; readonly value: Expression }
  | {
      readonly kind: 'setBlock';
      readonly target: Target;
      readonly filters: readonly FilterUse[];
      readonly body: readonly Statement[];
    }
  | {
      readonly kind: 'macro';
      readonly name: string;
      readonly parameters: readonly Parameter[];
      readonly body: readonly Statement[];
    }
  | {
      readonly kind: 'callBlock';
      readonly call: Expression;
      readonly parameters: readonly Parameter[];
      readonly body: readonly Statement[];
    }
  | { readonly kind: 'filterBlock'; readonly filters: readonly FilterUse[]; readonly body: readonly Statement[] }
  | {
      readonly kind: 'with';
      readonly assignments: readonly (readonly [Target, Expression])[];
      readonly body: readonly Statement[];
    }
  /** Also `generation`, with which transformers marks the assistant's tokens. */
  | { readonly kind: 'scope'; readonly body: readonly Statement[] }
  | { readonly kind: 'break' | 'continue' };

const comparators: readonly Comparator[] = ['==', '!=', '<=', '>=', '<', '>', 'in'];
const constants: Readonly<Record<string, boolean | null>> = {
  ...{ true: true, True: true, false: false, False: false },
  ...{ none: null, None: null },
};
export const noArguments: Arguments = { positional: [], named: [], spread: undefined, namedSpread: undefined };

type Binary = Extract<Expression, { kind: 'binary' }>['operator'];

export class ExpressionParser {
  readonly stream: TokenStream;

  constructor(stream: TokenStream) {
    this.stream = stream;
  }

  expression(withCondition = true): Expression {
    if (!withCondition) return this.#or();
    let expression = this.#or();
    while (this.stream.skip('if')) {
      const test = this.#or();
      const otherwise = this.stream.skip('else') ? this.expression() : undefined;
      expression = { kind: 'condition', test, whenTrue: expression, otherwise };
    }
    return expression;
  }

  /** One expression, or a tuple of several; `ends`: the words that end it. */
  tuple(withCondition = true, ends: readonly string[] = [], mayBeEmpty = false): Expression {
    const items: Expression[] = [];
    let isTuple = false;
    for (;;) {
      if (items.length > 0) this.stream.expect(',');
      if (this.#endsTuple(ends)) break;
      items.push(this.expression(withCondition));
      if (!this.stream.is(',')) break;
      isTuple = true;
    }
    const [only] = items;
    if (!isTuple && only !== undefined) return only;
    if (!isTuple && !mayBeEmpty) throw this.stream.unexpected('an expression');
    return { kind: 'tuple', items };
  }

  #endsTuple(ends: readonly string[]): boolean {
    const { type } = this.stream.current;
    return (
      type === 'variable_end' || type === 'block_end' || this.stream.is(')') || this.stream.isAny(ends) !== undefined
    );
  }

  #or(): Expression {
    return this.#leftToRight(['or'], () => this.#leftToRight(['and'], () => this.#not()));
  }

  #not(): Expression {
    return this.stream.skip('not') ? { kind: 'unary', operator: 'not', operand: this.#not() } : this.#comparison();
  }

  #comparison(): Expression {
    const first = this.#sum();
    const rest: Comparison[] = [];
    for (;;) {
      const operator = this.#comparator();
      if (operator === undefined) return rest.length === 0 ? first : { kind: 'compare', first, rest };
      rest.push({ operator, operand: this.#sum() });
    }
  }

  #comparator(): Comparator | undefined {
    if (this.stream.is('not') && this.stream.is('in', 1)) {
      this.stream.next();
      this.stream.next();
      return 'not in';
    }
    return comparators.find((operator) => this.stream.skip(operator));
  }

  #sum(): Expression {
    return this.#leftToRight(['+', '-'], () => this.#concatenation());
  }

  #concatenation(): Expression {
    const items = [this.#product()];
    while (this.stream.skip('~')) items.push(this.#product());
    const [only] = items;
    return items.length === 1 && only !== undefined ? only : { kind: 'concat', items };
  }

  #product(): Expression {
    return this.#leftToRight(['*', '/', '//', '%'], () => this.#leftToRight(['**'], () => this.#unary()));
  }

  #leftToRight(operators: readonly Binary[], operand: () => Expression): Expression {
    let left = operand();
    for (;;) {
      const operator = operators.find((text) => this.stream.skip(text));
      if (operator === undefined) return left;
      left = { kind: 'binary', operator, left, right: operand() };
    }
  }

  #unary(withFilters = true): Expression {
    const sign = (['-', '+'] as const).find((text) => this.stream.skip(text));
    const operand: Expression =
      sign === undefined ? this.#primary() : { kind: 'unary', operator: sign, operand: this.#unary(false) };
    const whole = this.#postfix(operand);
    return withFilters ? this.#filtersAndTests(whole) : whole;
  }

  #primary(): Expression {
    const token = this.stream.current;
    switch (token.type) {
      case 'name': {
        this.stream.next();
        const constant = Object.hasOwn(constants, token.value) ? constants[token.value] : undefined;
        return constant === undefined ? { kind: 'name', name: token.value } : { kind: 'const', value: constant };
      }
      case 'string': {
        let value = '';
        while (this.stream.current.type === 'string') value += this.stream.next().value;
        return { kind: 'const', value };
      }
      case 'integer':
      case 'float': {
        const value = Number(this.stream.next().value.replaceAll('_', ''));
        return { kind: 'const', value, isFloat: token.type === 'float' };
      }
      default:
        return this.#bracketed();
    }
  }

  #bracketed(): Expression {
    if (this.stream.skip('(')) {
      const inside = this.tuple(true, [], true);
      this.stream.expect(')');
      return inside;
    }
    if (this.stream.skip('[')) return { kind: 'list', items: this.#separated(']', () => this.expression()) };
    if (!this.stream.skip('{')) throw this.stream.unexpected('an expression');
    const entries = this.#separated('}', () => {
      const key = this.expression();
      this.stream.expect(':');
      return [key, this.expression()] as const;
    });
    return { kind: 'dict', entries };
  }

  /** A trailing comma is allowed. */
  #separated<Item>(end: string, item: () => Item): Item[] {
    const items: Item[] = [];
    while (!this.stream.skip(end)) {
      if (items.length > 0) this.stream.expect(',');
      if (this.stream.skip(end)) break;
      items.push(item());
    }
    return items;
  }

  #postfix(operand: Expression): Expression {
    for (;;) {
      if (this.stream.skip('.')) operand = this.#member(operand);
      else if (this.stream.skip('[')) operand = this.#subscript(operand);
      else if (this.stream.is('(')) operand = { kind: 'call', callee: operand, args: this.arguments() };
      else return operand;
    }
  }

  #filtersAndTests(operand: Expression): Expression {
    for (;;) {
      if (this.stream.is('|')) operand = { kind: 'filter', operand, ...this.#filter() };
      else if (this.stream.skip('is')) operand = this.#test(operand);
      else if (this.stream.is('(')) operand = { kind: 'call', callee: operand, args: this.arguments() };
      else return operand;
    }
  }

  #member(object: Expression): Expression {
    const { type, value } = this.stream.next();
    if (type === 'name') return { kind: 'attribute', object, name: value };
    if (type === 'integer') return { kind: 'item', object, index: { kind: 'const', value: Number(value) } };
    throw this.stream.unexpected('a name or number');
  }

  #subscript(object: Expression): Expression {
    const bounds: (Expression | undefined)[] = [];
    let sliced = false;
    while (bounds.length < 3) {
      bounds.push(this.stream.is(':') || this.stream.is(']') ? undefined : this.expression());
      if (!this.stream.skip(':')) break;
      sliced = true;
    }
    const [index] = bounds;
    if (sliced || index === undefined) {
      this.stream.expect(']');
      return { kind: 'slice', object, bounds };
    }
    const more: Expression[] = [];
    while (this.stream.skip(',')) more.push(this.expression());
    this.stream.expect(']');
    return { kind: 'item', object, index: more.length === 0 ? index : { kind: 'tuple', items: [index, ...more] } };
  }

  arguments(): Arguments {
    this.stream.expect('(');
    const positional: Expression[] = [];
    const named: [string, Expression][] = [];
    let spread: Expression | undefined;
    let namedSpread: Expression | undefined;
    this.#separated(')', () => {
      if (this.stream.skip('*')) spread = this.expression();
      else if (this.stream.skip('**')) namedSpread = this.expression();
      else if (this.stream.current.type === 'name' && this.stream.is('=', 1)) {
        const name = this.stream.next().value;
        this.stream.expect('=');
        named.push([name, this.expression()]);
      } else if (named.length > 0 || spread !== undefined || namedSpread !== undefined) {
        throw this.stream.unexpected('a named argument');
      } else positional.push(this.expression());
    });
    return { positional, named, spread, namedSpread };
  }

  /** `| f | g(1)`, for blocks with a filtered body; `first`: no `|` before the first filter. */
  filters(first = false): FilterUse[] {
    const filters: FilterUse[] = first ? [this.#namedUse()] : [];
    while (this.stream.is('|')) filters.push(this.#filter());
    return filters;
  }

  #filter(): FilterUse {
    this.stream.expect('|');
    return this.#namedUse();
  }

  #namedUse(): FilterUse {
    const name = this.#dottedName();
    return { name, args: this.stream.is('(') ? this.arguments() : noArguments };
  }

  #dottedName(): string {
    let name = this.stream.expectType('name');
    while (this.stream.skip('.')) name += `.${this.stream.expectType('name')}`;
    return name;
  }

  #test(operand: Expression): Expression {
    const negated = this.stream.skip('not');
    const test: Expression = { kind: 'test', operand, name: this.#dottedName(), args: this.#testArguments() };
    return negated ? { kind: 'unary', operator: 'not', operand: test } : test;
  }

  /** `is divisibleby 3`, without brackets. */
  #testArguments(): Arguments {
    if (this.stream.is('(')) return this.arguments();
    const { type } = this.stream.current;
    const begins = type === 'name' || type === 'string' || type === 'integer' || type === 'float';
    const brackets = this.stream.isAny(['[', '{']) !== undefined;
    if ((!begins && !brackets) || this.stream.isAny(['else', 'or', 'and']) !== undefined) return noArguments;
    if (this.stream.is('is')) throw this.stream.unexpected('one test');
    return { ...noArguments, positional: [this.#postfix(this.#primary())] };
  }
}
