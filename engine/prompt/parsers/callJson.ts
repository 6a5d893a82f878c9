/** The JSON of a tool call: scanned for its end character by character, or read once it is whole. */
import type { CallProgress } from './toolCallText.ts';

/**
 * `{"name": …, "arguments": …}` with its keys in any order; undefined if the text isn't such a call. @param rest the
 * text after it.
 */
export function wholeCall(text: string, rest: string): CallProgress | undefined {
  const call = parseJson(text);
  if (typeof call !== 'object' || call === null || !('name' in call) || typeof call.name !== 'string') return undefined;
  const given = 'arguments' in call ? call.arguments : 'parameters' in call ? call.parameters : {};
  const value = typeof given === 'string' ? parseJson(given) : given;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  return { name: call.name, arguments: JSON.stringify(value), rest };
}

/** Undefined if it isn't JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
// Scans a JSON object character by character for its end and its validity (RFC 8259).

type Expected = 'value' | 'first-item' | 'first-key' | 'key' | 'colon' | 'separator';
type Token = { readonly kind: 'string' | 'escape' | 'bare'; text: string; readonly isKey: boolean };

const bareWords = ['true', 'false', 'null'];
const number = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
const numberBeginning = /^-?(?:(?:0|[1-9]\d*)(?:\.\d*)?(?:(?<=\d)[eE][+-]?\d*)?)?$/;

export class JsonObjectScanner {
  readonly #open: ('{' | '[')[] = [];
  #expected: Expected = 'value';
  #token: Token | undefined;

  /** Nothing may be pushed after `end` or `invalid`. */
  push(character: string): 'more' | 'end' | 'invalid' {
    const token = this.#token;
    if (token?.kind === 'bare') {
      if (/[\w.+-]/.test(character)) return this.#extend(token, character);
      if (!isBareValue(token.text)) return 'invalid';
      this.#token = undefined;
      this.#expected = 'separator';
    } else if (token) return this.#inString(token, character);
    return /[ \t\n\r]/.test(character) ? 'more' : this.#structure(character);
  }

  #extend(token: Token, character: string): 'more' | 'invalid' {
    token.text += character;
    const known = numberBeginning.test(token.text) || bareWords.some((word) => word.startsWith(token.text));
    return known ? 'more' : 'invalid';
  }

  #inString(token: Token, character: string): 'more' | 'invalid' {
    if (token.kind === 'escape') {
      token.text += character;
      if (!/^(?:["\\/bfnrt]|u[\da-fA-F]{0,4})$/.test(token.text)) return 'invalid';
      if (token.text[0] !== 'u' || token.text.length === 5) this.#token = { ...token, kind: 'string', text: '' };
    } else if (character === '\\') this.#token = { ...token, kind: 'escape', text: '' };
    else if (character < ' ') return 'invalid';
    else if (character === '"') {
      this.#token = undefined;
      this.#expected = token.isKey ? 'colon' : 'separator';
    }
    return 'more';
  }

  #structure(character: string): 'more' | 'end' | 'invalid' {
    const expected = this.#expected;
    if (this.#open.length === 0 && character !== '{') return 'invalid';
    if (expected === 'value' || expected === 'first-item') {
      if (character === ']' && expected === 'first-item') return this.#close('[');
      return this.#value(character);
    }
    if (character === '"' && (expected === 'key' || expected === 'first-key')) {
      this.#token = { kind: 'string', text: '', isKey: true };
      return 'more';
    }
    if (character === '}' && (expected === 'first-key' || expected === 'separator')) return this.#close('{');
    if (character === ']' && expected === 'separator') return this.#close('[');
    if (character === ':' && expected === 'colon') this.#expected = 'value';
    else if (character === ',' && expected === 'separator')
      this.#expected = this.#open.at(-1) === '{' ? 'key' : 'value';
    else return 'invalid';
    return 'more';
  }

  #value(character: string): 'more' | 'invalid' {
    if (character === '{' || character === '[') {
      this.#open.push(character);
      this.#expected = character === '{' ? 'first-key' : 'first-item';
      return 'more';
    }
    if (character === '"') {
      this.#token = { kind: 'string', text: '', isKey: false };
      return 'more';
    }
    const token: Token = { kind: 'bare', text: '', isKey: false };
    this.#token = token;
    return this.#extend(token, character);
  }

  #close(bracket: '{' | '['): 'more' | 'end' | 'invalid' {
    if (this.#open.pop() !== bracket) return 'invalid';
    this.#expected = 'separator';
    return this.#open.length === 0 ? 'end' : 'more';
  }
}

function isBareValue(text: string): boolean {
  return bareWords.includes(text) || number.test(text);
}
