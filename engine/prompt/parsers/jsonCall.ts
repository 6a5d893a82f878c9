/** `{"name": "f", "arguments": {…}}`, as Hermes, Qwen and (with `parameters`) Llama 3 write a call. */
import type { Tool } from '../conversation.ts';
import type { CallProgress, CallReader } from './toolCallText.ts';

const head = /^\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)/;

export class JsonCallReader implements CallReader {
  readonly #open: string;
  readonly #close: string;
  readonly #tools: readonly Tool[];
  readonly #scanner = new JsonObjectScanner();
  #state: 'head' | 'arguments' | 'tail' = 'head';
  #text = '';
  /** Number of characters of `#text` that are parsed. */
  #at = 0;

  /**
   * @param close empty: the call ends with its JSON.
   * @param tools a call to any other tool becomes text.
   */
  constructor(open: string, close: string, tools: readonly Tool[]) {
    this.#open = open;
    this.#close = close;
    this.#tools = tools;
  }

  push(text: string): CallProgress {
    this.#text += text;
    const started = this.#state === 'head' ? this.#readHead() : {};
    if (started.broken !== undefined || started.rest !== undefined) return started;
    const read = this.#state === 'arguments' ? this.#readArguments() : {};
    const ended = this.#state === 'tail' && read.broken === undefined ? this.#readTail() : {};
    return { ...started, ...read, ...ended };
  }

  end(): CallProgress {
    if (this.#state === 'tail') return { rest: restOf(this.#text.slice(this.#at)) };
    if (this.#state === 'head') return this.#whole(this.#text, '') ?? { broken: this.#open + this.#text };
    // The output was cut off. Its pieces were already delivered, so they are not repeated as text.
    return { rest: '' };
  }

  #readHead(): CallProgress {
    const match = head.exec(this.#text);
    const name = nameOf(match?.[1]);
    const isOffered = this.#isOffered(name);
    const end = this.#close === '' ? -1 : this.#text.indexOf(this.#close);
    if (match && name !== undefined && isOffered && (end < 0 || end >= match[0].length)) {
      this.#state = 'arguments';
      this.#at = match[0].length;
      return { name };
    }
    if (this.#close === '') return mayBeBareCall(this.#text) && (!match || isOffered) ? {} : { broken: this.#text };
    // Other key orders are parsed once the object is complete.
    if (end < 0) return {};
    const after = this.#text.slice(end + this.#close.length);
    const broken = this.#open + this.#text.slice(0, end + this.#close.length);
    return this.#whole(this.#text.slice(0, end), after) ?? { broken, rest: after };
  }

  #whole(text: string, rest: string): CallProgress | undefined {
    const call = wholeCall(text, rest);
    return this.#isOffered(call?.name) ? call : undefined;
  }

  #isOffered(name: string | undefined): boolean {
    return this.#tools.some((tool) => tool.name === name);
  }

  #readArguments(): CallProgress {
    const start = this.#at;
    while (this.#at < this.#text.length) {
      const state = this.#scanner.push(this.#text.charAt(this.#at));
      if (state === 'invalid') {
        const broken = this.#open + this.#text.slice(0, this.#at);
        return { arguments: this.#text.slice(start, this.#at), broken, rest: this.#text.slice(this.#at) };
      }
      this.#at++;
      if (state === 'more') continue;
      this.#state = 'tail';
      break;
    }
    return { arguments: this.#text.slice(start, this.#at) };
  }

  #readTail(): CallProgress {
    const tail = this.#text.slice(this.#at).trimStart();
    if (tail === '') return {};
    const inner = tail.slice(1).trimStart();
    if (tail.startsWith('}')) {
      if (inner.startsWith(this.#close)) return { rest: inner.slice(this.#close.length) };
      if (this.#close.startsWith(inner)) return {};
    }
    // The call itself is complete; text in place of its closing tag is text.
    return { rest: restOf(tail) };
  }
}

function restOf(tail: string): string {
  return tail.replace(/^\s*\}/, '');
}

function mayBeBareCall(text: string): boolean {
  const dense = text.replace(/\s+/g, '');
  return '{"name":"'.startsWith(dense) || dense.startsWith('{"name":"');
}

function wholeCall(text: string, rest: string): CallProgress | undefined {
  const call = parse(text);
  if (typeof call !== 'object' || call === null || !('name' in call) || typeof call.name !== 'string') return undefined;
  const given = 'arguments' in call ? call.arguments : 'parameters' in call ? call.parameters : {};
  const value = typeof given === 'string' ? parse(given) : given;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  return { name: call.name, arguments: JSON.stringify(value), rest };
}

function nameOf(json: string | undefined): string | undefined {
  const name = json === undefined ? undefined : parse(json);
  return typeof name === 'string' ? name : undefined;
}

function parse(text: string): unknown {
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
