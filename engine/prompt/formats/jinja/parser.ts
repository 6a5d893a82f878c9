/** Parses statements like jinja2's `parser.py` with transformers' extensions: loop controls and `generation`. */

import { type Expression, ExpressionParser, type Parameter, type Statement, type Target } from './expressions.ts';
import { TokenStream, tokenize } from './lexer.ts';
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
