/** Runs a template like Jinja's immutable sandbox. */
import type { Given, Runtime } from './arguments.ts';
import type { Arguments, Comparator, Expression, FilterUse, Parameter, Statement, Target } from './expressions.ts';
import { applyFilter } from './filters.ts';
import { loopOver, Scope } from './loop.ts';
import { methodOf } from './methods.ts';
import { applyTest, arithmetic, contains, itemAt, slice } from './operators.ts';
import { str } from './printing.ts';
import {
  type Budget,
  Callable,
  compare,
  Dict,
  equals,
  Float,
  itemsOf,
  iterate,
  Namespace,
  numberOf,
  orElse,
  TemplateError,
  Tuple,
  truth,
  typeName,
  Undefined,
  type Value,
} from './values.ts';

/** How a statement ends early. */
export type Jump = 'break' | 'continue' | undefined;

export class Interpreter implements Runtime {
  readonly budget: Budget;
  #output: string[] = [];
  #written = 0;

  constructor(budget: Budget) {
    this.budget = budget;
  }

  run(body: readonly Statement[], variables: ReadonlyMap<string, Value>): string {
    return this.#captured(() => this.execute(body, new Scope(new Scope(undefined, variables))));
  }

  execute(body: readonly Statement[], scope: Scope): Jump {
    return this.budget.nested(() => {
      for (const statement of body) {
        this.budget.spend(1);
        const jump = this.#execute(statement, scope);
        if (jump !== undefined) return jump;
      }
      return undefined;
    });
  }

  /** The output of `work` as a string. */
  #captured(work: () => unknown): string {
    const outer = this.#output;
    this.#output = [];
    try {
      work();
      return this.#output.join('');
    } finally {
      this.#output = outer;
    }
  }

  #write(text: string): void {
    this.#written += text.length;
    this.budget.spendChars(text.length);
    this.#output.push(text);
  }

  #execute(statement: Statement, scope: Scope): Jump {
    switch (statement.kind) {
      case 'text':
        this.#write(statement.text);
        return undefined;
      case 'output':
        this.#write(str(this.evaluate(statement.expression, scope), this.budget));
        return undefined;
      case 'if': {
        const taken = statement.branches.find(({ test }) => truth(this.evaluate(test, scope)));
        return this.execute(taken?.body ?? statement.otherwise, scope);
      }
      case 'for':
        return loopOver(this, statement, scope, (loop) => this.#captured(loop));
      case 'break':
      case 'continue':
        return statement.kind;
      case 'scope':
        return this.execute(statement.body, new Scope(scope));
      case 'with': {
        const inner = new Scope(scope);
        for (const [target, value] of statement.assignments) this.assign(target, this.evaluate(value, scope), inner);
        return this.execute(statement.body, inner);
      }
      default:
        this.#define(statement, scope);
        return undefined;
    }
  }

  #define(
    statement: Extract<Statement, { kind: 'set' | 'setBlock' | 'macro' | 'callBlock' | 'filterBlock' }>,
    scope: Scope,
  ): void {
    switch (statement.kind) {
      case 'set':
        this.assign(statement.target, this.evaluate(statement.value, scope), scope);
        break;
      case 'setBlock':
        this.assign(statement.target, this.#filteredBody(statement, scope), scope);
        break;
      case 'filterBlock':
        this.#write(str(this.#filteredBody(statement, scope), this.budget));
        break;
      case 'macro':
        scope.set(statement.name, this.#macro(statement.name, statement.parameters, statement.body, scope));
        break;
      case 'callBlock':
        this.#write(str(this.#calledBlock(statement, scope), this.budget));
    }
  }

  #calledBlock({ call, parameters, body }: Extract<Statement, { kind: 'callBlock' }>, scope: Scope): Value {
    if (call.kind !== 'call') throw new TemplateError('expected a call');
    const caller = this.#macro('caller', parameters, body, scope);
    const callee = this.evaluate(call.callee, scope);
    const { positional, named } = this.#arguments(call.args, scope);
    return this.call(callee, positional, new Map([...named, ['caller', caller]]));
  }

  #filteredBody({ body, filters }: { body: readonly Statement[]; filters: readonly FilterUse[] }, scope: Scope): Value {
    const text: Value = this.#captured(() => this.execute(body, new Scope(scope)));
    return filters.reduce<Value>((value, { name, args }) => this.#filtered(name, value, args, scope), text);
  }

  /** Creates a macro, which sees the variables around its definition. */
  #macro(name: string, parameters: readonly Parameter[], body: readonly Statement[], scope: Scope): Callable {
    return new Callable(name, (positional, named) => {
      const inner = new Scope(scope);
      const rest = new Map(named);
      for (const [index, parameter] of parameters.entries()) {
        const { name: own, fallback } = parameter;
        const byDefault = () =>
          fallback === undefined
            ? new Undefined(`parameter '${own}' was not provided`)
            : this.evaluate(fallback, inner);
        inner.set(
          own,
          orElse(positional[index], () => orElse(rest.get(own), byDefault)),
        );
        rest.delete(parameter.name);
      }
      const caller = rest.get('caller');
      if (caller !== undefined) inner.set('caller', caller);
      rest.delete('caller');
      inner.set('varargs', new Tuple(positional.slice(parameters.length)));
      inner.set('kwargs', new Dict(rest));
      return this.#captured(() => this.execute(body, inner));
    });
  }

  assign(target: Target, value: Value, scope: Scope): void {
    if (target.kind === 'name') scope.set(target.name, value);
    else if (target.kind === 'member') {
      const namespace = scope.get(target.namespace);
      if (!(namespace instanceof Namespace) || namespace.label !== 'Namespace') {
        throw new TemplateError('cannot assign attribute on non-namespace object');
      }
      namespace.members.set(target.name, value);
    } else {
      const items = iterate(value);
      const { length } = target.items;
      if (items.length !== length) throw new TemplateError(`expected ${length} values to unpack`);
      for (const [index, item] of target.items.entries()) this.assign(item, items[index] ?? null, scope);
    }
  }

  /** Every value adds its size to the work. */
  evaluate(expression: Expression, scope: Scope): Value {
    this.budget.spend(1);
    const value = this.budget.nested(() => this.#evaluate(expression, scope));
    if (typeof value === 'string') this.budget.spendChars(value.length);
    else this.budget.spendItems(value instanceof Dict ? value.entries.size : (itemsOf(value)?.length ?? 0));
    return value;
  }

  #evaluate(expression: Expression, scope: Scope): Value {
    const value = (inner: Expression): Value => this.evaluate(inner, scope);
    switch (expression.kind) {
      case 'const':
        return expression.isFloat === true ? new Float(Number(expression.value)) : expression.value;
      case 'name':
        return orElse(scope.get(expression.name), () => new Undefined(`'${expression.name}' is not defined`));
      case 'list':
        return expression.items.map(value);
      case 'tuple':
        return new Tuple(expression.items.map(value));
      case 'concat':
        return this.#concatenated(expression.items.map((item) => str(value(item), this.budget)));
      case 'dict':
        return new Dict(new Map(expression.entries.map(([key, item]) => [value(key), value(item)])));
      case 'condition':
        if (truth(value(expression.test))) return value(expression.whenTrue);
        return expression.otherwise === undefined
          ? new Undefined('the inline if has no else')
          : value(expression.otherwise);
      case 'attribute':
        return this.lookUp(value(expression.object), expression.name, false);
      case 'item':
        return this.lookUp(value(expression.object), value(expression.index), true);
      case 'slice':
        return slice(
          value(expression.object),
          expression.bounds.map((bound) => (bound === undefined ? undefined : value(bound))),
          this.budget,
        );
      default:
        return this.#operation(expression, scope);
    }
  }

  #operation(
    expression: Extract<Expression, { kind: 'unary' | 'binary' | 'compare' | 'call' | 'filter' | 'test' }>,
    scope: Scope,
  ): Value {
    const value = (inner: Expression): Value => this.evaluate(inner, scope);
    switch (expression.kind) {
      case 'unary':
        return unary(expression.operator, value(expression.operand));
      case 'binary': {
        const { operator } = expression;
        const left = value(expression.left);
        if (operator === 'and') return truth(left) ? value(expression.right) : left;
        if (operator === 'or') return truth(left) ? left : value(expression.right);
        return arithmetic(operator, left, value(expression.right), this.budget);
      }
      case 'compare': {
        let left = value(expression.first);
        for (const { operator, operand } of expression.rest) {
          const right = value(operand);
          if (!this.#compares(operator, left, right)) return false;
          left = right;
        }
        return true;
      }
      case 'call': {
        const callee = value(expression.callee);
        const { positional, named } = this.#arguments(expression.args, scope);
        return this.call(callee, positional, named);
      }
      case 'filter':
        return this.#filtered(expression.name, value(expression.operand), expression.args, scope);
      case 'test':
        return applyTest(
          expression.name,
          value(expression.operand),
          this.#arguments(expression.args, scope).positional,
          this,
        );
    }
  }

  #concatenated(texts: readonly string[]): string {
    this.budget.spendChars(texts.reduce((sum, { length }) => sum + length, 0));
    return texts.join('');
  }

  #compares(operator: Comparator, left: Value, right: Value): boolean {
    switch (operator) {
      case '==':
        return equals(left, right, this.budget);
      case '!=':
        return !equals(left, right, this.budget);
      case 'in':
        return contains(right, left, this);
      case 'not in':
        return !contains(right, left, this);
      case '<':
        return compare(left, right, this.budget) < 0;
      case '<=':
        return compare(left, right, this.budget) <= 0;
      case '>':
        return compare(left, right, this.budget) > 0;
      case '>=':
        return compare(left, right, this.budget) >= 0;
    }
  }

  #arguments({ positional, named, spread, namedSpread }: Arguments, scope: Scope): Given {
    const values = positional.map((argument) => this.evaluate(argument, scope));
    const byName = new Map(named.map(([name, argument]) => [name, this.evaluate(argument, scope)]));
    const more = spread === undefined ? [] : iterate(this.evaluate(spread, scope));
    const mapping = namedSpread === undefined ? undefined : this.evaluate(namedSpread, scope);
    if (mapping instanceof Dict) for (const [name, value] of mapping.entries) byName.set(str(name, this.budget), value);
    return { positional: [...values, ...more], named: byName };
  }

  #filtered(name: string, value: Value, args: Arguments, scope: Scope): Value {
    return applyFilter(name, value, this.#arguments(args, scope), this);
  }

  call(callee: Value, positional: readonly Value[], named: ReadonlyMap<string, Value>): Value {
    const callable = callee instanceof Namespace ? callee.call : callee;
    if (callable instanceof Callable) return this.budget.nested(() => callable.call(positional, named));
    throw callee instanceof Undefined
      ? callee.error
      : new TemplateError(`'${typeName(callee)}' object is not callable`);
  }

  /** Like Jinja: a dot prefers the type's members, brackets prefer the value's items. */
  lookUp(object: Value, name: Value, isItem: boolean): Value {
    if (object instanceof Undefined) throw object.error;
    const item = (): Value | undefined => {
      if (object instanceof Dict) return object.entries.get(name);
      const index = name instanceof Float ? undefined : numberOf(name);
      return index === undefined ? undefined : itemAt(object, index);
    };
    const member = (): Value | undefined => {
      if (typeof name !== 'string') return undefined;
      if (object instanceof Namespace) return object.members.get(name);
      return methodOf(object, name, this.budget, (of, inner, byItem) =>
        this.lookUp(of, indexed(inner, byItem), byItem),
      );
    };
    const missing = () =>
      new Undefined(`'${typeName(object)} object' has no attribute '${str(name, this.budget).slice(0, 80)}'`);
    return isItem ? orElse(item(), () => orElse(member(), missing)) : orElse(member(), () => orElse(item(), missing));
  }

  filter(name: string, value: Value, positional: readonly Value[], named: ReadonlyMap<string, Value>): Value {
    return applyFilter(name, value, { positional, named }, this);
  }

  test(name: string, value: Value, positional: readonly Value[]): boolean {
    return applyTest(name, value, positional, this);
  }
}

const indexed = (name: string, isItem: boolean): Value => (isItem && /^\d+$/.test(name) ? Number(name) : name);

function unary(operator: '-' | '+' | 'not', value: Value): Value {
  if (operator === 'not') return !truth(value);
  const number = numberOf(value);
  if (number === undefined)
    throw value instanceof Undefined ? value.error : new TemplateError(`bad operand type for unary ${operator}`);
  const signed = operator === '-' ? -number : number;
  // Python's whole numbers have no negative zero.
  return value instanceof Float ? new Float(signed) : signed + 0;
}
