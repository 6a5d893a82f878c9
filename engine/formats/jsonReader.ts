/**
 * JSON of a known form, pulled value by value out of bounded bytes. `JSON.parse` would take the whole text at once, build
 * whatever it describes, and let duplicate keys pass.
 */
import { limits } from '../limits.ts';
import { type ByteReader, quoted } from './byteReader.ts';

const code = (character: string): number => character.charCodeAt(0);
const quote = code('"');
const backslash = code('\\');
const whitespace: ReadonlySet<number> = new Set([' ', '\n', '\r', '\t'].map(code));
const isDigit = (byte: number): boolean => byte >= 0x30 && byte <= 0x39;

export class JsonReader {
  readonly #reader: ByteReader;
  readonly #maxStringBytes: number;
  /** The string being read; grows to the largest one. */
  #scratch = Buffer.alloc(256);

  constructor(reader: ByteReader, maxStringBytes: number) {
    this.#reader = reader;
    this.#maxStringBytes = maxStringBytes;
  }

  /** `onMember` reads the value of each member. @returns the number of members. */
  object(onMember: (key: string) => void): number {
    this.#expect('{');
    if (this.#accept('}')) return 0;
    let members = 0;
    do {
      const key = this.string('a name');
      this.#expect(':');
      onMember(key);
      members++;
    } while (this.#accept(','));
    this.#expect('}');
    return members;
  }

  array(onElement: () => void): void {
    this.#expect('[');
    if (this.#accept(']')) return;
    do onElement();
    while (this.#accept(','));
    this.#expect(']');
  }

  /** A whole number from 0 to 2^53 - 1, written with digits only. */
  integer(what: string): number {
    const first = this.#next();
    if (!isDigit(first)) throw this.#reader.fail(`${what} is not a whole number of at least 0`);
    let value = 0;
    let digits = 0;
    while (isDigit(this.#reader.peek())) {
      value = value * 10 + (this.#reader.uint8() - 0x30);
      digits++;
    }
    if (digits > 16 || !Number.isSafeInteger(value)) throw this.#reader.fail(`${what} is beyond 2^53`);
    if (digits > 1 && first === 0x30) throw this.#reader.fail(`${what} starts with 0`);
    const after = this.#reader.peek();
    if (after === code('.') || after === code('e') || after === code('E')) {
      throw this.#reader.fail(`${what} is not a whole number`);
    }
    return value;
  }

  string(what: string): string {
    if (this.#next() !== quote) throw this.#reader.fail(`${what} is not a text in quotes`);
    this.#reader.uint8();
    const { length, ascii, escaped } = this.#scanString(what);
    if (ascii && !escaped) return this.#scratch.latin1Slice(0, length);
    return this.#decode(length, what);
  }

  /** Reads any value and forgets it. */
  skip(depth = 0): void {
    if (depth > limits.formats.jsonDepth)
      throw this.#reader.fail(`it is nested more than ${limits.formats.jsonDepth} deep`);
    const next = this.#next();
    if (next === code('{')) this.object(() => this.skip(depth + 1));
    else if (next === code('[')) this.array(() => this.skip(depth + 1));
    else if (next === quote) this.string('a text');
    else this.#skipScalar();
  }

  /** Only white space is left. */
  end(): void {
    if (this.#next() !== -1) throw this.#reader.fail('something follows the JSON');
  }

  #skipScalar(): void {
    let text = '';
    for (
      let byte = this.#next();
      byte > 0x20 && !',]}'.includes(String.fromCharCode(byte));
      byte = this.#reader.peek()
    ) {
      text += String.fromCharCode(this.#reader.uint8());
      // The longest shortest form of a double has 24 characters.
      if (text.length > 32) throw this.#reader.fail(`${quoted(text)} is no JSON`);
    }
    try {
      JSON.parse(text);
    } catch {
      throw this.#reader.fail(`${quoted(text)} is no JSON`);
    }
  }

  /** Moves the bytes up to the closing quote into the scratch buffer. */
  #scanString(what: string): { length: number; ascii: boolean; escaped: boolean } {
    let length = 0;
    let ascii = true;
    let escaped = false;
    for (let byte = this.#reader.uint8(); byte !== quote; byte = this.#reader.uint8()) {
      if (byte < 0x20) throw this.#reader.fail(`${what} holds a control character`);
      length = this.#push(length, byte, what);
      if (byte >= 0x80) ascii = false;
      if (byte !== backslash) continue;
      escaped = true;
      length = this.#push(length, this.#reader.uint8(), what);
    }
    return { length, ascii, escaped };
  }

  #push(length: number, byte: number, what: string): number {
    if (length >= this.#maxStringBytes) throw this.#reader.fail(`${what} is longer than ${this.#maxStringBytes} bytes`);
    if (length === this.#scratch.byteLength) this.#scratch = Buffer.concat([this.#scratch, Buffer.alloc(length)]);
    this.#scratch[length] = byte;
    return length + 1;
  }

  #decode(length: number, what: string): string {
    try {
      const text: unknown = JSON.parse(`"${utf8.decode(this.#scratch.subarray(0, length))}"`);
      if (typeof text === 'string' && text.isWellFormed()) return text;
    } catch {
      // Bad UTF-8 or a bad escape: said below.
    }
    throw this.#reader.fail(`${what} is not a valid JSON text`);
  }

  #next(): number {
    while (whitespace.has(this.#reader.peek())) this.#reader.uint8();
    return this.#reader.peek();
  }

  #accept(character: string): boolean {
    if (this.#next() !== code(character)) return false;
    this.#reader.uint8();
    return true;
  }

  #expect(character: string): void {
    if (!this.#accept(character)) throw this.#reader.fail(`"${character}" is missing in its JSON`);
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
