/** Text from bytes and tokens as they come: a token may be a third of a character. */
import type { Tokenizer } from './tokenizer.ts';

/** Bytes to text by the rules of the WHATWG Encoding Standard; what may still become a character is held back. */
export class Utf8Stream {
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  /** The text that `bytes` complete. Bytes that are no UTF-8 become U+FFFD. */
  push(bytes: Uint8Array): string {
    return this.#decoder.decode(bytes, { stream: true });
  }

  /** What was held back, as U+FFFD. The stream may be used again. */
  end(): string {
    return this.#decoder.decode();
  }
}

/** Token ids to text. Special tokens give none, and end the character before them. */
export class TokenTextStream {
  readonly #tokenizer: Tokenizer;
  readonly #utf8 = new Utf8Stream();

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  push(id: number): string {
    return this.#tokenizer.isSpecial(id) ? this.#utf8.end() : this.#utf8.push(this.#tokenizer.bytesOf(id));
  }

  end(): string {
    return this.#utf8.end();
  }
}
