import { TemplateError } from './errors.ts';
import type { Token } from './lexer.ts';

/** Tokens with a place in them. A test is a token's type, or for operators and words their text. */
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

  /** An operator or a word of the language. */
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
