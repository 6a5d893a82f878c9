/**
 * A pull parser for JSON of a known structure from bounded bytes. `JSON.parse` would take the whole text at once, build
 * everything in it and accept duplicate keys.
 */
import { limits } from '../limits.ts';
import { type ByteReader, quoted } from './byteReader.ts';

const code = (character: string): number => character.charCodeAt(0);
const quote = code('"');
const backslash = code('\\');
const byteSet = (accepted: (byte: number) => boolean): Uint8Array =>
  Uint8Array.from({ length: 256 }, (_, byte) => (accepted(byte) ? 1 : 0));
const whitespace = byteSet((byte) => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09);
/** ASCII characters that need no escape in JSON strings. */
const plainCharacters = byteSet((byte) => byte >= 0x20 && byte < 0x80 && byte !== quote && byte !== backslash);
const isDigit = (byte: number): boolean => byte >= 0x30 && byte <= 0x39;

export class JsonReader {
  readonly #reader: ByteReader;
  readonly #maxStringBytes: number;
  /** Buffer for the current string; grows as needed. */
  #scratch = Buffer.alloc(256);
  /** Buffer for the current list, because growing arrays over-allocate, and a header has tens of thousands of lists. */
  readonly #integers: number[] = [];
  /** True after an opening bracket, when no comma is due. */
  #afterOpening = false;

  constructor(reader: ByteReader, maxStringBytes: number) {
    this.#reader = reader;
    this.#maxStringBytes = maxStringBytes;
  }

  beginObject(): void {
    this.#expect('{');
    this.#afterOpening = true;
  }

  /** The next member's name; its value is read next. Undefined after the last. */
  nextName(): string | undefined {
    if (this.#endsAt('}')) return undefined;
    const name = this.string('a name');
    this.#expect(':');
    return name;
  }

  beginArray(): void {
    this.#expect('[');
    this.#afterOpening = true;
  }

  /** Whether another element follows; it is read next. */
  nextElement(): boolean {
    return !this.#endsAt(']');
  }

  /** Reads an integer from 0 to 2^53 - 1, written with digits only. */
  integer(what: string): number {
    const first = this.#next();
    if (!isDigit(first)) throw this.#unexpected(`${what} is not a whole number of at least 0`);
    let value = 0;
    let digits = 0;
    for (let byte = first; isDigit(byte); byte = this.#reader.peek()) {
      this.#reader.uint8();
      value = value * 10 + (byte - 0x30);
      digits++;
      if (!Number.isSafeInteger(value) || digits > 16) throw this.#reader.fail(`${what} is beyond 2^53`);
    }
    if (digits > 1 && first === 0x30) throw this.#reader.fail(`${what} starts with 0`);
    const after = this.#reader.peek();
    if (after === code('.') || after === code('e') || after === code('E')) {
      throw this.#reader.fail(`${what} is not a whole number`);
    }
    return value;
  }

  /** Reads a list of at most `max` integers. */
  integers(what: string, max: number): number[] {
    this.beginArray();
    let count = 0;
    while (this.nextElement()) {
      if (count === max) throw this.#reader.fail(`${what} has more than ${max} numbers`);
      this.#integers[count++] = this.integer(what);
    }
    return this.#integers.slice(0, count);
  }

  string(what: string): string {
    if (this.#next() !== quote) throw this.#unexpected(`${what} is not a text in quotes`);
    this.#reader.uint8();
    const text = this.#reader.asciiRun(plainCharacters);
    if (text.length > this.#maxStringBytes) throw this.#tooLong(what);
    if (this.#reader.peek() !== quote) return this.#unusualString(what, this.#pushText(0, text, what));
    this.#reader.uint8();
    return text;
  }

  /** Skips any value. */
  skip(depth = 0): void {
    if (depth > limits.formats.jsonDepth) {
      throw this.#reader.fail(`it is nested more than ${limits.formats.jsonDepth} deep`);
    }
    const next = this.#next();
    if (next === code('{')) {
      this.beginObject();
      while (this.nextName() !== undefined) this.skip(depth + 1);
    } else if (next === code('[')) {
      this.beginArray();
      while (this.nextElement()) this.skip(depth + 1);
    } else if (next === quote) {
      this.string('a text');
    } else {
      this.#skipScalar();
    }
  }

  /** Requires that only white space is left. */
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
      // A double's longest shortest representation has 24 characters.
      if (text.length > 32) throw this.#reader.fail(`${quoted(text)} is not JSON`);
    }
    try {
      JSON.parse(text);
    } catch {
      throw this.#reader.fail(`${quoted(text)} is not JSON`);
    }
  }

  /**
   * Reads a string that isn't plain ASCII or exceeds the buffer; its first `length` bytes are in the scratch buffer.
   */
  #unusualString(what: string, length: number): string {
    for (let byte = this.#reader.uint8(); byte !== quote; byte = this.#reader.uint8()) {
      if (byte < 0x20) throw this.#reader.fail(`${what} contains a control character`);
      length = this.#push(length, [byte], what);
      // The character after a backslash belongs to it, even a quote.
      if (byte === backslash) length = this.#push(length, [this.#reader.uint8()], what);
      length = this.#pushText(length, this.#reader.asciiRun(plainCharacters), what);
    }
    try {
      const text: unknown = JSON.parse(`"${utf8.decode(this.#scratch.subarray(0, length))}"`);
      if (typeof text === 'string' && text.isWellFormed()) return text;
    } catch {
      // Invalid UTF-8 or escape: reported below.
    }
    throw this.#reader.fail(`${what} is not a valid JSON string`);
  }

  #push(length: number, bytes: ArrayLike<number>, what: string): number {
    const end = length + bytes.length;
    if (end > this.#maxStringBytes) throw this.#tooLong(what);
    if (end > this.#scratch.byteLength) this.#scratch = Buffer.concat([this.#scratch, Buffer.alloc(end)]);
    this.#scratch.set(bytes, length);
    return end;
  }

  #pushText(length: number, ascii: string, what: string): number {
    return this.#push(length, Buffer.from(ascii, 'latin1'), what);
  }

  #tooLong(what: string): Error {
    return this.#reader.fail(`${what} is longer than ${this.#maxStringBytes} bytes`);
  }

  /** The next byte that isn't white space, without consuming it; -1 at the end. */
  #next(): number {
    const byte = this.#reader.peek();
    if (whitespace[byte] !== 1) return byte;
    this.#reader.skipRun(whitespace);
    return this.#reader.peek();
  }

  /** Consumes the closing bracket, or the comma before another element. */
  #endsAt(closing: string): boolean {
    const ends = this.#accept(closing);
    if (!ends && !this.#afterOpening) this.#expect(',');
    this.#afterOpening = false;
    return ends;
  }

  #accept(character: string): boolean {
    if (this.#next() !== code(character)) return false;
    this.#reader.uint8();
    return true;
  }

  #expect(character: string): void {
    if (!this.#accept(character)) throw this.#unexpected(`"${character}" is missing in its JSON`);
  }

  #unexpected(problem: string): Error {
    return this.#next() === -1 ? this.#reader.failAtEnd() : this.#reader.fail(problem);
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
